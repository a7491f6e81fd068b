"""What the pages print for a shell runs as printed, in their order."""

import re
import shlex
from pathlib import Path

from tests.cli.conftest import Run

from textllm_adapters.memory.llm import ScriptedReply

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def commands(page: str) -> list[str]:
    """Each line for a shell that runs `textllm`, without what is said about it."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if re.match(r"(git diff \| )?textllm ", line)]


def test_the_commands_of_the_readme_run_one_after_the_other(run: Run, tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_bytes(b"A report.")  # the reader in memory reads texts alone
    (tmp_path / "questions.jsonl").write_text('"The capital of France?"\n')
    shown = []
    for command in commands(README):
        _, *arguments = shlex.split(command.removeprefix("git diff | ").replace("report.pdf", "report.txt"))
        if arguments[0] in ("serve", "--server"):  # they have tests of their own, with a real server
            continue
        stdin = "diff --git a b" if "|" in command else "Hello\nexit\n" if arguments[0] == "chat" else ""
        ran = run(*arguments, says=[ScriptedReply(text="Sure.")], stdin=stdin)
        assert ran.exit_code == 0, (command, ran.output)
        shown += [(arguments[0], ran.stdout)]
    assert [name for name, _ in shown] == ["ask", "ask", "ask", "ask", "chat", "batch", "usage"]
    assert all("Sure." in said for name, said in shown if name != "usage")


def test_every_command_that_a_page_names_is_there(run: Run) -> None:
    pages = "\n".join(page.read_text() for page in PAGES)
    named = {*commands(pages), *re.findall(r"`(textllm [^`…]*)`", pages)} - {"textllm --install-completion"}
    assert len(named) > 20
    for command in sorted(named):
        words = [word for word in shlex.split(command.removeprefix("git diff | "))[1:] if word != "--server"]
        path = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        helped = run(*path[: 2 if path[:1] != ["ask"] else 1], "--help")
        assert helped.exit_code == 0, (command, helped.output)
        options = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)]
        assert [option for option in options if option not in helped.output] == [], command
