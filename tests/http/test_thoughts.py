"""What a model thinks: told below `/v1`, in words and in the form in which it goes back, and nowhere else."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from msgspec.structs import replace
from tests.http.conftest import JSON, Server, events_of
from tests.http.test_completions import WEATHER as CHAT_WEATHER
from tests.http.test_completions import ask, stream
from tests.http.test_openai_conversations import made
from tests.http.test_openai_responses import CALL, WEATHER, asked, streamed
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderError
from textllm_core.records.parts import OutputText
from textllm_core.records.thoughts import Reasoning
from textllm_core.usage import Usage
from textllm_core.wire import to_json

INCLUDE = ["reasoning.encrypted_content"]
SEALED = '{"before":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"x"}],"id":"msg_1"}'
RETURNED = Reasoning(made_by="a/gpt-5/", content=SEALED)
USAGE = Usage(input_tokens=10, output_tokens=30, reasoning_tokens=20)
THINKS = ScriptedReply(text="Rain.", thoughts=("Let me ", "see."), usage=USAGE)
WORDS = [{"type": "reasoning_text", "text": "Let me see."}]
SECRET = "see."


def kinds(response: dict[str, Any]) -> list[str]:
    return [item["type"] for item in response["output"]]


def done(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event["item"] for event in events if event["type"] == "response.output_item.done"]


async def shown(server: Server, response_id: str, query: str = "") -> Any:
    answer = await server.get(f"/v1/responses/{response_id}{query}")
    assert answer.status == 200, answer.body
    return answer.json()


async def test_words_stand_before_the_message_whole_in_streams_and_later(server: Server, bench: Bench) -> None:
    bench.llm.script(THINKS, THINKS, THINKS)
    whole = await asked(server, input="Hello")
    assert kinds(whole) == ["reasoning", "message"]
    assert whole["output"][0] == {"id": whole["output"][0]["id"], "type": "reasoning", "summary": [], "content": WORDS}
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 20}
    unkept = await asked(server, input="Hello", store=False)
    assert [item.get("content") for item in unkept["output"]] == [item["content"] for item in whole["output"]]
    events = await streamed(server, input="Hello")
    assert [event["type"].removeprefix("response.") for event in events][2:9] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 7 + [1] * 6
    response = events[-1]["response"]
    assert done(events) == response["output"]
    for told in (whole, response):
        assert (await shown(server, told["id"]))["output"] == told["output"]
    again = events_of(await server.get(f"/v1/responses/{response['id']}?stream=true"))
    assert again == events


async def test_words_are_a_summary_for_who_asks_for_one(server: Server, bench: Bench) -> None:
    bench.llm.script(THINKS, THINKS, replace(THINKS, text="", tool_calls=(CALL,)))
    asks: dict[str, Any] = {"input": "Hello", "reasoning": {"effort": "low", "summary": "auto"}}
    whole = await asked(server, **asks)
    assert bench.llm.requests[-1].reasoning_summary == "auto"
    assert whole["reasoning"]["summary"] == "auto"
    summary = [{"type": "summary_text", "text": "Let me see."}]
    assert whole["output"][0] == {"id": whole["output"][0]["id"], "type": "reasoning", "summary": summary}
    events = await streamed(server, **asks)
    told = [event for event in events if event["type"].startswith("response.reasoning_summary")]
    assert [event["type"].removeprefix("response.reasoning_summary_") for event in told] == [
        "part.added",
        "text.delta",
        "text.delta",
        "text.done",
        "part.done",
    ]
    assert {event["summary_index"] for event in told} == {0}
    response = events[-1]["response"]
    assert done(events) == response["output"]
    for each in (whole, response):
        assert (await shown(server, each["id"]))["output"] == each["output"]
    called = await streamed(server, **asks | {"tools": [WEATHER], "reasoning": {"generate_summary": "detailed"}})
    assert done(called) == called[-1]["response"]["output"]
    assert called[-1]["response"]["output"][0]["summary"] == summary
    refused = await server.post("/v1/responses", asks | {"reasoning": {"summary": "long"}})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "reasoning.summary")


async def test_nobody_at_chat_sees_them(server: Server, bench: Bench) -> None:
    conversation_id = await made(server)
    bench.llm.script(*[replace(THINKS, returned=RETURNED)] * 4)
    response = (await streamed(server, input="Hello", conversation=conversation_id, include=INCLUDE))[-1]["response"]
    await server.post("/chat", {"message": "Hello", "conversation_id": conversation_id})
    said = await server.post("/chat/stream", {"message": "Hello", "conversation_id": conversation_id})
    events = {"message": "Hello", "conversation_id": conversation_id, "stream_format": "events"}
    answers = [
        said,
        await server.post("/chat/stream", events),
        await server.get(f"/chat/stream/{response['id']}"),
        await server.get(f"/conversations/{conversation_id}/messages"),
        await server.get(f"/v1/conversations/{conversation_id}/items"),
        await server.get(f"/v1/responses/{response['id']}/input_items"),
    ]
    for answer in answers:
        assert answer.status == 200, answer.body
        assert (SECRET.encode() in answer.body, b"textllm." in answer.body) == (False, False)
    (kept,) = bench.store.conversations.values()
    thought = [bool(part.reasoning) for it in kept.messages for part in it.content if isinstance(part, OutputText)]
    assert thought == [True, False, False, False]


async def test_what_is_to_come_back_is_told_to_who_includes_it(server: Server, bench: Bench) -> None:
    bench.llm.script(*[replace(THINKS, thoughts=(), returned=RETURNED)] * 4)
    whole = await asked(server, input="Hello", include=INCLUDE)
    assert kinds(whole) == ["reasoning", "message"]
    token = whole["output"][0]["encrypted_content"]
    assert kinds(await shown(server, whole["id"])) == ["message"]
    assert (await shown(server, whole["id"], "?include[]=reasoning.encrypted_content"))["output"] == whole["output"]
    events = await streamed(server, input="Hello", include=INCLUDE)
    response = events[-1]["response"]
    assert done(events) == response["output"]
    assert [item.get("encrypted_content") for item in response["output"]] == [token, None]
    resumed = await server.get(f"/v1/responses/{response['id']}?stream=true&include[]=reasoning.encrypted_content")
    assert events_of(resumed) == events
    assert kinds(await asked(server, input="Hello")) == ["message"]
    assert bench.llm.requests[-1].returns_reasoning is False


async def test_it_goes_back_with_a_chain_and_with_what_its_client_brings(server: Server, bench: Bench) -> None:
    bench.llm.script(*[replace(THINKS, returned=RETURNED)] * 2)
    first = await asked(server, input="Hello", include=INCLUDE)
    await asked(server, input="And now?", previous_response_id=first["id"], store=False)
    known = bench.llm.requests[-1].messages[1].content
    assert known == (OutputText("Rain.", reasoning=replace(RETURNED, words="Let me see.")),)
    history = [{"role": "user", "content": "Hello"}, *first["output"], {"role": "user", "content": "And now?"}]
    await asked(server, input=history, store=False)
    assert bench.llm.requests[-1].messages[1].content == (OutputText("Rain.", reasoning=RETURNED),)
    theirs = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": "Rain."}
    await asked(server, input=[history[0], theirs, message, history[-1]], store=False)
    (part,) = bench.llm.requests[-1].messages[1].content
    assert isinstance(part, OutputText)
    assert part.reasoning
    assert (part.reasoning.made_by, json.loads(part.reasoning.content)) == ("", json.loads(SEALED))


async def test_what_is_thought_before_a_call_stands_before_it(server: Server, bench: Bench) -> None:
    content = '{"reasoning_content":"Let me see."}'
    call = replace(CALL, reasoning=Reasoning(made_by="a/deepseek/", content=content))
    silent = ScriptedReply(thoughts=THINKS.thoughts, tool_calls=(call,))
    bench.llm.script(*[silent] * 3, replace(silent, text="Wait."))
    asks: dict[str, Any] = {"input": "Is it raining?", "tools": [WEATHER], "include": INCLUDE}
    whole = await asked(server, **asks, store=False)
    events = await streamed(server, **asks)
    for response in (whole, events[-1]["response"]):
        assert kinds(response) == ["reasoning", "function_call"]
        assert response["output"][0]["content"] == WORDS
    assert done(events) == events[-1]["response"]["output"]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    history = [{"role": "user", "content": "Is it raining?"}, *whole["output"], result]
    await asked(server, input=history, tools=[WEATHER], store=False)
    assert bench.llm.requests[-1].messages[1].tool_calls == (call,)
    events = await streamed(server, **asks)
    assert kinds(events[-1]["response"]) == ["reasoning", "message", "reasoning", "function_call"]
    assert done(events) == events[-1]["response"]["output"]
    assert [item.get("content") == WORDS for item in done(events)] == [True, False, False, False]
    assert len({item["id"] for item in done(events)}) == 4


async def test_a_reply_that_breaks_off_has_told_what_was_thought(server: Server, bench: Bench) -> None:
    bench.llm.script(replace(THINKS, error=ProviderError("Gone."), after=0))
    events = await streamed(server, input="Hello")
    assert [event["type"] for event in events if event["type"].endswith(("reasoning_text.delta", "failed"))] == [
        "response.reasoning_text.delta",
        "response.reasoning_text.delta",
        "response.failed",
    ]
    bench.llm.script(replace(THINKS, text="", deltas=()))
    events = await streamed(server, input="Hello")
    assert kinds(events[-1]["response"]) == ["reasoning", "message"]
    assert done(events) == events[-1]["response"]["output"]


async def test_a_repeat_tells_it_again(server: Server, bench: Bench) -> None:
    bench.llm.script(replace(THINKS, returned=RETURNED))
    body = {"model": "gpt-4o", "input": "Hello", "stream": True, "include": INCLUDE}
    first, again = [await server.post("/v1/responses", body, JSON | {"idempotency-key": "k"}) for _ in range(2)]
    assert len(bench.llm.requests) == 1
    assert done(events_of(again)) == done(events_of(first))
    assert "encrypted_content" in done(events_of(again))[0]


async def test_chat_completions_tell_it_as_compatible_servers_do(server: Server) -> None:
    server.bench.llm.script(THINKS, THINKS, ScriptedReply(text="Rain."))
    message = (await ask(server)).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Rain.", "Let me see.")
    chunks = await stream(server)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert [each["reasoning_content"] for each in deltas if "reasoning_content" in each] == ["Let me ", "see."]
    assert [each["content"] for each in deltas if each.get("content")] == ["Rain."]
    assert "reasoning_content" not in (await ask(server)).json()["choices"][0]["message"]


async def test_chat_completions_take_it_back_with_calls(server: Server) -> None:
    function = {"name": "weather", "arguments": "{}"}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    for words in ("Let me see.", None, 7, "\0", ""):
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "reasoning_content": words, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ]
        answer = await ask(server, messages=messages, tools=[CHAT_WEATHER])
        assert answer.status == 200, answer.body
        (call,) = server.bench.llm.requests[-1].messages[1].tool_calls
        known = call.reasoning and json.loads(call.reasoning.content)
        assert (known or None) == ({"reasoning_content": words} if words == "Let me see." else None)


async def test_what_a_client_brings_names_no_container_of_anyones(server: Server, bench: Bench) -> None:
    ran = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_canary", "code": "1", "outputs": None}
    content = json.dumps({"before": [*json.loads(SEALED)["before"], ran], "id": "msg_1"})
    forged = Reasoning(made_by="", content=content.replace("code_interpreter", "code\\u005finterpreter"))
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    item["encrypted_content"] = f"textllm.{urlsafe_b64encode(to_json(forged)).decode()}"
    message = {"type": "message", "role": "assistant", "content": "Rain."}
    said = [{"role": "user", "content": "Hello"}, item, message, {"role": "user", "content": "And now?"}]
    await asked(server, input=said, store=False)
    (part,) = bench.llm.requests[-1].messages[1].content
    assert isinstance(part, OutputText)
    assert part.reasoning
    assert json.loads(part.reasoning.content) == json.loads(SEALED)
