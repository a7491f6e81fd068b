"""What only the Conversations API does: batches, pages, foreign items, failures."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault

from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.testing.models import assistant, user
from textllm_core.errors import ConversationLostError, ModelError, ProviderError, ProviderUnavailableError

CREATE = "POST /conversations"
ADD = "POST /conversations/{conversation_id}/items"
REASONING: dict[str, Any] = {
    "id": "rs_1",
    "type": "reasoning",
    "encrypted_content": "aG0=",
    "summary": [{"type": "summary_text", "text": "hm"}],
}
LIST = "GET /conversations/{conversation_id}/items"


@pytest.fixture
async def transcript(provider: OpenAIStandIn) -> AsyncIterator[OpenAITranscript]:
    async with open_client("sk-test", provider.base_url) as client:
        yield OpenAITranscript(client, QUICK)


def answer(body: bytes) -> Fault:
    return Fault("answer", 200, body)


async def test_twenty_messages_go_with_each_call(provider: OpenAIStandIn, transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user(str(n)) for n in range(45)])
    assert [(r.path, len(r.body["items"])) for r in provider.requests] == [
        ("/v1/conversations", 20),
        (f"/v1/conversations/{transcript_id}/items", 20),
        (f"/v1/conversations/{transcript_id}/items", 5),
    ]


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "Unexpected endpoint or method. (POST /v1/conversations)"}',
        *(json.dumps({"id": unnameable}) for unnameable in ("", "\ud83d", "a\0b", "a b", "c" * 5000, None)),
    ],
)
async def test_a_server_that_answers_anything_where_it_has_no_conversations_is_told_from_one_that_has(
    provider: OpenAIStandIn, transcript: OpenAITranscript, body: str
) -> None:
    provider.script_route(CREATE, answer(body.encode()))
    with pytest.raises(ProviderError, match="llm_api to responses or chat_completions"):
        await transcript.create([])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, ProviderUnavailableError),
        ({"code": "insufficient_quota"}, ProviderError),
        ({"code": "invalid_api_key"}, ProviderError),
    ],
)
async def test_an_error_in_an_answer_of_200_is_told_for_what_it_is(
    provider: OpenAIStandIn, transcript: OpenAITranscript, error: dict[str, object], kind: type[ProviderError]
) -> None:
    provider.script_route(CREATE, answer(json.dumps({"error": error}).encode()))
    with pytest.raises(kind) as told:
        await transcript.create([])
    assert type(told.value) is kind
    assert "llm_api" not in str(told.value)
    assert told.value.report is not None


async def test_an_empty_list_that_is_null_is_empty(provider: OpenAIStandIn, transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route(LIST, listing(None), listing(None))
    assert await transcript.messages(transcript_id) == []
    await transcript.erase(transcript_id)
    assert transcript_id not in provider.conversations


async def test_half_a_character_that_the_provider_keeps_spoils_no_conversation(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([user("Hello")])
    text = {"type": "output_text", "text": "a\ud83d\ude00\ud83d"}
    named = [
        {"id": name, "type": "message", "role": "assistant", "content": [text]} for name in ("msg_1", "msg_\ud83d")
    ]
    provider.script_route(LIST, answer(json.dumps({"data": named}).encode()))
    kept = await transcript.messages(transcript_id)
    assert [(message.id, message.text) for message in kept] == [
        ("msg_1", "a\U0001f600\ufffd"), ("item_1", "a\U0001f600\ufffd"),
    ]  # fmt: skip


async def test_a_reply_is_sent_as_text_since_its_parts_would_need_an_id(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    await transcript.create([user("Hello"), assistant("Hi.")])
    assert provider.requests[0].body["items"] == [
        {"type": "message", "role": "user", "content": "Hello"},
        {"type": "message", "role": "assistant", "content": "Hi."},
    ]


async def test_what_is_no_message_of_user_or_model_is_left_out(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([user("Hello")])
    items: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        REASONING,
        {"role": "assistant", "content": "Hi."},
    ]
    await (await transcript.client.sdk()).openai.conversations.items.create(transcript_id, items=items)
    assert [message.text for message in await transcript.messages(transcript_id)] == ["Hello", "Hi."]


async def test_a_deleted_conversation_is_lost(transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user("Hello")])
    await (await transcript.client.sdk()).openai.conversations.delete(transcript_id)
    with pytest.raises(ConversationLostError):
        await transcript.messages(transcript_id)


@pytest.mark.parametrize("route", [CREATE, ADD])
@pytest.mark.parametrize("fault", [Fault.http(429), Fault.http(503)])
async def test_creating_goes_on_after_what_surely_did_nothing(
    provider: OpenAIStandIn, transcript: OpenAITranscript, route: str, fault: Fault
) -> None:
    provider.script_route(route, fault, fault)
    transcript_id = await transcript.create([user(str(n)) for n in range(21)])
    assert len(provider.conversations[transcript_id]) == 21


@pytest.mark.parametrize("route", [CREATE, ADD])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.http(500), ProviderUnavailableError),
        (Fault.http(401), ProviderError),
        (Fault.http(404), ProviderError),
        (Fault.http(400, "invalid_value", "canary"), ProviderError),
        (Fault.cut(), ProviderError),
    ],
)
async def test_creating_fails_as_a_whole_and_nothing_is_sent_twice(
    provider: OpenAIStandIn, transcript: OpenAITranscript, route: str, fault: Fault, kind: type[ModelError]
) -> None:
    provider.script_route(route, fault)
    with pytest.raises(kind) as raised:
        await transcript.create([user(str(n)) for n in range(21)])
    assert "canary" not in str(raised.value)
    assert len(provider.requests) == (1 if route == CREATE else 2)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id": 7}', b'{"object": "conversation"}', b"\xff"])
async def test_an_answer_that_is_no_conversation_is_a_bad_answer(
    provider: OpenAIStandIn, transcript: OpenAITranscript, body: bytes
) -> None:
    provider.script_route(CREATE, answer(body))
    with pytest.raises(ProviderError):
        await transcript.create([user("Hello")])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"data": [7]}',
        b'{"data": {}}',
        b'{"data": [], "has_more": true}',
        b'{"data": [], "has_more": true, "last_id": ""}',
    ],
)
async def test_a_list_that_cannot_be_read_or_has_no_end_is_a_bad_answer(
    provider: OpenAIStandIn, transcript: OpenAITranscript, body: bytes
) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route(LIST, answer(body))
    with pytest.raises(ProviderError):
        await transcript.messages(transcript_id)


ODD_ITEMS: list[dict[str, Any] | None] = [
    {"id": "msg_1", "type": "message", "role": "user", "content": "Hello"},
    {"id": "msg_2", "role": "assistant", "status": 7, "content": [{"type": "text", "text": "Hi."}, "!", 7, {}]},
    {"id": "mcp_1", "type": "mcp_list_tools", "tools": [], "content": {"what": "ever"}},
    {"id": "x_1", "type": 5, "role": ["user"], "content": 5},
    {"id": "msg_3", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "cut \ud83d"}]},
    {"id": None, "type": "message", "role": "user", "content": None},
    {"id": "msg_\ud83d", "type": 5},
    None,
    {"id": "msg_5", "type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
]  # fmt: skip


def listing(items: Sequence[dict[str, Any] | None] | None, **more: Any) -> Fault:
    return answer(json.dumps({"object": "list", "data": items, **more}).encode())


async def test_a_history_is_read_whatever_else_is_in_it(provider: OpenAIStandIn, transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route("GET /conversations/{conversation_id}", answer(b'{"object": "conversation"}'))
    provider.script_route(LIST, listing(ODD_ITEMS, has_more="no", last_id=5))
    said = [(message.role, message.text) for message in await transcript.messages(transcript_id)]
    assert said == [
        ("user", "Hello"), ("assistant", "Hi.!"), ("assistant", "cut \ufffd"), ("user", ""), ("assistant", "No."),
    ]  # fmt: skip


async def test_erasing_takes_every_item_that_has_a_name(provider: OpenAIStandIn, transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route(LIST, listing(ODD_ITEMS), listing([{"id": ""}, {"id": "msg_\ud83d"}]))
    await transcript.erase(transcript_id)
    erased = [request.path.rpartition("/")[2] for request in provider.requests if request.method == "DELETE"]
    assert erased == ["msg_1", "msg_2", "mcp_1", "x_1", "msg_3", "msg_5", transcript_id]


ITEM = "DELETE /conversations/{conversation_id}/items/{item_id}"


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        *((LIST, answer(body)) for body in (b"{}", b"[]", b'{"items": []}', b'{"data": 7}')),
        *((route, Fault.http(status, should_retry=False)) for route in (LIST, ITEM) for status in (405, 501)),
    ],
)
async def test_where_a_server_knows_no_items_the_conversation_is_erased(
    provider: OpenAIStandIn, transcript: OpenAITranscript, route: str, fault: Fault
) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route(route, *[fault] * 5)
    assert await transcript.erase(transcript_id) == (route == ITEM)
    assert transcript_id not in provider.conversations


@pytest.mark.parametrize("route", ["DELETE /conversations/{conversation_id}", "DELETE /responses/{response_id}"])
@pytest.mark.parametrize("status", [405, 501])
async def test_what_a_server_has_no_way_to_delete_is_told_and_erasing_ends(
    provider: OpenAIStandIn, transcript: OpenAITranscript, route: str, status: int
) -> None:
    response_id = await stored_reply(provider, transcript, await transcript.create([user("Hello")]))
    provider.script_route(route, Fault.http(status, should_retry=False))
    assert await transcript.erase_reply(response_id) == 1
    assert provider.orphaned_items == {}


async def test_where_a_server_knows_none_of_the_items_that_it_lists_erasing_says_so_and_ends(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([user("Hello"), user("you")])
    provider.script_route(ITEM, *[Fault.http(404)] * 4)
    assert await transcript.erase(transcript_id) == 2
    assert transcript_id not in provider.conversations


@pytest.mark.parametrize("fault", [answer(b"<html>"), Fault.http(403), Fault.http(400)])
async def test_where_items_may_stay_their_conversation_does(
    provider: OpenAIStandIn, transcript: OpenAITranscript, fault: Fault
) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route(LIST, fault)
    with pytest.raises(ProviderError):
        await transcript.erase(transcript_id)
    assert transcript_id in provider.conversations


async def test_the_pages_of_a_server_that_never_says_there_are_more_are_read_to_their_end(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    items = [{"id": f"msg_{n}", "role": "user", "content": str(n)} for n in range(250)]
    pages = [listing(items[start : start + 100], has_more=False) for start in (0, 100, 200)]
    transcript_id = await transcript.create([])
    provider.script_route(LIST, *pages)
    assert len(await transcript.messages(transcript_id)) == 250
    provider.script_route(LIST, pages[0], pages[0])  # it knows of no second page either
    assert len(await transcript.messages(transcript_id)) == 100


async def test_reading_goes_on_after_a_short_failure(provider: OpenAIStandIn, transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user("Hello")])
    provider.script_route(LIST, Fault.http(500, retry_after_s=0.01), Fault.http(429, retry_after_s=0.01))
    assert [message.text for message in await transcript.messages(transcript_id)] == ["Hello"]


async def stored_reply(provider: OpenAIStandIn, transcript: OpenAITranscript, transcript_id: str) -> str:
    response = await (await transcript.client.sdk()).openai.responses.create(
        model="gpt-4o", input="Hi", conversation=transcript_id
    )
    return response.id


async def test_items_are_erased_before_their_conversation(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    transcript_id = await transcript.create([user(str(n)) for n in range(101)])
    items: list[Any] = [REASONING]
    await (await transcript.client.sdk()).openai.conversations.items.create(transcript_id, items=items)
    await transcript.erase(transcript_id)
    assert transcript_id not in provider.conversations
    assert provider.orphaned_items == {}


async def test_a_stored_reply_goes_with_the_conversation_that_it_was_written_to(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    dropped, kept = await transcript.create([]), await transcript.create([user("kept")])
    response_id = await stored_reply(provider, transcript, dropped)
    await transcript.erase_reply(response_id)
    assert provider.responses == frozenset()
    assert set(provider.conversations) == {kept}
    assert provider.orphaned_items == {}


@pytest.mark.parametrize(
    "route",
    [
        LIST,
        "DELETE /conversations/{conversation_id}/items/{item_id}",
        "DELETE /conversations/{conversation_id}",
        "GET /responses/{response_id}",
        "DELETE /responses/{response_id}",
    ],
)
@pytest.mark.parametrize("fault", [Fault.http(500, retry_after_s=0.01), Fault.http(401), Fault.cut()])
async def test_erasing_that_broke_off_goes_on_when_it_is_called_again(
    provider: OpenAIStandIn, transcript: OpenAITranscript, route: str, fault: Fault
) -> None:
    response_id = await stored_reply(provider, transcript, await transcript.create([user("Hello")]))
    provider.script_route(route, *[fault] * 3)
    for _ in range(3):
        try:
            await transcript.erase_reply(response_id)
            break
        except ModelError:
            assert response_id in provider.responses
    await transcript.erase_reply(response_id)
    assert (provider.conversations, provider.orphaned_items, provider.responses) == ({}, {}, frozenset())


async def test_a_stored_reply_may_name_its_conversation_by_the_id_alone(
    provider: OpenAIStandIn, transcript: OpenAITranscript
) -> None:
    dropped = await transcript.create([user("Hello")])
    response_id = await stored_reply(provider, transcript, dropped)
    named = answer(json.dumps({"id": response_id, "conversation": dropped}).encode())
    provider.script_route("GET /responses/{response_id}", named)
    await transcript.erase_reply(response_id)
    assert (provider.conversations, provider.responses) == ({}, frozenset())


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"conversation": 7}', b'{"conversation": {}}', b"\xff"])
async def test_a_reply_that_cannot_be_read_is_kept_for_another_try(
    provider: OpenAIStandIn, transcript: OpenAITranscript, body: bytes
) -> None:
    response_id = await stored_reply(provider, transcript, await transcript.create([]))
    provider.script_route("GET /responses/{response_id}", answer(body))
    with pytest.raises(ProviderError):
        await transcript.erase_reply(response_id)
    assert response_id in provider.responses


async def test_a_list_that_never_gets_shorter_ends(provider: OpenAIStandIn, transcript: OpenAITranscript) -> None:
    transcript_id = await transcript.create([user("Hello")])
    endless = answer(b'{"data": [{"id": "msg_1", "type": "message"}]}')
    provider.script_route(LIST, endless, endless, endless)
    provider.script_route(ITEM, *[answer(b"{}")] * 3)
    with pytest.raises(ProviderError):
        await transcript.erase(transcript_id)
