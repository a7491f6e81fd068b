"""One generation: a reply played at its pace to whoever reads it, and what remains of it afterwards."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tests.servers.openai_items import echo_of, item_tokens, new_id, text_tokens
from tests.servers.openai_script import Bill, Json, Reply, Usage
from tests.servers.openai_tools import counted, tokens_read


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a generation ended; `detail` is the reason of an incomplete one, the code of a failed one."""

    status: Literal["completed", "incomplete", "failed", "cancelled"]
    usage: Usage | None = None
    detail: str | None = None
    shape: str = "failed"  # of a failed one: "failed", "error_flat" or "error_nested"
    calls: tuple[tuple[str, str], ...] = ()  # of functions, by name and arguments


class Wire(Protocol):
    """One API's way to put a generation on the wire; every method gives the server-sent events of its moment."""

    id: str
    model: str
    service_tier: str
    output: list[Json]  # finished items

    def begin(self) -> Iterable[bytes]: ...
    def think(self, text: str, /) -> Iterable[bytes]: ...
    def begin_tool(self, item: Json, /) -> Iterable[bytes]: ...
    def end_tool(self, item: Json, /) -> Iterable[bytes]: ...
    def speak(self, delta: str) -> Iterable[bytes]: ...
    def finish(self, outcome: Outcome) -> Iterable[bytes]: ...


class Conversation:
    """A conversation as stored; `items` is replaced, never changed, so that other threads may read it."""

    def __init__(self, metadata: dict[str, str], items: tuple[Json, ...]) -> None:
        self.id = new_id("conv")
        self.created_at = int(time.time())
        self.metadata = metadata
        self.items = items
        self.locked = False
        self.answered = False  # a response has read it, so its prefix is in the prompt cache


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that the model reads for one response."""

    instructions: str | None
    history: tuple[Json, ...]
    items: tuple[Json, ...]
    seen_before: bool  # an earlier response has read the history

    @property
    def context(self) -> tuple[Json, ...]:
        return (*self.history, *self.items)

    @property
    def input_tokens(self) -> int:
        return self._prefix_tokens + item_tokens(self.items)

    @property
    def cached_tokens(self) -> int:
        """Blocks of 128 tokens of the prefix; none below 1,024 tokens."""
        prefix = self._prefix_tokens
        return prefix - prefix % 128 if self.seen_before and prefix >= 1024 else 0

    @property
    def _prefix_tokens(self) -> int:
        instructions = [] if self.instructions is None else [{"type": "input_text", "text": self.instructions}]
        message = {"type": "message", "content": instructions}
        return item_tokens([message] if instructions else []) + item_tokens(self.history)


class Run:
    """A reply on its way. It plays in a task of its own; readers follow its frames, the provider keeps its outcome."""

    def __init__(
        self,
        reply: Reply,
        prompt: Prompt,
        wire: Wire,
        conversation: Conversation | None,
        bills: list[Bill],
        cap: int | None,
        tools: tuple[Json, ...] = (),
    ) -> None:
        self.reply = reply
        self.prompt = prompt
        self.wire = wire
        self.outcome: Outcome | None = None
        self._conversation = conversation
        self._bills = bills
        self._frames: list[bytes] = []
        self._moved = asyncio.Event()
        self._client_left = False
        self._end, self._tools = reply.end, tools
        self._deltas = reply.cut_in_deltas(echo_of(list(prompt.context)))
        self._reasoning_tokens = reply.usage.get("reasoning_tokens", text_tokens(reply.reasoning or ""))
        if cap is not None:
            self._obey(cap)
        if conversation is not None:
            conversation.locked = True
        self._task = asyncio.create_task(self._play())

    def _obey(self, cap: int) -> None:
        """Shorten the answer to `cap` output tokens, reasoning included, as `max_output_tokens` does."""
        room = max(0, cap - self._reasoning_tokens) * 4
        text = "".join(self._deltas)
        if len(text) <= room:
            return
        kept: list[str] = []
        for delta in self._deltas:
            kept.append(delta[:room])
            room -= len(kept[-1])
        self._deltas = tuple(delta for delta in kept if delta)
        if self._end == "completed":
            self._end = "incomplete:max_output_tokens"

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    async def frames(self, after: int = -1) -> AsyncIterator[bytes]:
        """Every frame behind number `after`, as it comes, up to the end of the run."""
        following = after + 1
        while True:
            while following < len(self._frames):
                yield self._frames[following]
                following += 1
            if self.ended:
                return
            await self._moved.wait()

    async def end(self) -> Outcome:
        while self.outcome is None:
            await self._moved.wait()
        return self.outcome

    def client_left(self, *, finish: bool) -> None:
        """The connection is gone: stop, or `finish` unheard; the conversation is free at once, and stays as it was."""
        self._client_left = True
        self._unlock()
        if not finish:
            self.stop()

    def stop(self) -> None:
        """Cancel the generation; one that has ended stays as it is."""
        self._task.cancel()
        if self.outcome is None:
            self._settle(Outcome("cancelled"), heard=False)

    async def _play(self) -> None:
        reply, wire = self.reply, self.wire
        end_at = len(self._deltas) if reply.end_after is None else reply.end_after
        spoken, unspoken = self._deltas[:end_at], self._deltas[end_at:]
        await asyncio.sleep(reply.created_pause_s)
        self._show(wire.begin())
        if reply.reasoning is not None:
            self._show(wire.think(reply.reasoning))
        for n, item in enumerate(self._tools):
            self._show(wire.begin_tool(item))
            if n == len(self._tools) - 1 and reply.hosted_gate is not None:
                await _opening_of(reply.hosted_gate)
            self._show(wire.end_tool(item))
        await asyncio.sleep(reply.first_delta_pause_s)
        for n, delta in enumerate(spoken):
            if n > 0:
                await asyncio.sleep(reply.pause_s)
            self._show(wire.speak(delta))
            if n == 0 and reply.gate is not None:
                await _opening_of(reply.gate)
        kind, _, detail = self._end.partition(":")
        match kind:
            case "stall":
                await asyncio.Event().wait()
            case "silent" | "cut" if reply.cut_completes:
                for unheard in unspoken:
                    list(wire.speak(unheard))
                self._settle(Outcome("completed", self._usage(self._deltas)), heard=False)
            case "silent" | "cut":
                self._settle(Outcome("failed", detail="server_error"), heard=False)
            case "completed":
                self._settle(Outcome("completed", self._usage(spoken), calls=self.reply.calls))
            case "incomplete":
                self._settle(Outcome("incomplete", self._usage(spoken), detail))
            case _:
                usage = self._usage(spoken) if reply.usage else None
                self._settle(Outcome("failed", usage, detail, kind))

    def _usage(self, deltas: Iterable[str]) -> Usage:
        used = Usage(
            input_tokens=tokens_read(self.prompt.input_tokens, sum(counted(self._tools).values())),
            cached_tokens=self.prompt.cached_tokens,
            cache_write_tokens=0,
            output_tokens=text_tokens("".join(deltas) + "".join(map("".join, self.reply.calls)))
            + self._reasoning_tokens,
            reasoning_tokens=self._reasoning_tokens,
        )
        return replace(used, **self.reply.usage)

    def _settle(self, outcome: Outcome, *, heard: bool = True) -> None:
        """Make the end true everywhere in one step, before any reader can see the last event."""
        last_frames = list(self.wire.finish(outcome))
        self.outcome = outcome
        if outcome.usage is not None:
            conversation_id = self._conversation.id if self._conversation else None
            wire = self.wire
            bill = Bill(wire.id, conversation_id, wire.model, outcome.usage, outcome.status, wire.service_tier)
            bill = replace(bill, tool_calls=counted(self.wire.output))
            self._bills.append(bill)
        spoken = outcome.status in ("completed", "incomplete")
        if self._conversation is not None and spoken and heard and not self._client_left:
            self._conversation.items = (*self._conversation.items, *self.prompt.items, *self.wire.output)
            self._conversation.answered = True
        if not self._client_left:
            self._unlock()
        self._show(last_frames if heard else [])

    def _unlock(self) -> None:
        if self._conversation is not None:
            self._conversation.locked = False

    def _show(self, frames: Iterable[bytes]) -> None:
        self._frames.extend(frames)
        self._moved.set()
        self._moved = asyncio.Event()


async def _opening_of(gate: threading.Event) -> None:
    while not gate.is_set():  # noqa: ASYNC110 - the gate belongs to the test's thread, this loop cannot be told
        await asyncio.sleep(0.002)
