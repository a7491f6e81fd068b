"""`textllm models`: what can be asked."""

from decimal import Decimal

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import reporting, table
from textllm_core.records.models import ListedModel

app = typer.Typer(no_args_is_help=True, help="Look at the models that can be asked.")


@app.callback()
def models() -> None:
    """Keep `list` a command of its own, though it is the only one."""


@app.command("list")
def list_(context: typer.Context, as_json: options.Json = False) -> None:
    """List the models that the settings name, with what they cost and can read. Others that have a price will do, too.

    Example: textllm models list
    """
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        settings = invocation.settings()
        listed = interruptibly(invocation.engine(settings).list_models(settings))
        header = ("model", "USD a million in", "cached", "out", "images", "PDF as it is", "default")
        screen.record(listed, table(header, [_cells(model) for model in listed.data]))


def _cells(model: ListedModel) -> tuple[str, ...]:
    price = model.price
    costs = ("?", "?", "?") if price is None else (price.input, price.cached_input, price.output)
    return (
        model.id,
        *(f"{cost.normalize():f}" if isinstance(cost, Decimal) else cost for cost in costs),
        "yes" if model.reads_images else "no",
        "yes" if model.reads_files else "no",
        "yes" if model.is_default else "",
    )
