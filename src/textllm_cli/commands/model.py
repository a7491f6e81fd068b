"""`textllm model`: the file of the embedded model."""

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import reporting

app = typer.Typer(no_args_is_help=True, help="Look after the embedded model.")


@app.callback()
def model() -> None:
    """Keep `fetch` a command of its own, though it is the only one."""


@app.command()
def fetch(context: typer.Context, as_json: options.Json = False) -> None:
    """Fetch and check the embedded model's file, unless it is there.

    Example: textllm model fetch
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        settings, host = invocation.host("model fetch")
        path = interruptibly(host.fetch_model(settings, screen.model_progress))
        screen.record({"path": str(path)}, str(path))
