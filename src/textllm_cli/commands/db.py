"""`textllm db`: the database's revision. SQLite needs none of it: it is brought up to date whenever it is opened."""

from collections.abc import Sequence
from typing import Annotated

import typer

from textllm_cli.commands import options
from textllm_cli.exit_codes import EXIT_CODES
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import reporting
from textllm_core.errors import ConfigurationError
from textllm_core.records.schema import SchemaStep

app = typer.Typer(no_args_is_help=True, help="Look after the database.")


@app.command()
def upgrade(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: say what would be done, and whether workers may go on.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Bring the database to the newest revision.

    With --check the exit code is 2 where there is something to do.

    Example: textllm db upgrade --check
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        settings, host = invocation.host("db upgrade")
        if check:
            steps = interruptibly(host.database_steps(settings))
            go_on = all(step.workers_go_on for step in steps)
            screen.record({"steps": steps, "workers_go_on": go_on}, _plan(steps))
            if steps:
                raise typer.Exit(EXIT_CODES[ConfigurationError])
            return
        revision = interruptibly(host.upgrade_database(settings))
        screen.record({"current": revision}, revision)


@app.command()
def current(context: typer.Context, as_json: options.Json = False) -> None:
    """Show the database's revision, and the newest there is.

    Example: textllm db current --json
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        settings, host = invocation.host("db current")
        revision, head = interruptibly(host.database_revision(settings))
        screen.record({"current": revision, "head": head}, f"current: {revision or 'none'}\nhead: {head}")
        if revision is None or revision < head:
            screen.say("`textllm db upgrade` brings it to the newest revision.")


@app.command()
def check(context: typer.Context, as_json: options.Json = False) -> None:
    """Tell whether this version can use the database as it is; exit code 2 where it must be upgraded.

    Example: textllm db check && textllm serve
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        settings, host = invocation.host("db check")
        steps = interruptibly(host.database_steps(settings))
        revision, head = interruptibly(host.database_revision(settings))
        if steps:
            raise ConfigurationError(
                f"The database is at revision {revision or 'none'}, the newest is {head}: run `textllm db upgrade`."
            )
        is_newer = ", made by a newer version, which this one can use" if revision != head else ", the newest"
        screen.record({"ok": True, "current": revision}, f"The database is at revision {revision}{is_newer}.")


def _plan(steps: Sequence[SchemaStep]) -> str:
    if not steps:
        return "Nothing is to be done: the database is at the newest revision."
    lines = [f"{step.revision}  {step.title}" for step in steps]
    stopping = [step.revision for step in steps if not step.workers_go_on]
    if stopping:
        lines.append(f"Stop all workers first: they cannot work beside {', '.join(stopping)}.")
    else:
        lines.append("Workers of the version before may go on meanwhile, and afterwards.")
    return "\n".join(lines)
