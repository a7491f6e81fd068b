"""`docs/cli.md` is what the commands say of themselves, and each says it with an example."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.help_page import PAGE, commands, help_of, page

TEXTLLM = str(Path(sys.executable).with_name("textllm"))


def test_the_page_shows_every_command_as_it_is() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.cli.help_page`"


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_has_an_example_that_names_it(path: tuple[str, ...]) -> None:
    text = " ".join(help_of(path).split())
    if "COMMAND [ARGS]" not in text:
        assert "Example: " in text
        assert f"textllm {' '.join(path)} " in text.partition("Example: ")[2].replace("--config mine.yaml ", "") + " "


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_words_are_completed_in_every_shell(shell: str) -> None:
    words = {"COMP_WORDS": "textllm conversations ren", "COMP_CWORD": "2"}
    words |= {"_TYPER_COMPLETE_ARGS": "textllm conversations ren", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = subprocess.run(
        [TEXTLLM],
        env={**os.environ, **words, "_TEXTLLM_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "rename" in result.stdout
    assert "restore" not in result.stdout
