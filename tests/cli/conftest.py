"""Commands in this process over adapters in memory, away from any settings of this machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.app_over_memory import MemoryWiring
from typer.testing import CliRunner, Result

from textllm_adapters.memory.llm import ScriptedReply
from textllm_cli.main import app

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `.env`, no `config/`, no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("TEXTLLM_", "OPENAI_", "DATABASE_", "S3_", "AWS_", "LOG_LEVEL", "NO_COLOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TEXTLLM_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def wiring() -> MemoryWiring:
    return MemoryWiring()


@pytest.fixture
def run(wiring: MemoryWiring) -> Run:
    """`run("ask", "hi", says=["Hel", "lo"], stdin="...")`."""

    def run(*arguments: str, says: list[ScriptedReply] | None = None, stdin: str | bytes | None = None) -> Result:
        wiring.replies = says or []
        return CliRunner().invoke(app, arguments, input=stdin, obj=lambda: wiring)

    return run
