"""Whatever a model says, however it is cut: a standard reader gets it whole."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.http.conftest import JSON, Answer, Server
from tests.http.sse_reader import Received, read_events

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta
from textllm_core.errors import ContentRefusedError, ProviderTimeoutError
from textllm_core.records.messages import ReplyUsage
from textllm_core.texts import WholeCharacters
from textllm_core.wire import to_json
from textllm_http import sse
from textllm_http.sse import EventFrames, Frames, TextFrames, framed

STARTED = ReplyStarted("resp_1", "conv_1", "ada", "sess_1", "gpt-4o")
COMPLETED = Reply(
    text="Hello",
    conversation_id="conv_1",
    user_id="ada",
    message_number=1,
    usage=ReplyUsage(3, 2, 5, 0, 0),
    cost=Decimal("0.0000275"),
    response_id="resp_1",
    session_id="sess_1",
    model="gpt-4o",
    finish_reason="stop",
)

# Halves of characters, line breaks, what the format itself is made of, and everything else.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(["\r", "\n", "\r\n", " ", ":", "data: ", "[DONE]", "[DO", "NE]", "\ufeff", "\0", "\u2028"]),
        st.sampled_from(["\ud83d", "\ude00", "\ud83d\ude00", "😀"]),
        st.text(alphabet=st.characters(exclude_categories=()), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=4,
).map("".join)
DELTAS = st.lists(PIECES, max_size=8)


def whole_characters(text: str) -> str:
    """The text with pairs of surrogates joined, and U+FFFD for each that stands alone."""
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: chr(0x10000 + ((ord(pair[0][0]) & 0x3FF) << 10) + (ord(pair[0][1]) & 0x3FF)),
        text,
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


async def stream_of(frames: Frames, deltas: Sequence[str], *ends: ReplyEvent, defect: Exception | None = None) -> bytes:
    characters = WholeCharacters()

    async def events() -> AsyncGenerator[ReplyEvent, None]:
        for text in [*map(characters.take, deltas), characters.rest()]:
            if text:
                yield TextDelta(text)
        for end in ends:
            yield end
        if defect is not None:
            raise defect

    return b"".join([chunk async for chunk in framed(events(), frames, request_id="req_1", first=[STARTED])])


@given(DELTAS)
@example(["a\r", "\nb"])
@example(["a\r", "b"])
@example(["\r"])
@example(["[DONE]"])
@example(["[DONE", "]"])
@example(["\ud83d", "\ude00"])
@example(["\ud83d"])
@example(["\n"])
@example([" two spaces  "])
async def test_text_frames_carry_any_text_with_its_line_breaks_as_lf(deltas: list[str]) -> None:
    events = read_events(await stream_of(TextFrames(), deltas, ReplyCompleted(COMPLETED)))
    assert {event.name for event in events} == {"message"}
    *said, end = [event.data for event in events]
    assert end == "[DONE]"
    assert "[DONE]" not in said
    assert "".join(said) == re.sub(r"\r\n|\r", "\n", whole_characters("".join(deltas)))


@given(DELTAS)
@example(["a\r", "\nb"])
@example(["\ud83d", "\ude00"])
@example(["\ud83d"])
async def test_event_frames_carry_any_text_as_it_is(deltas: list[str]) -> None:
    events = read_events(await stream_of(EventFrames(), deltas, ReplyCompleted(COMPLETED)))
    started, *said, end = events
    ids = {
        name: getattr(STARTED, name) for name in STARTED.__struct_fields__ if name.endswith("_id") or name == "model"
    }
    assert (started.name, json.loads(started.data)) == ("reply.started", ids)
    assert (end.name, end.data) == ("reply.completed", to_json(COMPLETED).decode())
    assert {event.name for event in said} <= {"reply.delta"}
    assert "".join(json.loads(event.data)["text"] for event in said) == whole_characters("".join(deltas))
    assert [event.last_id for event in events] == [str(number) for number in range(1, len(events) + 1)]


@given(DELTAS, st.integers(0, 12), st.integers(1, 7))
async def test_a_reader_who_resumes_anywhere_has_the_whole_text_however_the_bytes_come(
    deltas: list[str], lost_after: int, piece: int
) -> None:
    whole = await stream_of(EventFrames(), deltas, ReplyCompleted(COMPLETED))
    frames = [frame + b"\n\n" for frame in whole.split(b"\n\n")[:-1]]
    kept = read_events(b"".join(frames[:lost_after]) + b"".join(frames[lost_after:])[:piece])  # a frame broke off
    last = int(kept[-1].last_id) if kept else 0

    characters = WholeCharacters()
    texts = [text for text in [*map(characters.take, deltas), characters.rest()] if text]
    events: list[ReplyEvent] = [STARTED, *map(TextDelta, texts), ReplyCompleted(COMPLETED)]

    async def missed() -> AsyncGenerator[tuple[int, ReplyEvent], None]:
        for number, event in enumerate(events, 1):
            if number > last:
                yield number, event

    rest = b"".join([chunk async for chunk in framed(missed(), EventFrames(), request_id="req_1")])
    received = kept + read_events(rest)
    assert [event.last_id for event in received] == [str(number) for number in range(1, len(events) + 1)]
    said = [json.loads(event.data)["text"] for event in received if event.name == "reply.delta"]
    assert "".join(said) == whole_characters("".join(deltas))


async def test_text_frames_byte_for_byte() -> None:
    stream = await stream_of(TextFrames(), ["Hello", " wor", "ld\nand\r\nmore", "[DONE]"], ReplyCompleted(COMPLETED))
    assert stream == (
        b"data: Hello\n\ndata:  wor\n\ndata: ld\ndata: and\ndata: more\n\ndata: [DO\n\ndata: NE]\n\ndata: [DONE]\n\n"
    )


async def test_event_frames_byte_for_byte() -> None:
    stream = await stream_of(EventFrames(), ["Hi\r\n"], ReplyCompleted(COMPLETED))
    assert stream == (
        b'id: 1\nevent: reply.started\ndata: {"response_id":"resp_1","conversation_id":"conv_1","user_id":"ada",'
        b'"session_id":"sess_1","model":"gpt-4o"}\n\n'
        b'id: 2\nevent: reply.delta\ndata: {"text":"Hi\\r\\n"}\n\n'
        b"id: 3\nevent: reply.completed\ndata: " + to_json(COMPLETED) + b"\n\n"
    )


async def test_events_that_are_there_at_once_go_out_in_one_chunk_and_a_defect_repeats_none_of_them() -> None:
    async def batches() -> AsyncGenerator[list[ReplyEvent], None]:
        yield [TextDelta("a"), TextDelta("b")]
        yield [TextDelta("c"), TextDelta("d")]
        raise ValueError("ours")

    chunks = [chunk async for chunk in framed(batches(), TextFrames(), request_id="req_1", first=[STARTED])]
    assert chunks[:2] == [b"data: a\n\ndata: b\n\n", b"data: c\n\ndata: d\n\n"]
    assert [event.name for event in read_events(chunks[2])] == ["error"]


@pytest.mark.parametrize("end", [ReplyCompleted(COMPLETED), ReplyFailed("resp_1", ContentRefusedError()), None])
async def test_a_stream_ends_with_its_last_piece_and_one_that_is_over_at_once_is_not_watched(
    end: ReplyEvent | None,
) -> None:
    async def events() -> AsyncGenerator[list[ReplyEvent], None]:
        yield [TextDelta("Hello")]
        if end is None:
            raise ValueError("ours")
        yield [end]

    sent: list[dict[str, Any]] = []
    watched: list[None] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> None:
        watched.append(None)

    chunks = framed(events(), TextFrames(), request_id="req_1", first=[STARTED])
    await sse.EventStream(chunks, {})({}, receive, send)  # type: ignore[arg-type]  # nothing of the scope is read
    assert [message.get("more_body") for message in sent] == [None, True, False]
    assert all(message["body"] for message in sent[1:])
    assert watched == []


async def test_a_stream_sends_what_its_model_said_at_once_in_one_chunk(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(deltas=("a", "b", "c")))
    answer = await server.post("/chat/stream", {"message": "Hi"})
    assert answer.body == b"data: a\n\ndata: b\n\ndata: c\n\ndata: [DONE]\n\n"
    assert len([chunk for chunk in answer.chunks if chunk]) < 4


async def test_a_failure_is_the_last_event_and_there_is_no_end_mark() -> None:
    failed = ReplyFailed("resp_1", ProviderTimeoutError("The model took too long to go on."))
    text = read_events(await stream_of(TextFrames(), ["Half\r"], failed))
    events = read_events(await stream_of(EventFrames(), ["Half"], failed))
    assert [(event.name, event.data) for event in text[:-1]] == [("message", "Half"), ("message", "\n")]
    assert [event.name for event in events] == ["reply.started", "reply.delta", "reply.failed"]
    assert text[-1].name == "error"
    for last in (text[-1], events[-1]):
        assert json.loads(last.data) == {
            "type": "/problems/provider_timeout",
            "title": "Provider timeout",
            "status": 504,
            "detail": "The model took too long to go on.",
            "instance": "req_1",
            "code": "provider_timeout",
        }


async def test_a_defect_in_the_middle_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    stream = await stream_of(TextFrames(), ["Half"], defect=KeyError("a secret"))
    problem = json.loads(read_events(stream)[-1].data)
    assert (problem["status"], problem["code"], problem["instance"]) == (500, "internal_error", "req_1")
    assert b"secret" not in stream
    assert "req_1" in caplog.text
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


# Through the application


async def test_a_stream_has_its_headers_and_ends_with_the_mark(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(deltas=("Hello", " there")))
    answer = await server.post("/chat/stream", {"message": "Hi", "user_id": "ada"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-user-id"] == "ada"
    assert answer.headers["x-conversation-id"].startswith("conv_")
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.body == b"data: Hello\n\ndata:  there\n\ndata: [DONE]\n\n"
    assert answer.is_complete
    await server.bench.check_books()


async def test_chat_with_stream_is_the_same_stream(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(text="Hello"))
    answer = await server.post("/chat", {"message": "Hi", "stream": True})
    assert answer.body == b"data: Hello\n\ndata: [DONE]\n\n"


async def test_a_stream_of_events_completes_with_the_body_of_chat(server: Server) -> None:
    answer = await server.post("/chat/stream", {"message": "Hi", "user_id": "ada", "stream_format": "events"})
    events = read_events(answer.body)
    whole = await server.post("/chat", {"message": "Hi", "user_id": "ada"})
    completed = json.loads(events[-1].data)
    assert events[-1].name == "reply.completed"
    assert completed.keys() == whole.json().keys()
    assert completed["text"] == "".join(json.loads(event.data)["text"] for event in events[1:-1])
    assert answer.headers["x-conversation-id"] == completed["conversation_id"]


async def test_a_refusal_before_the_first_byte_is_a_plain_problem(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(error=ContentRefusedError()))
    answer = await server.post("/chat/stream", {"message": "Hi"})
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "content_refused"


async def test_a_failure_on_the_way_carries_the_request_id(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(deltas=("Half",), error=ProviderTimeoutError("Too slow."), after=1))
    answer = await server.post("/chat/stream", {"message": "Hi"}, {"x-request-id": "mine", **JSON})
    said, error = read_events(answer.body)
    assert (answer.status, said.data, error.name) == (200, "Half", "error")
    assert json.loads(error.data)["instance"] == "mine" == answer.headers["x-request-id"]


async def test_a_comment_is_sent_while_nothing_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "COMMENT_AFTER_S", 0.01)
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(deltas=("Hello", " there"), gate=gate))

    def open_after_two_comments(answer: Answer) -> bool:
        if answer.body.count(b": keep-alive\n\n") >= 2:
            gate.set()
        return False

    answer = await server.call(
        "POST",
        "/chat/stream",
        [b'{"message": "Hi"}'],
        headers=JSON,
        leave_when=open_after_two_comments,
    )
    assert answer.body.startswith(b"data: Hello\n\n: keep-alive\n\n: keep-alive\n\n")
    assert [event.data for event in read_events(answer.body)] == ["Hello", " there", "[DONE]"]


async def test_who_leaves_ends_the_response_and_not_the_reply(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(deltas=("Hello", " there"), gate=gate))
    answer = await server.call(
        "POST",
        "/chat/stream",
        [b'{"message": "Hi", "user_id": "ada"}'],
        headers=JSON,
        leave_when=lambda answer: b"Hello" in answer.body,
    )
    assert answer.body == b"data: Hello\n\n"
    assert not answer.is_complete
    gate.set()
    (entry,) = await server.bench.entries()
    assert entry.status == "completed"
    await server.bench.check_books()
    assert [record for record in caplog.records if record.name == "textllm"] == []


async def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "COMMENT_AFTER_S", 0.01)
    monkeypatch.setattr(sse, "STALLED_AFTER_S", 0.02)
    closed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: more\n\n"
        finally:
            closed.set()

    async def receive() -> None:
        await asyncio.Event().wait()

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    response = sse.EventStream(chunks(), {})
    async with asyncio.timeout(20):
        await response({}, receive, send)  # type: ignore[arg-type]  # nothing of the scope is read
    assert closed.is_set()


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_client_that_takes_no_comment_is_given_up(monkeypatch: pytest.MonkeyPatch, *, is_gone: bool) -> None:
    monkeypatch.setattr(sse, "COMMENT_AFTER_S", 0.01)
    monkeypatch.setattr(sse, "STALLED_AFTER_S", 0.02)
    closed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.Event().wait()
            yield b"data: never\n\n"
        finally:
            closed.set()

    async def receive() -> None:
        await asyncio.Event().wait()

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            if is_gone:
                raise ConnectionError
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        await sse.EventStream(chunks(), {})({}, receive, send)  # type: ignore[arg-type]  # nothing of the scope is read
    assert closed.is_set()


def test_the_reader_itself_keeps_the_examples_of_the_standard() -> None:
    assert read_events(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [Received("message", "YHOO\n+2\n10", "")]
    assert read_events(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    ) == [
        Received("message", "first event", "1"),
        Received("message", "second event", ""),
        Received("message", " third event", ""),
    ]
    assert [event.data for event in read_events(b"data\n\ndata\ndata\n\ndata:")] == ["", "\n"]
