"""`textllm batch`: many questions from a file, each answered once."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Final

import typer

from textllm_cli.batch.lines import Line, Outcome, answered_in, lines_of, spent_on
from textllm_cli.batch.purse import Purse
from textllm_cli.batch.runner import Batch
from textllm_cli.commands import options
from textllm_cli.exit_codes import exit_code
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, dollars, reporting
from textllm_cli.uploads import STDIN
from textllm_core.money import ZERO
from textllm_core.records.messages import TurnOptions
from textllm_core.wire import to_json

BUDGET_EXCEEDED: Final = 6


def _usd(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise typer.BadParameter("must be a number of US dollars, such as 2.00")
    return amount


def batch(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="One question a line; - is stdin.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT.jsonl", help="Where the answers go, a line each; else to stdout."),
    ] = None,
    max_cost: Annotated[
        Decimal | None,
        typer.Option("--max-cost", metavar="USD", parser=_usd, help="Begin nothing that could make it cost more."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with OUT.jsonl: ask what has no answer there yet.")
    ] = False,
    at_once: Annotated[int, typer.Option("--concurrency", min=1, max=64, metavar="N", help="How many at once.")] = 4,
    model: options.Model = None,
    prompt: options.Prompt = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    user: options.User = None,
    as_json: options.Json = False,
) -> None:
    """Answer all lines of a file, several at once, each line once.

    A line is a text in quotes, or an object with the fields of `POST /chat`, and with `id`, `files` and `images`
    (paths). Each has one line of output, in their order: `line`, `id`, `cost` (null: nobody knows), `estimated`, and
    `reply` or `error`.

    A line that was asked before, by a run that was killed or by this one again within 24 hours, is not asked again: its
    answer is told once more. With -o and --resume what OUT.jsonl has stays as it is. Exit code 6: --max-cost is
    reached; otherwise that of the first line that failed.

    Example: textllm batch questions.jsonl -o answers.jsonl --max-cost 2.00 --resume
    """
    if system is not None and prompt is not None:
        raise typer.BadParameter("give either --system or --prompt, not both")
    chosen = TurnOptions(
        model=model, prompt=prompt, instructions=system, max_output_tokens=max_tokens, temperature=temperature
    )
    with reporting(as_json=as_json) as screen:
        if output is not None and not resume and output.exists() and output.stat().st_size:
            raise typer.BadParameter(f"{output} is there already; --resume goes on with it", param_hint="--output")
        if source != STDIN and not source.is_file():
            raise typer.BadParameter(f"file '{source}' does not exist.", param_hint="IN.jsonl")
        content = sys.stdin.buffer.read() if source == STDIN else source.read_bytes()
        invocation = invocation_of(context)
        user_id = invocation.user_id(user)
        lines = lines_of(content, str(source.absolute()) if source != STDIN else "-", user_id, chosen)
        code = interruptibly(_batch(invocation, screen, lines, chosen, user_id, source, output, max_cost, at_once))
        if code:
            raise typer.Exit(code)


async def _batch(
    invocation: Invocation,
    screen: Screen,
    lines: Sequence[Line],
    chosen: TurnOptions,
    user_id: str,
    source: Path,
    output: Path | None,
    max_cost: Decimal | None,
    at_once: int,
) -> int:
    """The exit code."""
    settings = invocation.settings()
    engine = invocation.engine(settings)
    before = answered_in(output) if output is not None else {}
    models = await engine.list_models(settings)
    purse = Purse.over(max_cost, models, spent_on(before))
    left = [line for line in lines if line.number not in before]
    if max_cost is not None:
        for line in left:
            purse.price_of(line.asked.options(chosen).model)
    failed = 0
    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(output.open("ab"))

        def write(outcome: Outcome) -> None:
            nonlocal failed
            failed += bool(outcome.error)
            if file is None:
                screen.json(outcome)
            else:
                file.write(to_json(outcome) + b"\n")
                file.flush()  # so that it is there, whatever happens to this process

        async with engine.open_textllm(settings, model_progress=screen.model_progress, grace_s=0) as talk:
            batch = Batch(
                talk,
                user_id,
                chosen,
                purse,
                Path() if source == STDIN else source.parent,
                settings.max_output_tokens,
                max((len(text.encode()) for text in settings.prompts.values()), default=0),
                write,
                lambda done: screen.progress("answered", len(before) + done, len(lines), f"  {dollars(purse.spent)}"),
            )
            try:
                await batch.run(left, at_once=at_once)
            except asyncio.CancelledError:
                again = "the same command" if output is None else "the same command with --resume"
                screen.say(f"interrupted; settling what it cost ({again} goes on with what is left)")
                raise
    answered = len(lines) - failed - batch.unasked
    cost = purse.spent if max_cost is not None or purse.spent else ZERO
    summary = {"lines": len(lines), "answered": answered, "failed": failed, "not_asked": batch.unasked, "cost": cost}
    words = f"{answered} of {len(lines)} lines answered, {failed} failed, {batch.unasked} not asked; {dollars(cost)}"
    if batch.unknown:
        summary["cost_unknown"] = batch.unknown
        words += f", and what {batch.unknown} of them cost, which is not known: see `textllm usage`"
    if output is not None:
        screen.record(summary, words)
    else:
        screen.say(words)
    if batch.unasked:
        screen.warn(f"--max-cost is reached; with a higher one, --resume asks the {batch.unasked} lines that are left")
        return BUDGET_EXCEEDED
    return 0 if batch.failure is None else exit_code(batch.failure)
