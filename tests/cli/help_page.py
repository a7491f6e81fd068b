"""Writes `docs/cli.md` from the help of every command: `python -m tests.cli.help_page`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from typer._click import Command, Context
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from textllm_cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
_COLUMNS = "100"  # the help is as wide as the terminal: here as wide as a page
_BEGINNING = """\
# The command line

Every command, as `--help` shows it. Results go to stdout, talk goes to stderr; `--json` prints what the REST API would
answer. Each command but those that say otherwise works in this process, or against a server: with `--server URL`, or
with `TEXTLLM_SERVER` and `TEXTLLM_API_KEY` in the environment.

In process no rate limit applies, and a message may be as long as the model takes: limits protect a service from its
callers, not you from yourself. What `.env` or the environment sets holds all the same, and so does what `config.yaml`
sets to something else than the default: `rate_limit_per_minute`, `max_input_length`, `max_conversations_per_user`. The
day's budget, `cost_limit_per_session`, holds always. Each refusal names the setting that made it.

An answer that was cut short has exit code 7, one that the model refused 4; both are printed, and stderr says why.

Completion for bash, zsh and fish: `textllm --install-completion`, in the shell that is to complete.

This page is written by `python -m tests.cli.help_page`.
"""


def commands(command: Command | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before what is in them."""
    command = command or get_command(app)
    yield path
    if isinstance(command, TyperGroup):
        context = Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


def help_of(path: tuple[str, ...]) -> str:
    """What `--help` prints there."""
    result = CliRunner(env={**os.environ, "COLUMNS": _COLUMNS}).invoke(app, [*path, "--help"], prog_name="textllm")
    assert result.exit_code == 0, result.output
    return re.sub(r" +$", "", result.stdout.strip(), flags=re.MULTILINE)


def page() -> str:
    """The whole page."""
    sections = (f"## {' '.join(('textllm', *path))}\n\n```\n{help_of(path)}\n```\n" for path in commands())
    return "\n".join((_BEGINNING, *sections))


if __name__ == "__main__":
    PAGE.write_text(page())
