"""The commands of the chat: what each is called, takes and does, as `/help` shows it."""

import io
import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from textllm_core.errors import InvalidRequestError

COMMANDS: Final = {
    "new": ("", "start a new conversation"),
    "open": ("ID", "go on with an earlier conversation; the first characters of its id will do"),
    "image": ("PATH [TEXT]", "ask about an image; a path with spaces goes in quotes"),
    "file": ("PATH [TEXT]", "ask about a document"),
    "usage": ("", "show what this conversation used and cost since the chat began"),
    "history": ("", "show this conversation"),
    "model": ("[NAME]", "let another model answer from now on; alone, show which one does"),
    "system": ("[TEXT]", "give the model instructions from now on; alone, show them"),
    "prompt": ("[NAME]", "use one of the operator's prompts from now on; alone, show which one is used"),
    "save": ("PATH", "write this conversation to a Markdown file"),
    "edit": ("", "write the next message in your editor (EDITOR)"),
    "retry": ("", "send your last message again"),
    "help": ("", "show this"),
    "quit": ("", "leave, as `exit`, `quit` and the end of input do"),
}

TALKING: Final = frozenset({"image", "file", "retry", "edit"})  # those that send a message, or hand the keyboard on

_COMMAND: Final = re.compile(r"/(?P<name>[A-Za-z][\w-]*)(?:\s+(?P<rest>.*))?", re.DOTALL)
_LEAVING: Final = frozenset({"exit", "quit", "/exit"})


def help_text() -> str:
    """What there is besides talking."""
    usages = {f"/{name} {takes}".rstrip(): what for name, (takes, what) in COMMANDS.items()}
    width = max(map(len, usages)) + 2
    return "\n".join(
        [
            *(f"{usage.ljust(width)}{what}" for usage, what in usages.items()),
            "",
            "Enter sends; Alt-Enter, or a backslash at the end, begins a new line. What you paste is one message.",
            "Ctrl-C cuts a reply short; what is written of it is kept. A space before a / sends it as text.",
        ]
    )


class Command(NamedTuple):
    """What is to be done: `name` is one of `COMMANDS`, `rest` what stands behind it."""

    name: str
    rest: str


def command_of(line: str) -> Command | None:
    """The command that a line is; None: it is a message.

    Raises:
        InvalidRequestError: it looks like a command, and there is none of that name.
    """
    if line.strip().lower() in _LEAVING:
        return Command("quit", "")
    found = _COMMAND.fullmatch(line.rstrip())
    if found is None:
        return None
    name, rest = found["name"].lower(), (found["rest"] or "").strip()
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        guess = f"did you mean /{near[0]}?" if near else "/help shows what there is."
        raise InvalidRequestError(f"There is no /{name}; {guess} Put a space before it to send it as text.")
    return Command(name, rest)


def path_and_text(command: Command) -> tuple[Path, str]:
    """A path, quoted as in a shell where it has to be, then perhaps a text.

    Raises:
        InvalidRequestError: there is no path.
    """
    typed = io.StringIO(command.rest)
    words = shlex.shlex(typed, posix=True)
    words.whitespace_split, words.commenters = True, ""
    try:
        path = words.get_token()
    except ValueError:
        raise InvalidRequestError(f"A quote of /{command.name} is never closed.") from None
    if not path:
        raise InvalidRequestError(f"Say which file: /{command.name} {COMMANDS[command.name][0]}")
    return Path(path).expanduser(), typed.read().strip()
