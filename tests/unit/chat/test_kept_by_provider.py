"""What the provider alone keeps (`store_messages: false`) has the turns whose replies broke off, too."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.image_files import png
from tests.unit.conftest import NOON, POLICY, Bench

from textllm_adapters.memory.audit import MemoryAudit
from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.erasures import MemoryErasures
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_adapters.routing.one import NamedTranscript
from textllm_adapters.routing.several import SeveralTranscripts
from textllm_adapters.testing.models import assistant, user
from textllm_core import Caller, ImageTurn, ReplyEvent, ReplyStarted, TextDelta, TextTurn, Upload
from textllm_core.errors import (
    ContextTooLongError,
    ConversationLostError,
    ProviderError,
    ProviderReport,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.events import TurnNotKept
from textllm_core.ready_transcripts import ReadyTranscripts
from textllm_core.records.messages import Message
from textllm_core.records.model import EndStatus, ReadBlob
from textllm_core.records.parts import OutputText

ALONE = replace(POLICY, keep_messages=False)
CUT = ProviderError("cut")
FAILED = ProviderUnavailableError("failed", may_have_run=True)
FAILED.report = ProviderReport(code="server_error")


@pytest.fixture
def bench() -> Bench:
    return Bench(policy=ALONE)


async def said(bench: Bench, conversation_id: str) -> list[tuple[str, str]]:
    """What `GET …/messages` shows."""
    page = await bench.textllm.conversations.messages(Caller(), conversation_id)
    return [(message.role, message.text) for message in page.data]


async def told(bench: Bench, conversation_id: str | None = None, text: str = "Tell me.") -> list[ReplyEvent]:
    bench.clock.advance(timedelta(seconds=1))
    events = bench.send_message.stream(Caller(), TextTurn(text, conversation_id, "ada"))
    return [event async for event in events]


async def check_books(bench: Bench) -> None:
    await bench.check_books()
    assert [drift async for drift in MemoryAudit(bench.store).drifts()] == []


async def count_of(bench: Bench, conversation_id: str) -> int:
    return (await bench.textllm.conversations.get(Caller(), conversation_id)).message_count


def not_kept(bench: Bench) -> list[TurnNotKept]:
    return [event for event in bench.telemetry.events if isinstance(event, TurnNotKept)]


def id_of(events: Sequence[ReplyEvent]) -> str:
    started = events[0]
    assert isinstance(started, ReplyStarted)
    return started.conversation_id


async def under_way(
    bench: Bench, conversation_id: str | None, *, words: bool = True
) -> AsyncGenerator[ReplyEvent, None]:
    """The rest of a stream that has begun; `words`: and of which something was read."""
    bench.clock.advance(timedelta(seconds=1))
    turn = TextTurn("Tell me.", conversation_id, "ada", is_resumable=True)
    events = bench.send_message.stream(Caller(), turn)
    while isinstance(await anext(events), ReplyStarted) and words:
        pass
    return events


@pytest.mark.parametrize("says", [None, "completed", "incomplete", "failed", "cancelled"])
@pytest.mark.parametrize("error", [CUT, FAILED], ids=["cut", "failed"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_turn_whose_reply_breaks_off_stays_in_its_conversation(
    bench: Bench, is_first: bool, error: TextLLMError, says: EndStatus | None
) -> None:
    known = None if is_first else (await bench.say("one")).conversation_id
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), error=error, after=1, unheard=says))
    conversation_id = id_of(await told(bench, known))
    whole = "Once upon" if says in ("completed", "incomplete") else "Once"  # by the provider's own account
    past = [] if is_first else [("user", "one"), ("assistant", "[0] You said: one")]
    assert await said(bench, conversation_id) == [
        *past,
        ("user", "Tell me."),
        ("assistant", whole),
    ]
    turns = 1 if is_first else 2
    assert await count_of(bench, conversation_id) == turns
    again = await bench.say("And then?", conversation_id)
    assert (again.text, again.message_number) == (f"[{2 * turns}] You said: And then?", turns + 1)
    assert [request.transcript_id for request in bench.llm.requests] == [bench.llm.requests[0].transcript_id] * (
        turns + 1
    )
    assert len(await bench.entries()) == turns + 1
    assert not not_kept(bench)
    await check_books(bench)


async def cancelled(bench: Bench) -> None:
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    await bench.cancel_reply(Caller(), hold.response_id)


async def shut_down(bench: Bench) -> None:
    await bench.running.drain(0)


@pytest.mark.parametrize("ends", [cancelled, shut_down])
async def test_what_was_written_of_a_reply_that_we_end_stays(
    bench: Bench, ends: Callable[[Bench], Awaitable[None]]
) -> None:
    first = await bench.say("one")
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=gate, unheard="cancelled"))
    events = await under_way(bench, first.conversation_id)
    await ends(bench)
    assert [event async for event in events]
    assert (await said(bench, first.conversation_id))[2:] == [
        ("user", "Tell me."),
        ("assistant", "Once"),
    ]
    assert await count_of(bench, first.conversation_id) == 2
    await check_books(bench)


async def test_a_reply_that_nobody_reads_any_more_stays_as_far_as_it_came() -> None:
    bench = Bench(policy=ALONE, drain_s=0.0)
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=asyncio.Event(), unheard="cancelled"))
    events = bench.send_message.stream(Caller(), TextTurn("Tell me.", user_id="ada"))
    conversation_id = id_of([await anext(events)])
    assert isinstance(await anext(events), TextDelta)
    await events.aclose()
    assert [entry.status for entry in await bench.entries()] == ["cancelled"]
    assert await said(bench, conversation_id) == [("user", "Tell me."), ("assistant", "Once")]
    await check_books(bench)


@pytest.mark.parametrize("deltas", [("Once", " upon"), ("never",)], ids=["in the midst", "from the beginning"])
async def test_a_model_that_falls_silent_leaves_the_users_words_and_what_it_wrote(deltas: tuple[str, ...]) -> None:
    bench = Bench(policy=replace(ALONE, first_token_timeout_s=0.05, silence_timeout_s=0.05))
    is_begun = len(deltas) > 1
    silent = ScriptedReply(deltas=deltas, gate=asyncio.Event(), pause_s=0.0 if is_begun else 30.0, unheard="cancelled")
    bench.llm.script(silent)
    conversation_id = id_of(await told(bench))
    reply = [("assistant", "Once")] if is_begun else []
    assert await said(bench, conversation_id) == [("user", "Tell me."), *reply]
    assert await count_of(bench, conversation_id) == 1
    await check_books(bench)


async def test_the_same_words_again_without_a_reply_again_stand_there_once() -> None:
    bench = Bench(policy=replace(ALONE, first_token_timeout_s=0.05))
    bench.llm.script(*[ScriptedReply(pause_s=30.0, unheard="cancelled")] * 2)
    conversation_id = id_of(await told(bench))
    await told(bench, conversation_id)
    assert await said(bench, conversation_id) == [("user", "Tell me.")]
    assert await count_of(bench, conversation_id) == 1
    assert len(await bench.entries()) == 2
    await check_books(bench)


async def test_a_turn_that_the_provider_has_kept_after_all_stands_there_once(bench: Bench) -> None:
    first = await bench.say("one")
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=gate, error=CUT, after=1))
    events = await under_way(bench, first.conversation_id)
    assert bench.transcript is not None
    request = bench.llm.requests[-1]
    content = (OutputText("Once upon a time."),)
    reply = Message(id="msg_1", role="assistant", content=content, created_at=bench.clock.now())
    bench.transcript.append(request.transcript_id or "", [*request.messages, reply])
    gate.set()
    assert [event async for event in events]
    assert (await said(bench, first.conversation_id))[2:] == [
        ("user", "Tell me."),
        ("assistant", "Once upon a time."),
    ]
    assert await count_of(bench, first.conversation_id) == 2
    await check_books(bench)


async def test_a_reply_that_reached_its_longest_length_stands_there_once(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Once upon", status="incomplete", finish_reason="length"))
    first = await bench.say("Tell me.")
    assert [text for _, text in await said(bench, first.conversation_id)] == ["Tell me.", "Once upon"]
    assert await count_of(bench, first.conversation_id) == 1
    await check_books(bench)


class Unwilling(MemoryTranscript):
    """A provider that takes no additions."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__()
        self.failure = failure

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        if self.failure is None:
            await asyncio.Event().wait()
            return await super().add(transcript_id, turn, read=read)
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "code"),
    [(ProviderError("No."), "provider_error"), (None, "provider_timeout"), (RuntimeError("a defect"), None)],
    ids=["refuses", "hangs", "defect"],
)
async def test_a_provider_that_takes_no_additions_holds_up_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, code: str | None
) -> None:
    monkeypatch.setattr("textllm_core.chat.ask_model._KEPT_WITHIN_S", 0.05)
    bench = Bench(policy=ALONE, transcript=Unwilling(failure))
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), error=CUT, after=1))
    events = await told(bench, first.conversation_id)
    assert [type(event).__name__ for event in events] == ["ReplyStarted", "TextDelta", "ReplyFailed"]
    assert await count_of(bench, first.conversation_id) == 1
    assert [(event.code, event.transcript_id) for event in not_kept(bench)] == (
        [] if code is None else [(code, bench.llm.requests[0].transcript_id)]
    )
    assert (await bench.say("two", first.conversation_id)).text == "[2] You said: two"
    assert [entry.status for entry in await bench.entries()] == ["completed", "incomplete", "completed"]
    await check_books(bench)


async def test_what_never_ran_was_refused_or_is_said_aside_is_not_added(bench: Bench) -> None:
    first = await bench.say("one")
    before = await said(bench, first.conversation_id)
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("down", may_have_run=False)))
    bench.llm.script(ScriptedReply(error=ContextTooLongError()))
    for error in (ProviderUnavailableError, ContextTooLongError):
        with pytest.raises(error):
            await bench.say("two", first.conversation_id)
    bench.llm.script(ScriptedReply(deltas=("We", " met"), error=CUT, after=1))
    with pytest.raises(ProviderError):
        await bench.summarize(Caller(), first.conversation_id)
    bench.llm.script(ScriptedReply(pause_s=30.0, unheard="cancelled"))
    events = await under_way(bench, first.conversation_id, words=False)
    await cancelled(bench)  # before its first word
    assert [event async for event in events]
    assert await said(bench, first.conversation_id) == before
    assert await count_of(bench, first.conversation_id) == 1
    await check_books(bench)


async def test_an_image_of_a_turn_whose_reply_breaks_off_is_told_to_the_provider_again(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("A", " cat"), error=CUT, after=1))
    turn = ImageTurn("What is it?", [Upload.of_bytes("a.png", png(64, 64))], user_id="ada")
    with pytest.raises(ProviderError):
        await bench.chat_with_image(Caller(), turn)
    (entry,) = await bench.entries()
    assert bench.transcript is not None
    (transcript_id,) = bench.transcript.ids
    asked, reply = await bench.transcript.messages(transcript_id)
    assert (len(asked.stored_parts), asked.text, reply.text) == (1, "What is it?", "A")
    assert await count_of(bench, entry.conversation_id) == 1
    assert len(bench.store.files) == 1
    assert "Seen:" in (await bench.say("And now?", entry.conversation_id)).text
    await check_books(bench)


async def test_a_turn_of_which_a_copy_is_kept_here_is_not_added() -> None:
    bench = Bench()
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), error=CUT, after=1))
    conversation_id = id_of(await told(bench))
    assert bench.transcript is not None
    assert not any([await bench.transcript.messages(transcript_id) for transcript_id in bench.transcript.ids])
    assert await said(bench, conversation_id) == [
        ("user", "Tell me."),
        ("assistant", "Once"),
    ]
    await check_books(bench)


async def test_a_provider_that_has_lost_the_conversation_keeps_no_turn_of_it(bench: Bench) -> None:
    first = await bench.say("one")
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=gate, error=CUT, after=1))
    events = await under_way(bench, first.conversation_id)
    assert bench.transcript is not None
    bench.transcript.lose(bench.llm.requests[0].transcript_id or "")
    gate.set()
    assert [event async for event in events]
    assert [event.code for event in not_kept(bench)] == ["conversation_lost"]
    assert await count_of(bench, first.conversation_id) == 1
    await check_books(bench)


async def test_one_provider_of_several_is_told_by_the_conversations_name() -> None:
    east = MemoryTranscript()
    several = SeveralTranscripts({"east": NamedTranscript(east, "east")}, NamedTranscript(east, "east"))
    ready = ReadyTranscripts(several, MemoryErasures(MemoryStore()), FixedClock(NOON), most=0)
    transcript_id = await ready.create(())
    turn = [user("Tell me."), assistant("Once")]
    assert await ready.add(transcript_id, turn)
    assert list(await east.messages(transcript_id.removeprefix("east/"))) == turn
    with pytest.raises(ConversationLostError, match="west"):
        await ready.add("west/conv_1", turn)
