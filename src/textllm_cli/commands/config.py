"""`textllm config`: the settings in force."""

import typer

from textllm_cli.commands import options
from textllm_cli.invocation import invocation_of
from textllm_cli.render import outline, reporting

app = typer.Typer(no_args_is_help=True, help="Show or check the settings.")


@app.command()
def show(context: typer.Context, as_json: options.Json = False) -> None:
    """Show the values in force; no secret is among them."""
    with reporting(as_json=as_json) as screen:
        values = invocation_of(context).settings().public()
        screen.record(values, outline(values))


@app.command()
def check(context: typer.Context, as_json: options.Json = False) -> None:
    """Check all settings at once, and list everything that is wrong with them."""
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings = invocation.settings()
        invocation.wiring.check(settings)
        notices = invocation.wiring.notices(settings)
        for notice in notices:
            screen.warn(notice)
        screen.record({"ok": True, "notices": notices}, "The settings can be used.")
