"""What the README, `docs/library.md` and `docs/tools.md` print runs as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.image_files import png
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_adapters.testing.stored_files import seen
from textllm_core.policy import SUMMARY_PROMPT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TOOLS = (ROOT / "docs" / "tools.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()


TALKED = "[0] You said: Hello 0.0001025\n[2] You said: And in French?\n"
RESUMED = f"[0] You said: Hello\nstop\n[2] You said: {SUMMARY_PROMPT}\n"
WAITED = "[2] You said: And in French? 2 turns 0.0002675\n"
CAT = png(8, 8)
SHOWN = (
    f"[0] You said: What is it? {seen(CAT)}\n"
    f"[2] You said: Is it in here, too? File report.txt:\n\nA report. {seen(CAT)}\n"
)
CALLED = "[0] You said: Is it raining in Oslo? Results: rain in Oslo\n"
FILED = "notes.txt 12 text/plain\nTea at five.\nfile_not_found No such file.\n"


@pytest.mark.parametrize(
    ("page", "shown", "printed"),
    [
        (README, "await textllm.send_message(", TALKED),
        (LIBRARY, 'await textllm.send_message("Hello")', TALKED),
        (LIBRARY, "textllm.wait(", WAITED),
        (README + LIBRARY, 'print(textllm.send_message("Hello").text)', 2 * "[0] You said: Hello\n"),
        (LIBRARY, "chat_with_image", SHOWN),
        (LIBRARY, "files.upload", FILED),
        (LIBRARY, "resume_reply", RESUMED),
        (TOOLS, "ToolResult", CALLED),
    ],
    ids=["readme", "talk", "sync", "short", "images", "files", "resume", "tools"],
)
def test_the_library_examples_print_what_they_should(
    request: pytest.FixtureRequest, tmp_path: Path, page: str, shown: str, printed: str
) -> None:
    if page is not README:  # one of them is enough that makes its own tables
        request.getfixturevalue("sqlite_url")
    programs = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if shown in block]
    program = "\n".join(programs)
    (tmp_path / "cat.png").write_bytes(CAT)
    (tmp_path / "report.txt").write_bytes(b"A report.")
    with OpenAIStandIn(api_key="sk-test") as provider:
        if page is TOOLS:
            provider.script(Reply(calls=(("weather", '{"city": "Oslo"}'),)))
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "TEXTLLM_DATA_DIR": str(tmp_path),
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": provider.base_url,
            },
        )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == printed


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 1500


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert len(links) > 30
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
