"""The command tree, and the one place of the command line that names the wiring."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer._click.exceptions import ClickException  # what is public has neither message nor exit code
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

if TYPE_CHECKING:  # a list of commands needs none of them, and is shown at once
    from typer._click import Command, Context, HelpFormatter

    from textllm_cli.invocation import Wiring

COMMANDS: Final = {
    "ask": "Ask one question and print the answer.",
    "batch": "Answer all lines of a file, several at once, each line once.",
    "chat": "Talk, line by line; /help shows what else there is.",
    "serve": "Serve the REST API.",
    "usage": "Show the answered messages, the tokens and the cost of the last days.",
    "audit": "Check every counter against the ledger; safe while the server runs.",
    "conversations": "Look at conversations, find, name, tag, sum up, export, import and delete them.",
    "sessions": "Look at sessions: a user's usage in one UTC day each.",
    "files": "Keep files: upload, list, download and delete them.",
    "keys": "Make, list and revoke the keys that callers of the server need.",
    "models": "Look at the models that can be asked.",
    "health": "Tell how the database and the storage do; exit code 8 where one is not well.",
    "config": "Show or check the settings.",
    "db": "Look after the database.",
    "model": "Look after the embedded model.",
    "jobs": "Do what a server does from time to time.",
}  # each is in the module `commands.NAME`, as `app` or as a function of its name; the words are those of its help
_UNLOADED: Final = TyperCommand(name=None)
# New objects until Python looks for circles among them, 10 MB or so. One question makes twice as many, which stay until
# its end: with the usual number, 700, they would be looked through again and again.
_OBJECTS: Final = 50_000


class _Commands(TyperGroup):
    """The commands, each loaded once it is asked for; whoever wants JSON is told of a wrong use in JSON, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands.update(dict.fromkeys(COMMANDS, _UNLOADED))

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if self.commands.get(cmd_name) is _UNLOADED:
            self.commands.update(_loaded(cmd_name))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002 - they are the same everywhere
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        arguments = args = _server_first(sys.argv[1:] if args is None else list(args))
        if "--json" not in arguments:
            return super().main(args, *rest, **options)
        try:
            code = super().main(args, *rest, **(options | {"standalone_mode": False}))
        except ClickException as error:
            from textllm_cli.render import Screen
            from textllm_core.errors import InvalidRequestError

            Screen(as_json=True).problem(InvalidRequestError(error.format_message()))
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _loaded(name: str) -> Mapping[str, Command]:
    module = import_module(f"textllm_cli.commands.{name}")
    tree = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    if hasattr(module, "app"):
        tree.add_typer(module.app, name=name)
    else:
        tree.command()(getattr(module, name))
    return get_group(tree).commands


def _server_first(arguments: list[str]) -> list[str]:
    """The arguments with `--server URL` in front, wherever it stood: it is an option of all commands alike."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for place, argument in enumerate(before):
        length = 2 if argument == "--server" else 1 if argument.startswith("--server=") else 0
        if length:
            named = arguments[place : place + length]
            return [*named, *arguments[:place], *arguments[place + length :]]
    return arguments


app = typer.Typer(
    name="textllm",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain pages: they start fast, and pipe well
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from textllm_cli.render import reporting

        with reporting() as screen:
            screen.result(version("textllm"))
        raise typer.Exit


@app.callback()
def textllm(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="PATH", help="Read settings from this file, not from config/config.yaml."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Ask this server, not the engine in this process; TEXTLLM_SERVER, with TEXTLLM_API_KEY as the key. "
            "It may stand behind the command, too.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Conversations with language models, every token priced, charged and limited.

    Exit codes: 0 fine; 1 unexpected; 2 usage or configuration; 3 not found; 4 refused input; 5 rate limited, or the
    conversation is busy: try again; 6 budget exceeded; 7 provider; 8 storage; 9 not authenticated or forbidden;
    130 interrupted.

    Example: textllm ask "Name three rivers."
    """
    from textllm_cli.invocation import Invocation

    context.obj = Invocation(context.obj, config, server)


def _load_wiring() -> Wiring:
    from textllm_adapters import wiring

    # A command tells of a failure once, as its error; logs are for the server, which sets them up.
    logging.getLogger("textllm").addHandler(logging.NullHandler())
    return wiring


def main(load_wiring: Callable[[], Wiring] = _load_wiring) -> None:
    """Run the command line on this process's arguments, then exit.

    Args:
        load_wiring: what opens the engine; another one serves tests and trials.
    """
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)  # else all of it is looked through at the end: a quarter of the time of one question
    app(prog_name="textllm", obj=load_wiring)


if __name__ == "__main__":
    main()
