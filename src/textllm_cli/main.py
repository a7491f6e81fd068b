"""The command tree, and the one place of the command line that names the wiring."""

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException  # what is public has neither message nor exit code
from typer.core import TyperGroup

from textllm_cli.commands import ask, audit, chat, config, conversations, db, files, keys, model, serve, sessions, usage
from textllm_cli.invocation import Invocation, Wiring
from textllm_cli.render import Screen, reporting
from textllm_core.errors import InvalidRequestError


class _Commands(TyperGroup):
    """The commands; whoever wants JSON is told of a wrong use in JSON, too."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)
        if "--json" not in arguments:
            return super().main(args, *rest, **options)
        try:
            code = super().main(args, *rest, **(options | {"standalone_mode": False}))
        except ClickException as error:
            Screen(as_json=True).problem(InvalidRequestError(error.format_message()))
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


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
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Conversations with language models, every token priced, charged and limited.

    Exit codes: 0 fine; 1 unexpected; 2 usage or configuration; 3 not found; 4 refused input; 5 rate limited, or the
    conversation is busy: try again; 6 budget exceeded; 7 provider; 8 storage; 9 not authenticated or forbidden;
    130 interrupted.
    """
    context.obj = Invocation(context.obj, config)


app.command()(ask.ask)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(usage.usage)
app.command()(audit.audit)
app.add_typer(conversations.app, name="conversations")
app.add_typer(sessions.app, name="sessions")
app.add_typer(files.app, name="files")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
app.add_typer(model.app, name="model")


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
    app(prog_name="textllm", obj=load_wiring)


if __name__ == "__main__":
    main()
