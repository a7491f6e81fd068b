"""`textllm health`: does it stand on firm ground?"""

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import outline, reporting

UNHEALTHY = 8


def health(context: typer.Context, as_json: options.Json = False) -> None:
    """Tell how the database and the storage do; exit code 8 where one is not well.

    No model is asked, so that it costs nothing.

    Example: textllm health --server https://chat.example.org
    """
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings = invocation.settings()
        report = interruptibly(invocation.engine(settings).health(settings))
        screen.record(report, outline(report))
        if report["status"] != "healthy":
            raise typer.Exit(UNHEALTHY)
