"""`/v1/responses`: turns of the engine in the shapes of OpenAI's API; the client checks each body and each event."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from tests.http.conftest import JSON, Server, events_of, serving
from tests.http.test_openai_conversations import made, refusal
from tests.image_files import png
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.prices import FixedPrices
from textllm_core import Price, Pricing, Rates, Route, Routes
from textllm_core.errors import InvalidRequestError, ProviderError, ProviderUnavailableError
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import ToolCall
from textllm_core.tenancy import Caller
from textllm_http.openai_door.items import text_part

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": True}
DEEP: dict[str, Any] = reduce(lambda inner, _: {"a": inner}, range(65), {})
CALL = ToolCall(call_id="call_1", name="weather", arguments='{"city":"Oslo"}')
NO = {"type": "refusal", "refusal": "I will not."}
HELLO = {"model": "gpt-4o", "input": "Hello"}
IN_ORDER = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
AT_LAST = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def asked(server: Server, headers: Mapping[str, str] = JSON, **body: Any) -> Any:
    answer = await server.post("/v1/responses", {"model": "gpt-4o", **body}, headers)
    assert answer.status == 200, answer.body
    return answer.json()


async def streamed(server: Server, **body: Any) -> list[dict[str, Any]]:
    answer = await server.post("/v1/responses", {"model": "gpt-4o", "stream": True, **body})
    assert answer.status == 200, answer.body
    return events_of(answer)


def text_of(response: Any) -> str:
    parts = (part for item in response["output"] if item["type"] == "message" for part in item["content"])
    return "".join(part.get("text", part.get("refusal", "")) for part in parts)


async def kept(server: Server, response_id: str) -> Any:
    answer = await server.get(f"/v1/responses/{response_id}")
    assert answer.status == 200, answer.body
    return answer.json()


async def reached(server: Server, response_id: str, *statuses: str) -> Any:
    while True:
        response = await kept(server, response_id)
        if response["status"] in statuses:
            return response
        await asyncio.sleep(0.01)


async def over(server: Server, response_id: str) -> Any:
    return await reached(server, response_id, "completed", "incomplete", "failed", "cancelled")


def sent(bench: Bench) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in bench.llm.requests[-1].messages]


async def test_a_response_says_what_was_asked_and_what_came_of_it(server: Server) -> None:
    response = await asked(
        server,
        input="Hello",
        instructions="Be brief.",
        metadata={"topic": "rain"},
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.9,
        tools=[WEATHER],
        tool_choice="auto",
        parallel_tool_calls=False,
        text={"format": {"type": "text"}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        truncation="disabled",
        prompt_cache_key="x",
        safety_identifier="ada",
        include=["reasoning.encrypted_content"],
        strange=1,
    )
    assert text_of(response) == "[0] You said: Hello"
    assert (response["status"], response["store"], response["background"]) == ("completed", True, False)
    assert (response["instructions"], response["metadata"]) == ("Be brief.", {"topic": "rain"})
    assert (response["temperature"], response["top_p"], response["tools"][0]["name"]) == (0.5, 0.9, "weather")
    assert response["text"]["verbosity"] == "low"
    assert response["usage"]["total_tokens"] > 0
    again = await kept(server, response["id"])
    assert {**again, "completed_at": 0} == {**response, "completed_at": 0}


async def test_all_options_reach_the_model(server: Server, bench: Bench) -> None:
    schema = {"type": "object", "properties": {}}
    await asked(
        server,
        input="Hello",
        instructions="Be brief.",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}},
        reasoning={"effort": "low"},
        max_output_tokens=100,
        temperature=0.5,
    )
    request = bench.llm.requests[-1]
    assert (request.instructions, request.reasoning_effort, request.temperature) == ("Be brief.", "low", 0.5)
    assert (request.max_output_tokens, request.tools[0].name) == (100, "weather")
    assert request.response_format is not None


async def test_the_events_of_a_stream_come_in_openais_order(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("Hel", "lo", " there")))
    events = await streamed(server, input="Hello")
    kinds = [event["type"] for event in events]
    assert kinds == [*IN_ORDER, *["response.output_text.delta"] * 3, *AT_LAST]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event.get("delta", "") for event in events) == "Hello there" == text_of(events[-1]["response"])
    assert events[-2]["item"] == events[-1]["response"]["output"][0]
    ids = {event.get("item_id", events[-2]["item"]["id"]) for event in events}
    assert ids == {events[-2]["item"]["id"]}
    again = await kept(server, events[0]["response"]["id"])
    assert {**again, "completed_at": 0} == {**events[-1]["response"], "completed_at": 0}


async def test_a_stream_can_be_read_on_by_the_number_of_its_last_event(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b", "c")))
    events = await streamed(server, input="Hello")
    response_id = events[0]["response"]["id"]
    for after in (-1, 0, 1, 3, 5, len(events) - 2):
        query = f"?stream=true&starting_after={after}" if after >= 0 else "?stream=true"
        answer = await server.get(f"/v1/responses/{response_id}{query}")
        assert events_of(answer) == events[after + 1 :]


async def test_calls_of_functions_are_items_and_their_outputs_go_on(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Let me see.", tool_calls=(CALL,), finish_reason="tool_calls"))
    events = await streamed(server, input="Is it raining?", tools=[WEATHER])
    first = events[-1]["response"]
    assert [item["type"] for item in first["output"]] == ["message", "function_call"]
    of_call = [event for event in events if event["type"].startswith("response.function_call_arguments")]
    assert [event.get("delta") or event["arguments"] for event in of_call] == [CALL.arguments] * 2
    output = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    second = await asked(server, input=[output], previous_response_id=first["id"], tools=[WEATHER])
    assert second["previous_response_id"] == first["id"]
    results = bench.llm.requests[-1].messages[-1].tool_results
    assert [(result.call_id, result.output) for result in results] == [("call_1", "rain")]
    items = (await server.get(f"/v1/responses/{second['id']}/input_items")).json()["data"]
    assert [(item["type"], item["output"]) for item in items] == [("function_call_output", "rain")]


async def test_who_sends_all_that_was_said_needs_no_previous_response(server: Server, bench: Bench) -> None:
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Is it raining?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    ]
    for store in (True, False):
        await asked(server, input=history, tools=[WEATHER], store=store)
        transcript = bench.llm.requests[-1].transcript_id
        assert bench.transcript is not None
        said = list(bench.llm.requests[-1].messages)
        if transcript is not None:
            said = list(await bench.transcript.messages(transcript))[:-1]
        assert [message.role for message in said if message.content][:3] == ["developer", "user", "assistant"]
        assert any(message.tool_results for message in said)


async def test_the_files_of_what_was_forked_outlive_the_fork(server: Server, bench: Bench) -> None:
    url = f"data:image/png;base64,{b64encode(png(8, 8)).decode()}"
    look = [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": url}]
    first = await asked(server, input=[{"role": "user", "content": look}])
    await asked(server, input="two", previous_response_id=first["id"])
    fork = await asked(server, input="three", previous_response_id=first["id"])
    assert "Seen: " in text_of(fork)
    assert (await server.call("DELETE", f"/v1/responses/{fork['id']}")).status == 200
    await bench.running.drain(10)
    again = await asked(server, input="four", previous_response_id=first["id"])
    assert "Seen: " in text_of(again)


THOUGHTS = json.dumps(
    {"before": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x"}]}, separators=(",", ":")
)
INCLUDE = ["reasoning.encrypted_content"]


async def test_what_was_thought_before_a_call_goes_with_its_client_and_comes_back(server: Server, bench: Bench) -> None:
    thought = replace(CALL, reasoning=Reasoning(made_by="a/gpt-5/", content=THOUGHTS))
    asks: dict[str, Any] = {"input": "Is it raining?", "tools": [WEATHER], "store": False}
    bench.llm.script(*[ScriptedReply(text="Let me see.", tool_calls=(thought,)) for _ in range(4)])
    first = await asked(server, **asks, include=INCLUDE)
    assert [item["type"] for item in first["output"]] == ["message", "reasoning", "function_call"]
    events = await streamed(server, **asks, include=INCLUDE)
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]
    assert items[1]["encrypted_content"] == first["output"][1]["encrypted_content"]
    assert [item["type"] for item in (await asked(server, **asks))["output"]] == ["message", "function_call"]
    stored = await asked(server, **asks | {"store": True}, include=INCLUDE)
    assert [item["type"] for item in stored["output"]] == ["message", "reasoning", "function_call"]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    history = [{"role": "user", "content": "Is it raining?"}, *first["output"], result]
    await asked(server, **asks | {"input": history})
    assert bench.llm.requests[-1].messages[1].tool_calls == (thought,)


@pytest.mark.parametrize(
    "content", ["textllm.", "textllm.eyJ9", "textllm.é", "textllm." + "W1tb" * 20_000, "", 7, None]
)
async def test_what_no_model_has_thought_is_left_out(server: Server, bench: Bench, content: object) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": content}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    await asked(server, input=[{"role": "user", "content": "x"}, thought, call, result], tools=[WEATHER], store=False)
    assert bench.llm.requests[-1].messages[1].tool_calls[0].reasoning is UNSET


async def test_reasoning_of_another_service_goes_on_where_it_stood(server: Server, bench: Bench) -> None:
    summary = [{"type": "summary_text", "text": "It rains."}]
    thought = {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "x"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    said = {"role": "assistant", "content": "Let me see."}
    await asked(server, input=[{"role": "user", "content": "x"}, thought, said, call, result], store=False)
    kept = bench.llm.requests[-1].messages[1].tool_calls[0].reasoning
    assert kept is not UNSET
    assert (kept.made_by, json.loads(kept.content)) == ("", {"before": [thought, {"type": "message"}], "id": "fc_1"})


async def test_a_response_goes_on_where_it_ended_or_forks(server: Server, bench: Bench) -> None:
    first = await asked(server, input="one")
    second = await asked(server, input="two", previous_response_id=first["id"])
    fork = await asked(server, input="three", previous_response_id=first["id"])
    third = await asked(server, input="four", previous_response_id=second["id"])
    last = await asked(server, input="five", previous_response_id=fork["id"])
    assert [text_of(each) for each in (first, second, fork, third, last)] == [
        "[0] You said: one",
        "[2] You said: two",
        "[2] You said: three",
        "[4] You said: four",
        "[4] You said: five",
    ]
    unkept = await asked(server, input="six", previous_response_id=second["id"], store=False)
    assert text_of(unkept) == "[4] You said: six"
    assert (await server.get("/conversations")).json()["total"] == 0
    listed = (await server.get(f"/v1/responses/{first['id']}/input_items")).json()
    assert [item["content"][0]["text"] for item in listed["data"]] == ["one"]


async def test_what_is_not_stored_is_not_there(server: Server, bench: Bench) -> None:
    response = await asked(server, input="Hello", store=False)
    assert response["store"] is False
    assert refusal(await server.get(f"/v1/responses/{response['id']}"))[:2] == (404, "not_found")
    answer = await server.post("/v1/responses", {"input": "x", "previous_response_id": response["id"]})
    assert refusal(answer) == (400, "invalid_request", "previous_response_id")
    assert not any(kept.messages for kept in bench.store.conversations.values())


async def test_a_conversation_takes_its_responses_and_turns_of_chat(server: Server) -> None:
    conversation_id = await made(server, items=[{"role": "user", "content": "Call me Ada."}], user="ada")
    response = await asked(server, input="one", conversation=conversation_id)
    assert response["conversation"] == {"id": conversation_id}
    assert (await kept(server, response["id"]))["conversation"] == {"id": conversation_id}
    reply = (await server.post("/chat", {"message": "two", "conversation_id": conversation_id})).json()
    assert reply["user_id"] == "ada"
    events = await streamed(server, input="three", conversation={"id": conversation_id})
    assert events[-1]["response"]["conversation"] == {"id": conversation_id}
    items = (await server.get(f"/v1/conversations/{conversation_id}/items?order=asc")).json()["data"]
    said = [item["content"][0]["text"] for item in items if item["role"] == "user"]
    assert said == ["Call me Ada.", "one", "two", "three"]
    assert response["output"][0] in items
    unkept = await asked(server, input="four", conversation=conversation_id, store=False)
    assert refusal(await server.get(f"/v1/responses/{unkept['id']}"))[0] == 404
    newest = (await server.get(f"/v1/conversations/{conversation_id}/items?limit=1")).json()["data"]
    assert newest == unkept["output"]


async def test_who_is_charged_is_whom_the_request_names(server: Server, bench: Bench) -> None:
    conversation_id = await made(server)
    await asked(server, input="one", conversation=conversation_id, user="ada")
    await asked(server, input="two", conversation=conversation_id, safety_identifier="bob", user="ada")
    await asked(server, input="three", conversation=conversation_id)
    await asked(server, input="four", user="Carl L.")
    payers = [entry.payer for entry in bench.store.entries.values()]
    assert payers[:3] == ["ada", "bob", "address:127.0.0.1"]
    assert payers[3].startswith("id_")
    theirs = await made(server, user="ada")
    answer = await server.post("/v1/responses", {"input": "x", "conversation": theirs, "user": "bob"})
    assert refusal(answer)[:2] == (404, "conversation_not_found")


async def test_deleting_the_last_response_erases_what_was_said(server: Server, bench: Bench) -> None:
    first = await asked(server, input="one")
    second = await asked(server, input="two", previous_response_id=first["id"])
    for each in (first, second):
        assert (await server.call("DELETE", f"/v1/responses/{each['id']}")).json()["deleted"] is True
        assert refusal(await server.call("DELETE", f"/v1/responses/{each['id']}"))[:2] == (404, "not_found")
    assert not bench.store.conversations
    conversation_id = await made(server)
    named = await asked(server, input="one", conversation=conversation_id)
    await server.call("DELETE", f"/v1/responses/{named['id']}")
    assert (await server.get(f"/v1/conversations/{conversation_id}")).status == 200


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("may_have_run", [True, False])
async def test_of_a_response_that_never_began_nothing_is_kept(
    server: Server, bench: Bench, may_have_run: bool, stream: bool
) -> None:
    first = await asked(server, input="one")
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("Busy.", may_have_run=may_have_run)))
    body = {"model": "gpt-4o", "input": "two", "previous_response_id": first["id"], "stream": stream}
    assert (await server.post("/v1/responses", body)).status == 503
    assert [stored.id for stored in bench.store.responses.values()] == [first["id"]]
    await bench.check_books()
    await server.call("DELETE", f"/v1/responses/{first['id']}")
    assert not bench.store.conversations


async def test_in_the_background_it_is_queued_and_runs_on(server: Server, bench: Bench) -> None:
    begins, gate = asyncio.Event(), asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), begins=begins, gate=gate))
    response = await asked(server, input="Hello", background=True)
    assert (response["status"], response["output"], response["usage"]) == ("queued", [], None)
    assert (await kept(server, response["id"]))["status"] == "queued"
    assert refusal(await server.call("DELETE", f"/v1/responses/{response['id']}"))[:2] == (409, "conversation_busy")
    begins.set()
    gate.set()
    ended = await over(server, response["id"])
    assert (ended["status"], text_of(ended), ended["background"]) == ("completed", "ab", True)
    events = events_of(await server.get(f"/v1/responses/{response['id']}?stream=true"))
    assert [event["type"] for event in events][:3] == ["response.created", "response.queued", "response.in_progress"]
    assert events_of(await server.get(f"/v1/responses/{response['id']}?stream=true&starting_after=4")) == events[5:]


async def test_a_repeat_in_the_background_is_told_the_response_that_runs(server: Server, bench: Bench) -> None:
    begins, gate, headers = asyncio.Event(), asyncio.Event(), JSON | {"idempotency-key": "k"}
    bench.llm.script(ScriptedReply(deltas=("a", "b"), begins=begins, gate=gate))
    body = {"model": "gpt-4o", "input": "Hello", "background": True}
    first = await asked(server, headers, **body)
    for is_begun in (False, True):
        if is_begun:
            begins.set()
            await reached(server, first["id"], "in_progress")
        again = await server.post("/v1/responses", body, headers)
        assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
        assert (again.json()["id"], again.json()["status"]) == (first["id"], "in_progress" if is_begun else "queued")
    assert refusal(await server.post("/v1/responses", body | {"input": "Other"}, headers))[:2] == (
        422,
        "idempotency_mismatch",
    )
    gate.set()
    await over(server, first["id"])
    again = await server.post("/v1/responses", body, headers)
    assert (again.json()["id"], again.json()["status"], text_of(again.json())) == (first["id"], "completed", "ab")
    assert len(bench.llm.requests) == 1
    await bench.check_books()


async def test_a_repeat_of_a_stream_in_the_background_gets_all_of_its_events(server: Server, bench: Bench) -> None:
    gate, headers = asyncio.Event(), JSON | {"idempotency-key": "k"}
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    body = {"model": "gpt-4o", "input": "Hello", "background": True, "stream": True}
    first = asyncio.ensure_future(server.post("/v1/responses", body, headers))
    for _ in range(500):
        if bench.llm.requests:
            break
        await asyncio.sleep(0.01)
    again = asyncio.ensure_future(server.post("/v1/responses", body, headers))
    await asyncio.sleep(0.05)
    gate.set()
    told, repeated = await asyncio.gather(first, again)
    assert events_of(repeated) == events_of(told)
    assert [answer.headers.get("idempotent-replayed") for answer in (told, repeated)] == [None, "true"]
    assert len(bench.llm.requests) == 1


async def test_two_users_may_choose_the_same_key_for_repeats(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(begins=asyncio.Event()))
    administration = memory_administration(bench.store, bench.clock)
    body = {"model": "gpt-4o", "input": "Hello", "background": True}
    async with serving(bench, requires_keys=True) as server:
        ids = set()
        for user_id in ("ada", "bob"):
            key = await administration.issue_api_key(Caller("acme", "admin"), role="user", user_id=user_id)
            headers = JSON | {"idempotency-key": "k", "authorization": f"Bearer {key.secret}"}
            ids |= {(await asked(server, headers, **body))["id"] for _ in range(2)}
        assert len(ids) == 2


async def test_a_stream_in_the_background_outlives_its_reader(bench: Bench) -> None:
    bench.drain_s = 0.0
    bench.__post_init__()
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    body = b'{"input": "Hello", "background": true, "stream": true}'
    async with serving(bench) as server:
        answer = await server.call(
            "POST", "/v1/responses", [body], headers=JSON, leave_when=lambda answer: b"delta" in answer.body
        )
        response_id = answer.headers["x-response-id"]
        await asyncio.sleep(0.05)
        gate.set()
        assert text_of(await over(server, response_id)) == "ab"


async def test_in_the_background_it_can_be_cancelled(server: Server, bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, unheard="cancelled"))
    response = await asked(server, input="Hello", background=True)
    await reached(server, response["id"], "in_progress")
    for _ in range(2):
        cancelled = (await server.call("POST", f"/v1/responses/{response['id']}/cancel")).json()
        assert (cancelled["status"], text_of(cancelled)) == ("cancelled", "a")
    other = await asked(server, input="Hello")
    answer = await server.call("POST", f"/v1/responses/{other['id']}/cancel")
    assert refusal(answer)[:2] == (400, "invalid_request")


async def test_one_that_has_not_begun_is_cancelled(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(begins=asyncio.Event()))
    response = await asked(server, input="Hello", background=True)
    cancelled = (await server.call("POST", f"/v1/responses/{response['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])


@pytest.mark.parametrize("after", [None, 1])
async def test_why_one_failed_in_the_background_is_kept(server: Server, bench: Bench, after: int | None) -> None:
    error = ProviderUnavailableError("Busy.", may_have_run=False) if after is None else ProviderError("Nonsense.")
    bench.llm.script(ScriptedReply(deltas=("a", "b"), error=error, after=after))
    response = await asked(server, input="Hello", background=True)
    failed = await over(server, response["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert failed["error"]["message"] == str(error)


async def test_one_in_the_background_that_a_shutdown_cuts_short_has_failed(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    response = await asked(server, input="Hello", background=True)
    await reached(server, response["id"], "in_progress")
    bench.running.refuse_new()
    await bench.running.drain(0)
    failed = await kept(server, response["id"])
    assert (failed["status"], text_of(failed), failed["error"]["type"]) == ("failed", "a", "service_unavailable")
    end = events_of(await server.get(f"/v1/responses/{response['id']}?stream=true"))[-1]
    assert (end["type"], end["response"]["error"]) == ("response.failed", failed["error"])
    await bench.check_books()


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (ScriptedReply(deltas=("a", "b"), error=ProviderError("It broke off."), after=1), "failed"),
        (ScriptedReply(text="a", status="incomplete", content_filtered=True), "incomplete"),
    ],
)
async def test_the_last_event_of_a_broken_response_tells_its_cost(
    server: Server, bench: Bench, ends: ScriptedReply, status: str
) -> None:
    bench.llm.script(ends)
    response = (await streamed(server, input="Hello"))[-1]["response"]
    assert (response["status"], response["usage"]["cost"] > 0) == (status, True)
    again = await kept(server, response["id"])
    assert (again["status"], again["usage"]) == (status, response["usage"])


@pytest.mark.parametrize(
    ("may_have_run", "kind", "told"),
    [
        (False, ProviderUnavailableError, (503, "provider_unavailable", None)),
        (True, ProviderUnavailableError, (503, "provider_unavailable", None)),
        (True, ProviderError, (502, "provider_error", None)),
    ],
)
async def test_why_one_never_began_in_the_background_is_told_where_its_events_are_asked_for(
    server: Server, bench: Bench, may_have_run: bool, kind: type[ProviderError], told: tuple[int, str, None]
) -> None:
    bench.llm.script(*[ScriptedReply(error=kind("Busy.", may_have_run=may_have_run)) for _ in range(2)])
    body: dict[str, Any] = {"model": "gpt-4o", "input": "Hello", "background": True}
    assert refusal(await server.post("/v1/responses", body | {"stream": True})) == told
    response_id = (await asked(server, **body))["id"]
    await over(server, response_id)
    assert refusal(await server.get(f"/v1/responses/{response_id}?stream=true")) == told
    await bench.check_books()


async def test_why_one_failed_in_the_background_is_told_where_its_stream_began_before_the_model() -> None:
    bench = Bench(policy=replace(POLICY, begin_within_s=0.1))
    begins = asyncio.Event()
    body: dict[str, Any] = {"model": "gpt-4o", "input": "Hello", "background": True, "stream": True}
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("Busy.", may_have_run=False), begins=begins))
    async with serving(bench) as server:
        asyncio.get_running_loop().call_later(1.0, begins.set)
        events = events_of(await server.post("/v1/responses", body))
        assert events[0]["type"] == "response.created"
        assert (events[-1]["type"], events[-1]["response"]["error"]["message"]) == ("response.failed", "Busy.")
        again = await kept(server, events[0]["response"]["id"])
        assert (again["status"], again["error"]) == ("failed", events[-1]["response"]["error"])
    await bench.check_books()


async def test_a_repeat_in_the_background_is_told_the_response_that_failed_before_it_began(
    server: Server, bench: Bench
) -> None:
    bench.llm.script(ScriptedReply(error=ProviderError("Nonsense."), after=None))
    body, headers = {"model": "gpt-4o", "input": "Hello", "background": True}, JSON | {"idempotency-key": "k"}
    first = await asked(server, headers, **body)
    failed = await over(server, first["id"])
    again = await server.post("/v1/responses", body, headers)
    assert (again.status, again.headers["idempotent-replayed"], again.json()) == (200, "true", failed)
    assert len(bench.llm.requests) == 1


async def test_a_stream_that_breaks_off_says_so_in_its_last_event(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), error=ProviderError("Nonsense."), after=1))
    events = await streamed(server, input="Hello")
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["message"] == "Nonsense."
    again = await kept(server, events[0]["response"]["id"])
    assert (again["status"], again["error"]) == ("failed", events[-1]["response"]["error"])


async def test_a_reply_that_reached_its_limit_is_incomplete(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="a b c", status="incomplete", finish_reason="length"))
    events = await streamed(server, input="Hello")
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    again = await kept(server, events[0]["response"]["id"])
    assert (again["status"], again["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


async def test_a_refusal_that_is_one_only_at_its_end_has_come_as_text(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="I will not.", finish_reason="refusal"))
    events = await streamed(server, input="Hello")
    assert [event["type"] for event in events if "refusal" in event["type"]] == []
    assert events[-1]["response"]["output"][0]["content"] == [NO]


@pytest.mark.parametrize("said", ["", "I think "])
async def test_a_refusal_is_told_as_one(server: Server, bench: Bench, said: str) -> None:
    parts = [part for part in (text_part(said), NO) if part.get("text") != ""]
    bench.llm.script(*[ScriptedReply(text=said, refusal=NO["refusal"])] * 3)
    whole = await asked(server, input="Hello")
    events = await streamed(server, input="Hello")
    last = events[-1]["response"]
    for response in (whole, last, await kept(server, whole["id"])):
        assert (response["status"], response["output"][0]["content"]) == ("completed", parts)
    told = {event["type"]: event for event in events}
    place = {"output_index": 0, "content_index": len(parts) - 1, "item_id": last["output"][0]["id"]}
    assert told["response.refusal.delta"].items() >= (place | {"delta": "I will not."}).items()
    assert told["response.refusal.done"].items() >= (place | {"refusal": "I will not."}).items()
    parts_done = [event["part"] for event in events if event["type"] == "response.content_part.done"]
    assert parts_done == parts
    assert ("response.output_text.delta" in told) == bool(said)
    again = await server.get(f"/v1/responses/{last['id']}?stream=true")
    assert events_of(again) == events
    repeated = [await server.post("/v1/responses", HELLO, JSON | {"idempotency-key": "k"}) for _ in range(2)]
    assert [each.json()["output"][0]["content"] for each in repeated] == [parts, parts]


async def test_a_refusal_is_one_when_its_conversation_is_read(server: Server, bench: Bench) -> None:
    conversation = (await server.post("/v1/conversations", {})).json()["id"]
    bench.llm.script(ScriptedReply(refusal="I will not."))
    await asked(server, input="Hello", conversation=conversation)
    listed = (await server.get(f"/v1/conversations/{conversation}/items")).json()["data"]
    assert [item["content"] for item in listed if item["role"] == "assistant"] == [[NO]]
    (_, reply) = (await server.get(f"/conversations/{conversation}/messages")).json()["data"]
    assert (reply["text"], reply["content"], reply["finish_reason"]) == ("I will not.", [NO], "refusal")


async def test_at_chat_a_refusal_is_text(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(refusal="I will not."), ScriptedReply(refusal="I will not."))
    reply = (await server.post("/chat", {"message": "Hello"})).json()
    assert (reply["text"], reply["finish_reason"]) == ("I will not.", "refusal")
    said = await server.post("/chat/stream", {"message": "Hello"})
    assert said.body == b"data: I will not.\n\ndata: [DONE]\n\n"


async def test_a_repeat_with_its_key_is_told_the_first_response(server: Server, bench: Bench) -> None:
    headers = JSON | {"idempotency-key": "k"}
    first = await asked(server, headers, input="Hello", temperature=0.5)
    bench.clock.advance(timedelta(minutes=5))
    with pytest.MonkeyPatch.context() as later:
        later.setattr("textllm_http.openai_door.responses.time", lambda: 2e9)
        again = await asked(server, headers, input="Hello", temperature=0.5)
    assert again == first == await kept(server, first["id"])
    answer = await server.post("/v1/responses", {"model": "gpt-4o", "input": "Hello", "temperature": 0.5}, headers)
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.json()["id"] == first["id"]
    assert len(bench.llm.requests) == 1
    assert (await kept(server, first["id"]))["status"] == "completed"
    other = await server.post("/v1/responses", {"input": "Other"}, headers)
    assert refusal(other)[:2] == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": " "}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0]"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": "x", "truncation": "auto"}, "truncation"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "text": {"verbosity": "much"}}, "text.verbosity"),
        ({"input": "x", "reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"input": "x", "include": ["message.output_text.logprobs"]}, "include"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "conversation": "conv_1", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": 1}, "input"),
        ({"input": [{"type": "function_call", "call_id": "", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "", "arguments": "{}"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}] * 2}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}] * 2, "store": False}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}] * 5001}] * 2}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}] * 501}, "input"),
        ({"input": "x", "tools": [WEATHER] * 129}, "tools"),
        ({"input": "x", "tools": [WEATHER | {"parameters": DEEP}]}, "tools[0].parameters"),
        (
            {"input": "x", "text": {"format": {"type": "json_schema", "name": "f", "schema": DEEP}}},
            "text.format.schema",
        ),
    ],
)
async def test_what_is_not_served_or_wrong_is_named(server: Server, body: Any, param: str) -> None:
    assert refusal(await server.post("/v1/responses", body)) == (400, "invalid_request", param)


async def test_items_that_are_kept_may_be_named(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Let me see.", tool_calls=(CALL,), finish_reason="tool_calls"))
    first = await asked(server, input="Is it raining?", tools=[WEATHER])
    references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    output = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    question = {"role": "user", "content": "Is it raining?"}
    await asked(server, input=[question, *references, output], tools=[WEATHER], store=False)
    said = bench.llm.requests[-1].messages
    assert [(message.role, message.text, len(message.tool_calls)) for message in said][:2] == [
        ("user", "Is it raining?", 0),
        ("assistant", "Let me see.", 1),
    ]


async def test_a_tool_choice_may_allow_some_functions_alone(server: Server, bench: Bench) -> None:
    other = WEATHER | {"name": "other"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
    response = await asked(server, input="x", tools=[WEATHER, other], tool_choice=choice)
    request = bench.llm.requests[-1]
    assert ([tool.name for tool in request.tools], request.tool_choice) == (["other"], "required")
    assert response["tool_choice"] == choice


async def test_nobody_goes_on_with_anothers_response(bench: Bench) -> None:
    administration = memory_administration(bench.store, bench.clock)
    secrets = [
        (await administration.issue_api_key(Caller("acme", "admin"), role="user", user_id=user)).secret
        for user in ("ada", "bob")
    ]
    ada, bob = ({**JSON, "authorization": f"Bearer {secret}"} for secret in secrets)
    async with serving(bench, requires_keys=True) as server:
        first = await asked(server, ada, input="one", user="carl")
        asks = {"input": "two", "previous_response_id": first["id"]}
        assert refusal(await server.post("/v1/responses", asks, bob)) == (
            400,
            "invalid_request",
            "previous_response_id",
        )
        reference = {
            "input": [{"type": "item_reference", "id": first["output"][0]["id"]}, {"role": "user", "content": "x"}]
        }
        assert refusal(await server.post("/v1/responses", reference, bob))[2] == "input[0]"
        assert (await server.post("/v1/responses", asks, ada)).status == 200
    assert {entry.payer for entry in bench.store.entries.values()} == {"ada"}


@pytest.mark.parametrize("is_background", [False, True])
async def test_several_responses_follow_one_at_the_same_time(server: Server, bench: Bench, is_background: bool) -> None:
    first = await asked(server, input="one")
    gate = asyncio.Event()
    bench.llm.script(*[ScriptedReply(deltas=(text, "."), gate=gate) for text in "abc"])
    going_on = {"previous_response_id": first["id"], "background": is_background}
    running = [asyncio.create_task(asked(server, input=text, **going_on)) for text in ("two", "three", "four")]
    while len(bench.llm.requests) < 4:  # noqa: ASYNC110 - the model is asked by tasks of the engine
        await asyncio.sleep(0.01)
    gate.set()
    responses = [await over(server, response["id"]) for response in await asyncio.gather(*running)]
    assert sorted(text_of(response) for response in responses) == ["a.", "b.", "c."]
    assert {response["previous_response_id"] for response in responses} == {first["id"]}
    said = [[message.text for message in each.messages[:2]] for each in bench.store.conversations.values()]
    assert said == [["one", text_of(first)]] * 3


async def test_of_an_item_that_is_removed_nothing_is_shown_or_told_again(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Bananas."))
    conversation_id = await made(server, user="ada")
    body = {"input": "Apples?", "conversation": conversation_id, "stream": True}
    headers = JSON | {"idempotency-key": "k"}
    answer = await server.post("/v1/responses", body, headers)
    response_id = answer.headers["x-response-id"]
    path = f"/v1/conversations/{conversation_id}/items"
    for item in (await server.get(path)).json()["data"]:
        assert (await server.call("DELETE", f"{path}/{item['id']}")).status == 200
    stored = f"/v1/responses/{response_id}"
    places = (stored, f"{stored}?stream=true", f"{stored}/input_items", f"/chat/stream/{response_id}", path)
    shown = [await server.get(each) for each in (*places, f"/conversations/{conversation_id}")]
    shown.append(await server.post("/v1/responses", body, headers))
    for each in shown:
        assert b"Bananas" not in each.body
        assert b"Apples" not in each.body
    assert [each.status for each in shown] == [200, 404, 200, 404, 200, 200, 404]
    assert shown[5].json()["title"] is None


@pytest.mark.parametrize("is_stated", [True, False])
async def test_a_response_says_what_it_cost_and_where_that_is_an_estimate(
    server: Server, bench: Bench, is_stated: bool
) -> None:
    for store in (True, False):
        bench.llm.script(*[ScriptedReply(text="Hi.", usage_stated=is_stated) for _ in range(2)])
        one = await asked(server, input="Hello", user="ada", store=store)
        last = (await streamed(server, input="Hello", user="ada", store=store))[-1]["response"]
        entries = {entry.response_id: entry for entry in await bench.entries()}
        for told in (one, last):
            entry = entries[told["id"]]
            shown = (await server.get(f"/v1/responses/{told['id']}")).json() if store else told
            assert told["usage"] == shown["usage"]
            assert (Decimal(str(told["usage"]["cost"])), entry.estimated) == (entry.cost, not is_stated)
            assert told["usage"].get("estimated", False) == entry.estimated


@pytest.mark.parametrize("is_background", [False, True])
async def test_what_was_copied_goes_where_nothing_is_said_in_it(
    server: Server, bench: Bench, is_background: bool
) -> None:
    first = await asked(server, input="one")
    await asked(server, input="two", previous_response_id=first["id"])
    fork = {"model": "gpt-4o", "input": "three", "previous_response_id": first["id"], "background": is_background}
    answers = [await server.post("/v1/responses", fork, JSON | {"idempotency-key": "k"}) for _ in range(3)]
    assert {answer.json()["id"] for answer in answers} == {(await over(server, answers[0].json()["id"]))["id"]}
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    answer = await server.post("/v1/responses", fork | {"model": "unheard-of"})
    assert refusal(answer) == (400, "invalid_request", "model")
    assert len(bench.store.conversations) == 2  # where the two said something, and where the fork did


async def test_what_is_copied_is_no_longer_than_a_request_may_be() -> None:
    bench = Bench(policy=replace(POLICY, max_input_chars=100, max_history_items=2))
    async with serving(bench) as server:
        chain = [await asked(server, input="x" * 100)]
        for _ in range(4):
            chain.append(await asked(server, input="x" * 100, previous_response_id=chain[-1]["id"]))
        await asked(server, input="a fork", previous_response_id=chain[0]["id"])
        conversations = set(bench.store.conversations)
        for more in ({}, {"stream": True}, {"background": True}):
            body = {"model": "gpt-4o", "input": "a fork", "previous_response_id": chain[3]["id"]} | more
            answer = await server.post("/v1/responses", body)
            assert refusal(answer) == (400, "invalid_request", "previous_response_id")
            assert "follow the last one" in answer.json()["error"]["message"]
        assert set(bench.store.conversations) == conversations
        await asked(server, input="on", previous_response_id=chain[4]["id"])
        await bench.check_books()


async def test_what_one_user_said_is_told_for_no_other_that_is_named(server: Server, bench: Bench) -> None:
    first = await asked(server, input="one", user="ada")
    following = {"input": "two", "previous_response_id": first["id"]}
    reference = {
        "input": [{"type": "item_reference", "id": first["output"][0]["id"]}, {"role": "user", "content": "two"}]
    }
    for user, status in (("bob", 404), ("ada", 200)):
        for store in (False, True):
            answer = await server.post("/v1/responses", {**following, "user": user, "store": store})
            assert answer.status == status, answer.body
            answer = await server.post("/v1/responses", {**reference, "user": user, "store": store})
            assert answer.status == min(status, 400), answer.body


async def test_the_model_that_answered_has_a_name_that_can_be_sent_again(bench: Bench) -> None:
    price = Price(rates=Rates.of(Decimal(1), Decimal(2)), source="test")
    first = Route(model="far/big", name="fast", llm=bench.llm, provider="far")
    second = Route(model="near/small", name="slow", llm=ScriptedLLM(), provider="near")
    bench.textllm = bench.over(
        transcript=None,
        routes=Routes(named={"fast": [first, second], "slow": [second]}, providers={}, otherwise=None),
        pricing=Pricing({}, FixedPrices({"far/big": price, "near/small": price})),
    )
    async with serving(bench) as server:
        down = ScriptedReply(error=ProviderUnavailableError("down", may_have_run=False))
        for name, script in (("fast", []), ("slow", [down] * 5)):
            bench.llm.script(*script)
            whole = await asked(server, input="one", model="fast")
            unkept = await asked(server, input="one", model="fast", store=False)
            events = await streamed(server, input="one", model="fast")
            again = await kept(server, whole["id"])
            last = events[-1]["response"]
            assert {it["model"] for it in (whole, unkept, again, last, events[0]["response"])} == {name}
            body = {"model": "fast", "messages": [{"role": "user", "content": "one"}]}
            assert (await server.post("/v1/chat/completions", body)).json()["model"] == name
            chunks = (await server.post("/v1/chat/completions", body | {"stream": True})).body.decode()
            assert set(re.findall('"model":"([^"]*)"', chunks)) == {name}
            assert (await asked(server, input="two", model=whole["model"]))["status"] == "completed"
    assert {entry.model.partition("/")[0] for entry in bench.store.entries.values()} == {"far", "near"}


async def test_a_response_that_follows_one_of_a_conversation_names_it_too(server: Server) -> None:
    conversation_id = await made(server)
    first = await asked(server, input="one", conversation=conversation_id)
    second = await asked(server, input="two", previous_response_id=first["id"])
    events = await streamed(server, input="three", previous_response_id=second["id"])
    third = events[-1]["response"]
    queued = await asked(server, input="four", previous_response_id=third["id"], background=True)
    found = [
        second,
        await kept(server, second["id"]),
        *(event["response"] for event in (events[0], events[-1])),
        queued,
    ]
    assert [response["conversation"] for response in found] == [{"id": conversation_id}] * len(found)
    fork = await asked(server, input="five", previous_response_id=first["id"])
    assert (fork["conversation"], (await kept(server, fork["id"]))["conversation"]) == (None, None)


async def test_a_refusal_names_fields_as_this_api_does_and_where_the_models_are(server: Server, bench: Bench) -> None:
    for field, name in (
        ("response_format", "text.format"),
        ("reasoning_effort", "reasoning.effort"),
        ("model", "model"),
    ):
        for body in ({"input": "x"}, {"input": "x", "stream": True}, {"input": "x", "store": False}):
            bench.llm.script(ScriptedReply(error=InvalidRequestError.of(field, "is not taken")))
            answer = await server.post("/v1/responses", body)
            assert refusal(answer) == (400, "invalid_request", name)
            assert answer.json()["error"]["message"] == f"{name}: is not taken"
    answer = await server.post("/v1/responses", {"input": "x", "model": "gpt-dear"})
    assert refusal(answer) == (400, "invalid_request", "model")
    assert "/v1/models" in answer.json()["error"]["message"]
