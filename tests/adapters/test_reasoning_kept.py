"""What a model thinks before it asks for a function goes back with the result, to the model that thought it alone."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace as changed
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault, Reply

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import Client, open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.reasoning import ThoughtInWords, made_by
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import NOON, hear, request, user
from textllm_core.list_messages import ListedMessage
from textllm_core.ports.llm import LLM
from textllm_core.records.messages import Message, TextDelta
from textllm_core.records.model import ModelEnded, ModelRequest, ModelStarted, ModelThinking
from textllm_core.records.parts import ContentPart, OutputText
from textllm_core.records.thoughts import Reasoning, Thought
from textllm_core.records.tools import FunctionTool, ToolCall, ToolResult
from textllm_core.wire import to_json

CLOCK = FunctionTool(name="clock")
THOUGHT = "It is late."
THINKS = Reply(reasoning=THOUGHT, calls=(("clock", "{}"), ("clock", "{}")))


@pytest.fixture
async def client(provider: OpenAIStandIn) -> AsyncIterator[Client]:
    async with open_client("sk-test", provider.base_url) as client:
        yield client


def asking(model: str, *messages: Message | str) -> ModelRequest:
    return replace(request(*messages, tools=[CLOCK]), model=model)


def said(*content: ContentPart) -> Message:
    return Message(id="msg_2", role="assistant", content=content, created_at=NOON)


def results(calls: Sequence[ToolCall]) -> Message:
    content = tuple(ToolResult(call_id=call.call_id, output="noon") for call in calls)
    return Message(id="msg_3", role="user", content=content, created_at=NOON)


async def looped(llm: LLM, model: str, *, then: str | None = None) -> Sequence[ToolCall]:
    """The calls of a reply, after a turn with their results that `then` has answered, or the same model."""
    end = (await hear(llm.stream(asking(model, "What time is it?")))).ended
    calls = end.tool_calls
    spoken = (OutputText(end.text),) if end.text else ()
    heard = await hear(llm.stream(asking(then or model, "What time is it?", said(*spoken, *calls), results(calls))))
    assert heard.ended.status == "completed"
    return calls


def sent(provider: OpenAIStandIn) -> list[dict[str, Any]]:
    body = provider.requests[-1].body
    found: list[dict[str, Any]] = body["input" if "input" in body else "messages"]
    return found


async def test_reasoning_items_go_back_where_they_stood(provider: OpenAIStandIn, client: Client) -> None:
    provider.script(changed(THINKS, text="Let me look."))
    calls = await looped(ResponsesLLM(client, QUICK), "gpt-5")
    kinds = [item["type"] for item in sent(provider)]
    outputs = ["function_call_output"] * 2
    assert kinds == ["message", "reasoning", "message", "function_call", "function_call", *outputs]
    reasoning, call = sent(provider)[1], sent(provider)[3]
    assert reasoning["encrypted_content"]
    assert call["id"].startswith(f"fc_{reasoning['id']}")
    assert [request.body["include"] for request in provider.requests] == [["reasoning.encrypted_content"]] * 2
    assert [bool(call.reasoning) for call in calls] == [True, False]


async def test_a_summary_is_told_that_was_asked_for_and_counts_for_nothing(
    provider: OpenAIStandIn, client: Client
) -> None:
    llm = ResponsesLLM(client, QUICK)
    asks = replace(request("What time is it?"), model="gpt-5", reasoning_summary="auto", reasoning_effort="low")
    provider.script(Reply(reasoning=THOUGHT * 200, text="Noon.", usage={"reasoning_tokens": 2}))
    heard = await hear(llm.stream(asks))
    assert provider.requests[-1].body["reasoning"] == {"effort": "low", "summary": "auto"}
    thought = [event for event in heard.events if isinstance(event, ModelThinking)]
    assert ("".join(event.words for event in thought), {event.characters for event in thought}) == (THOUGHT * 200, {0})
    assert (heard.ended.is_estimate, heard.ended.usage and heard.ended.usage.reasoning_tokens) == (False, 2)
    strangers = Fault.http(400, "unsupported_value", "Your organization must be verified.", param="reasoning.summary")
    provider.script(strangers, *[Reply(reasoning=THOUGHT, text="Noon.")] * 2)
    for _ in range(2):
        heard = await hear(llm.stream(asks))
        assert heard.ended.text == "Noon."
    sent_of = [each.body["reasoning"].get("summary") for each in provider.requests[1:]]
    assert sent_of == ["auto", None, None]


def test_the_parts_of_a_summary_stand_apart() -> None:
    begun, thinks = b"response.reasoning_summary_part.added", ThoughtInWords()
    told = [
        thinks.told(begun, b'{"summary_index":0}'),
        thinks.told(b"response.reasoning_summary_text.delta", b'{"delta":"**One**"}'),
        thinks.told(b"response.reasoning_summary_text.done", b'{"text":"**One**"}'),
        thinks.told(begun, b'{"summary_index":1}'),
        thinks.told(b"response.reasoning_summary_text.delta", b'{"delta":"**Two**"}'),
    ]
    assert "".join(told) == "**One**\n\n**Two**"


async def test_what_was_thought_before_a_plain_answer_goes_back_only_where_it_is_wanted(
    provider: OpenAIStandIn, client: Client
) -> None:
    llm, plain = ResponsesLLM(client, QUICK), Reply(reasoning=THOUGHT, text="Noon.")
    provider.script(plain, plain, Reply(text="Still noon."))
    heard = await hear(llm.stream(replace(request("What time is it?"), model="gpt-5")))
    assert "include" not in provider.requests[-1].body
    assert not any(isinstance(event, Thought) for event in heard.events)
    heard = await hear(llm.stream(replace(request("What time is it?"), model="gpt-5", returns_reasoning=True)))
    assert provider.requests[-1].body["include"] == ["reasoning.encrypted_content"]
    kinds = [type(event) for event in heard.events if not isinstance(event, ModelThinking)]
    assert kinds == [ModelStarted, Thought, TextDelta, ModelEnded]
    (thought,) = [event.reasoning for event in heard.events if isinstance(event, Thought)]
    answered = said(OutputText("Noon.", reasoning=thought))
    await hear(llm.stream(replace(request("What time is it?", answered, "And now?"), model="gpt-5")))
    reasoning, message = sent(provider)[1:3]
    assert (reasoning["type"], bool(reasoning["encrypted_content"])) == ("reasoning", True)
    assert message == {"type": "message", "role": "assistant", "content": "Noon."}  # its id would be looked for
    for other in (
        replace(request("x", answered, "y"), model="gpt-5-mini"),
        replace(request("x", said(OutputText("Noon.", reasoning=replace(thought, content="{}"))), "y"), model="gpt-5"),
    ):
        await hear(llm.stream(other))
        assert sent(provider)[1] == {"type": "message", "role": "assistant", "content": "Noon."}
    await hear(ChatCompletionsLLM(client, QUICK).stream(replace(request("x", answered, "y"), model="gpt-5")))
    assert sent(provider)[1] == {"role": "assistant", "content": "Noon."}


async def test_what_goes_back_with_a_plain_answer_and_is_refused_is_left_out(
    provider: OpenAIStandIn, client: Client
) -> None:
    llm, thought = ResponsesLLM(client, QUICK), {"type": "reasoning", "id": "rs_1", "encrypted_content": "eA=="}
    content = {"before": [thought], "id": "msg_1"}
    known = said(OutputText("Noon.", reasoning=Reasoning(made_by="", content=json.dumps(content))))
    provider.script(Fault.http(400, "invalid_value", "Invalid 'input[1].id': 'msg_1'.", param="input[1].id"))
    heard = await hear(llm.stream(replace(request("x", known, "y"), model="gpt-5")))
    assert heard.ended.status == "completed"
    assert [len(each.body["input"]) for each in provider.requests] == [4, 3]


async def test_words_are_told_as_they_come(provider: OpenAIStandIn, client: Client) -> None:
    provider.script(Reply(reasoning=THOUGHT, text="Noon."))
    heard = await hear(ChatCompletionsLLM(client, QUICK).stream(replace(request("x"), model="deepseek-chat")))
    assert "".join(event.words for event in heard.events if isinstance(event, ModelThinking)) == THOUGHT


async def test_only_what_its_maker_can_read_is_sent(provider: OpenAIStandIn, client: Client) -> None:
    provider.script(THINKS)
    calls = await looped(ResponsesLLM(client, QUICK), "gpt-5", then="gpt-5-mini")
    assert [item["type"] for item in sent(provider)][1:3] == ["function_call"] * 2
    assert "id" not in sent(provider)[1]
    async with open_client("sk-test", provider.base_url.replace("127.0.0.1", "localhost")) as elsewhere:
        await hear(ResponsesLLM(elsewhere, QUICK).stream(asking("gpt-5", "x", said(*calls), results(calls))))
    assert all(item["type"] != "reasoning" for item in sent(provider))
    await hear(ChatCompletionsLLM(client, QUICK).stream(asking("gpt-5", "x", said(*calls), results(calls))))
    assert sent(provider)[1].keys() == {"role", "content", "tool_calls"}
    known = replace(calls[0], reasoning=Reasoning(made_by="", content=calls[0].reasoning.content))  # type: ignore[union-attr]
    await hear(ResponsesLLM(client, QUICK).stream(asking("gpt-5-mini", "x", said(known), results([known]))))
    assert sent(provider)[1]["type"] == "reasoning"


async def test_a_transcript_that_is_made_anew_has_it(provider: OpenAIStandIn, client: Client) -> None:
    provider.script(THINKS)
    end = (await hear(ResponsesLLM(client, QUICK).stream(asking("gpt-5", "What time is it?")))).ended
    calls = end.tool_calls
    await OpenAITranscript(client, QUICK).create([user("What time is it?"), said(*calls), results(calls)])
    items = provider.requests[-1].body["items"]
    assert [item["type"] for item in items][:3] == ["message", "reasoning", "function_call"]


async def test_a_transcript_is_made_without_what_the_provider_takes_no_more(
    provider: OpenAIStandIn, client: Client
) -> None:
    spoiled = json.dumps({"before": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "of another key"}]})
    call = ToolCall(call_id="call_1", name="clock", arguments="{}")
    for origin in ("", made_by(client.base_url, "gpt-5")):
        known = replace(call, reasoning=Reasoning(made_by=origin, content=spoiled))
        history = [*[user("x")] * 19, said(known), results([known])]
        transcript_id = await OpenAITranscript(client, QUICK).create(history)
        assert len(await OpenAITranscript(client, QUICK).messages(transcript_id)) == 19
    refused = [each for each in provider.requests if each.method == "POST"]
    assert [len(each.body["items"]) for each in refused] == [20, 1, 19, 3, 20, 1]
    assert len(provider.conversations) == 2


async def test_what_the_provider_cannot_read_is_left_out_of_this_call(provider: OpenAIStandIn, client: Client) -> None:
    llm = ResponsesLLM(client, QUICK)
    content = json.dumps({"before": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "of another key"}]})
    call = ToolCall(call_id="call_1", name="clock", arguments="{}", reasoning=Reasoning(made_by="", content=content))
    heard = await hear(llm.stream(asking("gpt-5", "x", said(call), results([call]))))
    assert heard.ended.status == "completed"
    assert [len(each.body["input"]) for each in provider.requests] == [4, 3]
    provider.script(THINKS)
    await looped(llm, "gpt-5")
    assert sent(provider)[1]["type"] == "reasoning"


async def test_models_that_do_not_reason_are_not_asked_for_it(provider: OpenAIStandIn, client: Client) -> None:
    llm = ResponsesLLM(client, QUICK)
    await hear(llm.stream(asking("gpt-4o", "Hello")))
    await hear(llm.stream(replace(asking("gpt-5", "Hello"), tools=())))
    assert all("include" not in each.body for each in provider.requests)
    for _ in range(2):  # by its effort alone it was taken for one
        await hear(llm.stream(replace(asking("mine", "Hello"), reasoning_effort="low")))
    assert ["include" in each.body for each in provider.requests[2:]] == [True, False, False]


@pytest.mark.parametrize("model", ["deepseek-v4-pro", "kimi-k2.5"])
async def test_reasoning_in_words_goes_back_beside_the_calls(
    provider: OpenAIStandIn, client: Client, model: str
) -> None:
    provider.script(THINKS)
    llm = ChatCompletionsLLM(client, QUICK)
    calls = await looped(llm, model)
    assert sent(provider)[1]["reasoning_content"] == THOUGHT
    assert len(provider.requests) == 2
    await hear(llm.stream(asking("deepseek-chat", "x", said(*calls), results(calls))))  # of another model: none
    await hear(llm.stream(asking("deepseek-chat", "x", said(*calls), results(calls))))
    contents = [each.body["messages"][1].get("reasoning_content") for each in provider.requests[2:]]
    assert contents == [None, "", ""]


def streamed(*deltas: dict[str, Any]) -> Fault:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    chunks: list[Any] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + "data: [DONE]\n\n"
    return Fault("answer", 200, body.encode(), "text/event-stream")


def detail(kind: str = "text", index: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"reasoning.{kind}", "index": index, "format": "anthropic-claude-v1"} | more


MINIMAX: dict[str, Any] = {"format": "MiniMax-response-v1"}
DETAILS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "in pieces, with a signature": (
        [
            {"reasoning": "It ", "reasoning_details": [detail(text="It ", signature=None)]},
            {"reasoning": "is", "reasoning_details": [detail(text="is")]},
            {"reasoning_details": [detail(signature="s1g")]},
            {"reasoning_details": [detail("encrypted", 1, data="x", id="rs_1")]},
        ],
        {"reasoning_details": [detail(text="It is", signature="s1g"), detail("encrypted", 1, data="x", id="rs_1")]},
    ),
    "each piece with all before": (
        [
            {"reasoning_details": [detail(text="It", **MINIMAX)]},
            {"reasoning_details": [detail(text="It is", **MINIMAX)]},
        ],
        {"reasoning_details": [detail(text="It is", **MINIMAX)]},
    ),
    "under another name": ([{"reasoning": "It "}, {"reasoning": "is"}], {"reasoning": "It is"}),
    "half of a character": ([{"reasoning_content": "It\ud83d"}], {"reasoning_content": "It\ufffd"}),
    "too much": ([{"reasoning_content": "x" * 300_000}], {}),
    "nothing": ([{"reasoning_content": None, "reasoning_details": []}], {}),
    "of no shape": ([{"reasoning_content": 7, "reasoning_details": [7, "x"]}], {}),
}


@pytest.mark.parametrize("case", DETAILS)
async def test_what_servers_tell_of_it_goes_back_as_they_told_it(
    provider: OpenAIStandIn, client: Client, case: str
) -> None:
    deltas, expected = DETAILS[case]
    provider.script(streamed(*deltas))
    await looped(ChatCompletionsLLM(client, QUICK), "gpt-4o")
    told = {name: value for name, value in sent(provider)[1].items() if name.startswith("reasoning")}
    assert told == expected


async def test_a_server_that_takes_nothing_back_is_asked_without_it(provider: OpenAIStandIn, client: Client) -> None:
    provider.script(
        streamed({"reasoning_content": "It is"}),
        Fault.http(422, message="Extra inputs are not permitted: messages.1.reasoning_content"),
    )
    await looped(ChatCompletionsLLM(client, QUICK), "gpt-4o")
    assert len(provider.requests) == 3
    assert "reasoning_content" not in sent(provider)[1]


async def test_what_a_server_says_of_reasoning_models_otherwise_is_learned_as_before(
    provider: OpenAIStandIn, client: Client
) -> None:
    provider.script(Fault.http(400, message="max_tokens is not supported by reasoning models."))
    await hear(ChatCompletionsLLM(client, QUICK).stream(asking("mine", "x")))
    assert ["max_completion_tokens" in each.body for each in provider.requests] == [False, True]


async def test_nobody_is_shown_it_and_an_import_of_anything_does_no_harm(
    provider: OpenAIStandIn, client: Client
) -> None:
    by = made_by(client.base_url, "gpt-5")
    call = ToolCall(call_id="a", name="clock", arguments="{}", reasoning=Reasoning(made_by=by, content="secret"))
    assert b"secret" not in to_json(ListedMessage.of(said(call)))
    nasty = {"before": [{"type": "message", "role": "system"}, {"type": "item_reference", "id": "x"}, 7], "id": 7}
    for content in ("[" * 9999, "7", json.dumps(nasty), json.dumps({"before": 7, "reasoning_content": 7})):
        spoiled = replace(call, reasoning=Reasoning(made_by=by, content=content))
        for llm in (ResponsesLLM(client, QUICK), ChatCompletionsLLM(client, QUICK)):
            heard = await hear(llm.stream(asking("gpt-5", "x", said(spoiled), results([spoiled]))))
            assert heard.ended.status == "completed"
        assert sent(provider)[1].keys() == {"role", "content", "tool_calls"}
        assert [item["type"] for item in provider.requests[-2].body["input"]][1] == "function_call"
