"""How a turn that OpenAI has not kept by itself is added to its conversation: never twice, in its own form."""

import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault, Reply

from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.http import Retries
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import NOON, assistant, first_delta, hear, request, user
from textllm_adapters.testing.stored_files import STORED, asked, image, pdf, reading
from textllm_core.errors import (
    ConversationBusyError,
    ConversationLostError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
)
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputLink, InputText

ADD = "POST /conversations/{conversation_id}/items"
LIST = "GET /conversations/{conversation_id}/items"
TURN = (user("Tell me."), assistant("Once"))


@pytest.fixture
async def transcript(provider: OpenAIStandIn) -> AsyncIterator[OpenAITranscript]:
    async with open_client("sk-test", provider.base_url) as client:
        yield OpenAITranscript(client, QUICK)


def calls(provider: OpenAIStandIn) -> list[tuple[str, Mapping[str, str], Any]]:
    """What was asked of a conversation's items."""
    return [(r.method, r.query, r.body) for r in provider.requests if r.path.endswith("/items")]


def kept(provider: OpenAIStandIn, transcript_id: str) -> list[tuple[str, list[str]]]:
    items = [item for item in provider.conversations[transcript_id] if item["type"] == "message"]
    return [(item["role"], [part.get("text", part["type"]) for part in item["content"]]) for item in items]


async def test_the_newest_items_are_looked_at_then_the_turn_is_added_as_plain_texts(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([user(str(n)) for n in range(20)])
    assert await transcript.add(transcript_id, TURN)
    added = [
        {"type": "message", "role": "user", "content": "Tell me."},
        {"type": "message", "role": "assistant", "content": "Once"},
    ]
    look = {"limit": "20", "order": "desc"}
    assert calls(provider) == [("GET", look, None), ("POST", {}, {"items": added})]
    assert [item["status"] for item in provider.conversations[transcript_id][20:]] == ["completed", "completed"]
    assert [message.text for message in await transcript.messages(transcript_id)][20:] == ["Tell me.", "Once"]


async def test_a_turn_that_the_provider_has_added_with_what_was_thought_is_seen(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([user("Hello"), assistant("Hi.")])
    provider.script(Reply(text="Once upon a time.", reasoning="hm"))
    llm = ResponsesLLM(transcript.client, QUICK)
    await hear(llm.stream(request("Tell me.", transcript_id=transcript_id)))
    before = provider.conversations[transcript_id]
    for known in ("Once", "Once upon a time."):
        assert await transcript.add(transcript_id, [user("Tell me."), assistant(known)])
    assert provider.conversations[transcript_id] == before
    assert len(before) == 5


async def test_a_reply_that_is_still_written_and_kept_then_is_waited_for(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    provider.locks_items, gate = True, threading.Event()
    transcript_id = await transcript.create([])

    class UntilItEnds(Retries, frozen=True):
        def wait(self, attempt: int, *, busy: bool) -> float:  # noqa: ARG002 - as long as it takes
            gate.set()
            while not provider.conversations[transcript_id]:
                time.sleep(0.001)
            return 0.0

    provider.script(Reply(deltas=("Once", " upon"), gate=gate))
    stream = ResponsesLLM(transcript.client, QUICK).stream(request("Tell me.", transcript_id=transcript_id))
    assert await first_delta(stream) == "Once"
    assert await OpenAITranscript(transcript.client, UntilItEnds()).add(transcript_id, TURN)
    await stream.aclose()
    assert [method for method, _, _ in calls(provider)] == ["GET", "POST", "GET"]
    assert kept(provider, transcript_id) == [("user", ["Tell me."]), ("assistant", ["Once upon"])]


@pytest.mark.parametrize("fault", [Fault.http(429), Fault.http(503), Fault.http(400, "conversation_locked")])
async def test_adding_goes_on_after_what_surely_did_nothing_and_looks_again(
    provider: OpenAIStandIn, transcript: OpenAITranscript, fault: Fault
) -> None:
    transcript_id = await transcript.create([])
    provider.script_route(ADD, fault, fault)
    assert await transcript.add(transcript_id, TURN)
    assert [method for method, _, _ in calls(provider)] == ["GET", "POST"] * 3
    assert len(provider.conversations[transcript_id]) == 2


@pytest.mark.parametrize(
    ("route", "fault", "kind"),
    [
        (ADD, Fault.http(500), ProviderUnavailableError),
        (ADD, Fault.cut(), ProviderError),
        (ADD, Fault.http(400, "invalid_value", "canary"), ProviderError),
        (ADD, Fault.http(404), ModelError),
        (LIST, Fault.http(404), ConversationLostError),
        (LIST, Fault.http(403), ProviderError),
        (LIST, Fault("answer", 200, b"<html>"), ProviderError),
        (LIST, Fault("answer", 200, b'{"data": 7}'), ProviderError),
    ],
)
async def test_where_it_fails_nothing_is_sent_twice(
    provider: OpenAIStandIn, transcript: OpenAITranscript, route: str, fault: Fault, kind: type[Exception]
) -> None:
    transcript_id = await transcript.create([])
    provider.script_route(route, fault)
    with pytest.raises(kind) as raised:
        await transcript.add(transcript_id, TURN)
    assert "canary" not in str(raised.value)
    assert [method for method, _, _ in calls(provider)].count("POST") == (route == ADD)
    assert provider.conversations[transcript_id] == ()


async def test_many_messages_are_added_twenty_at_a_time_each_once(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([])
    before = [user(str(n)) for n in range(30)]
    provider.script_route(ADD, Fault.http(503), Fault.http(400, "conversation_locked"))
    assert await transcript.add(transcript_id, [*before, *TURN])
    texts = [text for _, parts in kept(provider, transcript_id) for text in parts]
    assert texts == [*map(str, range(30)), "Tell me.", "Once"]


def shown() -> Message:
    link = InputLink(kind="image", url="https://example.com/a.png")
    content = (InputText("Well?"), image("LLM/one.png"), pdf(), link)
    return Message(id="msg_1", role="user", content=content, created_at=NOON)


async def test_files_are_added_as_they_were_sent_and_such_a_turn_is_seen(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([])
    turn = [shown(), assistant("A cat")]
    for _ in range(2):
        assert await transcript.add(transcript_id, turn, read=reading(STORED))
    words = ["Well?", "input_image", "input_file", "input_image"]
    assert kept(provider, transcript_id) == [("user", words), ("assistant", ["A cat"])]


@pytest.mark.parametrize("fault", [Fault.http(status) for status in (400, 413, 415, 422)])
async def test_files_that_the_provider_refuses_are_told_in_words(
    provider: OpenAIStandIn, transcript: OpenAITranscript, fault: Fault
) -> None:
    transcript_id = await transcript.create([])
    provider.script_route(ADD, fault)
    assert await transcript.add(transcript_id, [shown(), assistant("A cat")], read=reading(STORED))
    notes = ["one.png", "three.pdf", "at https://example.com/a.png"]
    words = "\n\n".join(["Well?", *(f"[The file {name} was shown here.]" for name in notes)])
    assert kept(provider, transcript_id) == [("user", [words]), ("assistant", ["A cat"])]


@pytest.mark.parametrize("stored", [{}, {"LLM/one.png": b"changed"}])
async def test_a_file_that_cannot_be_read_is_told_in_words(
    provider: OpenAIStandIn, transcript: OpenAITranscript, stored: dict[str, bytes]
) -> None:
    transcript_id = await transcript.create([])
    turn = [asked("Well?", image("LLM/one.png")), assistant("A cat")]
    assert await transcript.add(transcript_id, turn, read=reading(stored))
    words = "Well?\n\n[The file one.png was shown here.]"
    assert kept(provider, transcript_id) == [("user", [words]), ("assistant", ["A cat"])]


async def test_files_are_not_left_out_because_the_conversation_is_busy(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([])
    provider.script_route(ADD, *[Fault.http(400, "conversation_locked")] * 3)
    with pytest.raises(ConversationBusyError):
        await transcript.add(transcript_id, [shown(), assistant("A cat")], read=reading(STORED))
    assert provider.conversations[transcript_id] == ()
