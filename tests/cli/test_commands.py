"""The commands that do not talk."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from textllm_cli.main import COMMANDS, app
from textllm_core.events import Removable
from textllm_core.records.models import ProviderFound


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").stdout == version("textllm") + "\n"


def test_the_list_of_commands_says_of_each_what_its_own_help_says(run: Run) -> None:
    said = " ".join(run("--help").stdout.split())
    tree = get_command(app)
    assert isinstance(tree, TyperGroup)
    for name in COMMANDS:
        command = tree.get_command(Context(tree), name)
        assert command is not None
        summary = " ".join((command.help or "").partition("\n\n")[0].split())
        assert summary == COMMANDS[name]
        assert f"{name} {summary}" in said


def test_a_mistyped_command_is_told_which_one_may_be_meant(run: Run) -> None:
    assert "No such command 'usge'. Did you mean 'usage'?" in run("usge").stderr


def test_help_loads_neither_a_command_nor_what_is_behind_it() -> None:
    program = (
        "import sys; from textllm_cli.main import app\n"
        "try: app(['--help'], prog_name='textllm')\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ask" in result.stdout
    loaded = set(result.stderr.split())
    assert "textllm_cli.main" in loaded
    slow = {"asyncio", "email", "msgspec", "openai", "rich", "sqlalchemy", "textllm_adapters", "textllm_core", "yaml"}
    assert not loaded & slow
    assert not [name for name in loaded if name.startswith("textllm_cli.commands")]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_it_starts_also_where_a_standard_stream_is_closed(tmp_path: Path, closed: str) -> None:
    def ran(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "textllm_cli", *arguments]
        environment = {"HOME": str(tmp_path), "TEXTLLM_DATA_DIR": str(tmp_path / "data"), "OPENAI_API_KEY": "sk-test"}
        return subprocess.run(command, input=b"", capture_output=True, cwd=tmp_path, env=environment, check=False)

    nothing_asked = ran("ask")
    assert (nothing_asked.returncode, nothing_asked.stdout) == (2, b""), nothing_asked
    assert (b"say what to ask" in nothing_asked.stderr) == (closed != "2>&-"), nothing_asked
    usage = ran("usage", "--json")
    assert (usage.returncode, usage.stderr, usage.stdout == b"") == (0, b"", closed == ">&-"), usage


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["ask"],
        ["chat"],
        ["serve"],
        ["config"],
        ["db"],
        ["model"],
        ["config", "show"],
        ["usage"],
        ["sessions", "list"],
    ],
)
def test_every_command_has_a_help_page(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_settings_in_force_are_shown_without_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("TEXTLLM_LOGGING__LEVEL", "DEBUG")
    text = run("config", "show").stdout
    assert "provider: openai\n" in text
    assert "logging.level: DEBUG\n" in text
    assert "secret" not in text


def test_the_settings_are_shown_as_json_with_exact_numbers(run: Run) -> None:
    shown = json.loads(run("config", "show", "--json").stdout, parse_float=str)
    assert shown["config"]["cost_limit_per_session"] == "5.0"


def test_the_file_of_settings_can_be_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: my-model\n")
    assert json.loads(run("--config", "mine.yaml", "config", "show", "--json").stdout)["config"]["model"] == "my-model"


def test_a_file_that_is_not_there_has_exit_code_2(run: Run) -> None:
    assert run("--config", "none.yaml", "config", "show").exit_code == 2


def test_a_check_of_good_settings_says_so(run: Run) -> None:
    assert run("config", "check").stdout == "The settings can be used.\n"
    assert json.loads(run("config", "check", "--json").stdout) == {"ok": True, "notices": []}


def test_a_check_says_what_an_operator_should_know(run: Run, wiring: MemoryWiring) -> None:
    wiring.noticed = ("The model retires soon.",)
    result = run("config", "check")
    assert (result.exit_code, result.stderr) == (0, "warning: The model retires soon.\n")


def test_a_check_tells_how_each_provider_is(run: Run, wiring: MemoryWiring) -> None:
    wiring.found = (
        ProviderFound(name="groq", is_well=True, contexts={"llama": 8192}),
        ProviderFound(name="away", is_well=False, notes=["It cannot be reached."]),
    )
    result = run("config", "check")
    assert result.stdout == "groq: llama with 8192 tokens of context\nThe settings can be used.\n"
    assert (result.exit_code, result.stderr) == (0, "warning: away: It cannot be reached.\n")
    assert len(json.loads(run("config", "check", "--json").stdout)["providers"]) == 2
    assert run("config", "check", "--offline").stdout == "The settings can be used.\n"


def test_a_check_of_bad_settings_lists_them_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: [1]\nmax_input_length: -1\nmodle: x\n")
    result = run("--config", "bad.yaml", "config", "check", "--json")
    problem = json.loads(result.stderr)
    assert (result.exit_code, problem["code"]) == (2, "invalid_configuration")
    assert all(name in problem["detail"] for name in ("model", "max_input_length", "modle"))


def test_a_look_at_an_upgrade_says_what_it_would_do_and_changes_nothing(run: Run) -> None:
    found = run("db", "upgrade", "--check")
    assert (found.exit_code, found.stdout) == (
        2,
        "0007  More room.\nStop all workers first: they cannot work beside 0007.\n",
    )
    assert json.loads(run("db", "upgrade", "--check", "--json").stdout) == {
        "steps": [{"revision": "0007", "title": "More room.", "workers_go_on": False}],
        "workers_go_on": False,
    }
    assert run("db", "current").stdout == "current: none\nhead: 0007\n"
    run("db", "upgrade")
    assert (run("db", "upgrade", "--check").exit_code, run("db", "check").exit_code) == (0, 0)


def test_the_database_is_upgraded(run: Run) -> None:
    assert run("db", "current").stdout == "current: none\nhead: 0007\n"
    assert "textllm db upgrade" in run("db", "current").stderr
    assert run("db", "upgrade").stdout == "0007\n"
    assert json.loads(run("db", "current", "--json").stdout) == {"current": "0007", "head": "0007"}


def test_the_model_is_fetched_with_a_line_at_each_end(run: Run, tmp_path: Path) -> None:
    result = run("model", "fetch")
    assert result.stdout == f"{tmp_path / 'data' / 'models' / 'model.gguf'}\n"
    assert result.stderr == "fetching the model: 0 % of 100 MB\nfetching the model: 100 % of 100 MB\n"


def test_jobs_say_of_all_that_they_remove_how_much_went(run: Run, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("ledger_months: 12\n")  # else the ledger keeps all
    result = run("--config", "some.yaml", "jobs", "run", "--json")
    done = json.loads(result.stdout)
    removed = {f"removed_{kind}" for kind in get_args(Removable)} - {"removed_conversations"}
    others = {"settled", "purged_conversations", "swept_files", "erased_at_provider"}
    assert (result.exit_code, set(done)) == (0, removed | others)
    lines = run("--config", "some.yaml", "jobs", "run").stdout.splitlines()
    assert (len(lines), len({line.split(":")[0] for line in lines})) == (len(done), len(done))
