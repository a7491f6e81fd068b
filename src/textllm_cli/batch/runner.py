"""Runs a batch: several lines at once, each until it has its one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from textllm_cli.batch.lines import Line, Outcome
from textllm_cli.batch.purse import Purse, PurseEmptyError, Size
from textllm_cli.engine import Talk
from textllm_cli.speaking import Said, Speaker, heard, patiently
from textllm_cli.uploads import upload_of
from textllm_core.errors import (
    FREE,
    Charge,
    ModelError,
    ProviderError,
    ServiceUnavailableError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.money import ZERO
from textllm_core.problem_details import problem_of_error
from textllm_core.records.messages import Reply, ReplyEvent, ReplyStarted, TurnOptions
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload

_ATTEMPTS: Final = 10  # as often as a process may die with the same line in its hands
_AHEAD: Final = 64  # lines that may wait for an earlier one: its answer is written before theirs


@dataclass(slots=True)
class Batch:
    """Lines on their way.

    Args:
        folder: from which the paths of files begin.
        instructions_bytes: how long the system prompt of a turn may be that names none of its own.
        write: takes each outcome, in the order of the lines.
        told: is told how many are done.
        failure: of the first line that failed; unasked: how many lines there was no money for; unknown: of how many
            lines nobody knows what they cost.
    """

    talk: Talk
    user_id: str
    options: TurnOptions
    purse: Purse
    folder: Path
    output_tokens: int
    instructions_bytes: int
    write: Callable[[Outcome], None]
    told: Callable[[int], None]
    failure: TextLLMError | None = None
    unasked: int = 0
    unknown: int = 0

    async def run(self, lines: Sequence[Line], *, at_once: int) -> None:
        """Answer all of them, or as many as the money is enough for."""
        outcomes: dict[int, Outcome | None] = {}
        waiting = iter(enumerate(lines))
        written, changed = 0, asyncio.Condition()

        async def work() -> None:
            nonlocal written
            for place, line in waiting:
                async with changed:
                    while place >= written + _AHEAD:
                        await changed.wait()
                outcome = await self._outcome(line)
                async with changed:
                    outcomes[place] = outcome
                    while written in outcomes:
                        ready = outcomes.pop(written)
                        if ready is not None:
                            self.write(ready)
                        written += 1
                    self.told(written)
                    changed.notify_all()

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(at_once, len(lines))):
                    workers.create_task(work())
        except ExceptionGroup as failures:  # such as a full disk under the output
            raise failures.exceptions[0] from None

    async def _outcome(self, line: Line) -> Outcome | None:
        """What became of a line; None where there was no money left to ask it."""
        costs, name = _Costs(), UNSET if line.asked.id is None else line.asked.id

        def outcome(**what: Any) -> Outcome:
            self.unknown += costs.known is None
            return Outcome(line=line.number, id=name, cost=costs.known, estimated=costs.are_estimated, **what)

        try:
            said = Said(line.asked.message, self._uploads(line.asked.images), self._uploads(line.asked.files))
            size = await self._size(line, said)
            for attempt in range(_ATTEMPTS):
                reply, is_replayed, failure = await self._attempt(line, said, size, attempt, costs)
                if reply is not None and reply.finish_reason != "cancelled":
                    return outcome(reply=reply)
                if failure is not None and not is_replayed:
                    raise failure
            raise failure or ProviderError("The reply was cut short each time.")
        except PurseEmptyError:
            self.unasked += 1
            return None
        except TextLLMError as error:
            self.failure = self.failure or error
            return outcome(error=problem_of_error(error))

    async def _attempt(
        self, line: Line, said: Said, size: Size, attempt: int, costs: _Costs
    ) -> tuple[Reply | None, bool, TextLLMError | None]:
        """Its reply; else whether an earlier process has tried it, and why it failed."""
        asked = line.asked
        has_begun = is_replayed = False

        def hear(event: ReplyEvent) -> None:
            nonlocal has_begun, is_replayed
            if isinstance(event, ReplyStarted):
                has_begun, is_replayed = True, event.is_replayed

        # A repeat has to ask for the same: what the answer may be long is said each time, whatever the budget is.
        options = replace(asked.options(self.options), max_output_tokens=size.output_tokens)
        most = self.purse.most(options.model, size)
        async with self.purse.promised(most):
            speaker = Speaker(asked.user_id or self.user_id, None, False, options, line.key(attempt))
            ask = lambda: speaker.ask(self.talk, said, asked.conversation_id)  # noqa: E731
            try:
                reply = (await heard(patiently(ask, lambda _: None), hear)).reply
            except TextLLMError as error:
                if error.charge is not None:
                    lost: Charge | None = error.charge
                elif not (has_begun or _may_have_cost(error)):
                    lost = FREE
                else:  # what it may be at most is told only where it counts
                    lost = None if self.purse.limit is None else Charge(most, estimated=True)
                self.purse.spent += costs.add(lost)
                return None, is_replayed or error.is_replayed, error
            self.purse.spent += costs.add(Charge(reply.cost, reply.estimated))
            return reply, is_replayed, None

    def _uploads(self, paths: Sequence[str]) -> Sequence[Upload]:
        return [upload_of(self.folder / path) for path in paths]

    async def _size(self, line: Line, said: Said) -> Size:
        """How much it may have the model read and write."""
        asked, past_tokens = line.asked, 0
        if asked.conversation_id is not None and self.purse.limit is not None:
            past = await self.talk.conversations.get(Caller(), asked.conversation_id)
            past_tokens = past.total_tokens_input + past.total_tokens_output
        options = asked.options(self.options)
        own = options.instructions
        return Size.of(
            text=asked.message,
            instructions_bytes=self.instructions_bytes if own is None else len(own.encode("utf-8", "replace")),
            past_tokens=past_tokens,
            files=[upload.size for upload in said.documents],
            images=len(said.images),
            output_tokens=min(options.max_output_tokens or self.output_tokens, self.output_tokens),
        )


@dataclass(slots=True)
class _Costs:
    """What one line has cost so far; `known`: USD, None once nobody knows."""

    known: Decimal | None = ZERO
    are_estimated: bool = False

    def add(self, charge: Charge | None) -> Decimal:
        """Count an attempt; what is known of it, in USD. None: it was charged, and nobody knows what for."""
        if charge is None:
            self.known = None
            return ZERO
        if self.known is not None:
            self.known += charge.cost
        self.are_estimated |= charge.estimated
        return charge.cost


def _may_have_cost(error: TextLLMError) -> bool:
    """Whether an attempt that ended so, and does not say what it has cost, may be in the books."""
    is_in_doubt = isinstance(error, ServiceUnavailableError) and error.is_in_doubt
    may_have_run = isinstance(error, ModelError) and error.may_have_run
    return error.is_replayed or may_have_run or is_in_doubt or isinstance(error, StorageUnavailableError)
