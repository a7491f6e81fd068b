"""`textllm config`: the settings in force."""

from collections.abc import Sequence

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import outline, reporting

app = typer.Typer(no_args_is_help=True, help="Show or check the settings.")


@app.command()
def show(context: typer.Context, as_json: options.Json = False) -> None:
    """Show the values in force; no secret is among them.

    Example: textllm config show --json
    """
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings = invocation.settings(is_personal=False)
        values = interruptibly(invocation.engine(settings).config_in_force(settings))
        screen.record({"config": values}, outline(values))


@app.command()
def check(context: typer.Context, as_json: options.Json = False) -> None:
    """Check all settings at once, and list everything that is wrong with them.

    Example: textllm --config mine.yaml config check
    """
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings, wiring = invocation.settings(is_personal=False), invocation.load_wiring()
        notices: Sequence[str] = ()
        if settings.server is None:  # else the model and the storage are the server's, which checks its own
            wiring.check(settings)
            notices = wiring.notices(settings)
        for notice in notices:
            screen.warn(notice)
        screen.record({"ok": True, "notices": notices}, "The settings can be used.")
