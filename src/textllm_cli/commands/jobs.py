"""`textllm jobs`: what a server does from time to time, where there is none."""

from collections.abc import Mapping
from typing import Final

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import invocation_of
from textllm_cli.render import reporting

_WORDS: Final[Mapping[str, str]] = {
    "settled": "exchanges settled",
    "purged_conversations": "conversations purged",
    "removed_repeats": "idempotency keys removed",
    "removed_journals": "ended streams removed",
    "removed_rate_limits": "unused rate limits removed",
    "removed_revoked_keys": "revoked API keys removed",
    "removed_expired_conversations": "conversations of old responses removed",
    "removed_idle_conversations": "conversations that nobody goes on with removed",
    "removed_entries": "old ledger entries removed",
    "removed_sessions": "old sessions removed",
    "swept_files": "files removed",
    "erased_at_provider": "replies erased",
}

app = typer.Typer(no_args_is_help=True, help="Do what a server does from time to time.")


@app.callback()
def jobs() -> None:
    """Keep `run` a command of its own, though it is the only one."""


@app.command()
def run(context: typer.Context, as_json: options.Json = False) -> None:
    """Settle what dead processes left, remove what nobody needs any more, and erase what is to be erased; then end.

    A server does this by itself. Without one, let a timer do it.

    Example: textllm jobs run --json
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        settings, host = invocation.host("jobs run")
        done = interruptibly(host.run_jobs(settings))
        screen.record(done, "\n".join(f"{_WORDS[job]}: {number}" for job, number in done.items()))
