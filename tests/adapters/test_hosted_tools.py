"""Tools on OpenAI's servers: what a request says of them, what is heard of them, and what the settings allow."""

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Json, Reply
from tests.servers.openai_tools import SEARCH

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.settings import Settings, SettingsError, load_settings
from textllm_adapters.testing.models import assistant, hear, request, user
from textllm_adapters.wiring import allowed_tools
from textllm_core.records.hosted import HostedItem, HostedTool, HostedTools, ToolStep
from textllm_core.records.model import ModelEnded, ModelStarted
from textllm_core.records.parts import OutputText
from textllm_core.records.thoughts import Thought
from textllm_core.records.tools import FunctionTool, ToolResult

NOTE: Json = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 3}
RAN: Json = {"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "container_id": "cntr_1"}
RAN |= {"code": "print(1)", "outputs": [{"type": "logs", "logs": "1"}]}
SEARCHING: Json = {"type": "web_search", "search_context_size": "low", "filters": {"allowed_domains": ["a.example"]}}
PYTHON: Json = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "1g"}}
WIKI: Json = {"type": "mcp", "server_label": "wiki", "server_url": "https://a.example", "require_approval": "never"}
WEATHER = FunctionTool(name="weather")


def offering(*tools: Json, **more: Any) -> HostedTools:
    return replace(HostedTools(tools=[HostedTool(tool) for tool in tools], most_calls=3), **more)


async def test_tools_are_sent_as_they_came_with_the_most_calls_that_are_paid_for(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    hosted = offering(SEARCHING, PYTHON, {**WIKI, "headers": {"X-Key": "k"}}, include=["code_interpreter_call.outputs"])
    await hear(llm.stream(replace(request("Rain?"), hosted=hosted, tools=[WEATHER])))
    body = provider.requests[-1].body
    assert body["tools"][1:] == [SEARCHING, PYTHON, {**WIKI, "headers": {"X-Key": "k"}}]
    assert (body["tools"][0]["name"], body["max_tool_calls"]) == ("weather", 3)
    assert (body["include"], "tool_choice" in body) == (["code_interpreter_call.outputs"], False)
    chosen = offering(PYTHON, choice={"type": "code_interpreter"})
    await hear(llm.stream(replace(request("Rain?"), hosted=chosen)))
    assert provider.requests[-1].body["tool_choice"] == {"type": "code_interpreter"}


async def test_each_step_of_a_tool_is_heard_and_the_end_has_what_all_of_them_did(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    provider.script(Reply(text="Tea is ready.", hosted=(SEARCH, RAN), annotations=(NOTE,)))
    heard = await hear(llm.stream(replace(request("Rain?"), hosted=offering(SEARCHING, PYTHON))))
    steps = [(event.item.type, event.is_done) for event in heard.events if isinstance(event, ToolStep)]
    assert steps == [(kind, done) for kind in ("web_search_call", "code_interpreter_call") for done in (False, True)]
    ended = heard.events[-1]
    assert isinstance(ended, ModelEnded)
    assert ended.hosted.before == (HostedItem(SEARCH), HostedItem({**RAN, "outputs": None}))
    assert (ended.hosted.annotations, ended.hosted.calls) == ((NOTE,), {"web_search": 1, "code_interpreter": 1})
    assert provider.bills[-1].tool_calls == ended.hosted.calls


async def test_a_provider_makes_no_more_calls_than_it_is_told(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Reply(hosted=tuple({**SEARCH, "id": f"ws_{n}"} for n in range(9))))
    heard = await hear(llm.stream(replace(request("Rain?"), hosted=offering(SEARCHING))))
    ended = heard.events[-1]
    assert isinstance(ended, ModelEnded)
    assert ended.hosted.calls == {"web_search": 3}


async def test_the_provider_is_asked_what_tools_did_for_a_reply_that_broke_off(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    transcript = OpenAITranscript(llm.client)
    transcript_id = await transcript.create(())
    provider.script(Reply(text="Tea is ready.", hosted=(SEARCH,), end="cut", end_after=1, cut_completes=True))
    asked = replace(request("Rain?"), hosted=offering(SEARCHING), transcript_id=transcript_id)
    heard = await hear(llm.stream(asked))
    assert heard.error is not None
    assert [event.is_done for event in heard.events if isinstance(event, ToolStep)] == [False, True]
    started = heard.events[0]
    assert isinstance(started, ModelStarted)
    assert started.provider_response_id is not None
    ended = await llm.outcome(started.provider_response_id)
    assert ended is not None
    assert (ended.status, ended.hosted.calls) == ("completed", {"web_search": 1})


async def test_what_a_tool_did_before_a_call_goes_back_with_it_to_the_same_model_alone(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    provider.script(Reply(reasoning="Search, then ask.", hosted=(SEARCH,), calls=(("weather", "{}"),)))
    asking = replace(request("Rain?"), model="gpt-5", hosted=offering(SEARCHING), tools=[WEATHER])
    heard = await hear(llm.stream(asking))
    ended = heard.events[-1]
    assert isinstance(ended, ModelEnded)
    (call,) = ended.tool_calls
    said = [user("Rain?"), replace(assistant(""), content=(HostedItem(SEARCH), call))]
    result = replace(user(""), content=(ToolResult(call_id=call.call_id, output="Rain."),))
    await hear(llm.stream(replace(asking, messages=(*said, result))))
    kinds = [item["type"] for item in provider.requests[-1].body["input"]]
    assert kinds == ["message", "reasoning", "web_search_call", "function_call", "function_call_output"]
    await hear(llm.stream(replace(asking, model="gpt-4o", messages=(*said, result))))
    kinds = [item["type"] for item in provider.requests[-1].body["input"]]
    assert kinds == ["message", "function_call", "function_call_output"]


async def test_what_was_thought_of_a_tool_goes_back_with_what_it_did(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    provider.script(Reply(text="It rains.", reasoning="Search.", hosted=(SEARCH,)))
    asking = replace(request("Rain?"), model="gpt-5", hosted=offering(SEARCHING), returns_reasoning=True)
    heard = await hear(llm.stream(asking))
    (thought,) = [event.reasoning for event in heard.events if isinstance(event, Thought)]
    answered = replace(assistant(""), content=(HostedItem(SEARCH), OutputText("It rains.", reasoning=thought)))
    await hear(llm.stream(replace(asking, messages=(user("Rain?"), answered, user("And now?")))))
    kinds = [item["type"] for item in provider.requests[-1].body["input"]]
    assert kinds == ["message", "reasoning", "web_search_call", "message", "message"]
    assert len(provider.requests) == 2


async def test_another_provider_is_sent_what_was_said_and_nothing_of_tools(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    answered = replace(assistant(""), content=(HostedItem(SEARCH), OutputText("It rains.", [NOTE])))
    await hear(ChatCompletionsLLM(llm.client, QUICK).stream(request("Rain?", answered, "More?")))
    said = [(message["role"], message["content"]) for message in provider.requests[-1].body["messages"]]
    assert said == [("user", "Rain?"), ("assistant", "It rains."), ("user", "More?")]
    await hear(llm.stream(request("Rain?", answered, "More?")))
    body = provider.requests[-1].body
    assert [item["content"] for item in body["input"]] == ["Rain?", "It rains.", "More?"]
    assert "max_tool_calls" not in body


async def test_a_tool_that_works_long_is_a_sign_of_life(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    gate = threading.Event()
    provider.script(Reply(hosted=(SEARCH,), hosted_gate=gate))
    heard = []
    async for event in llm.stream(replace(request("Rain?"), hosted=offering(SEARCHING))):
        heard.append(event)
        if isinstance(event, ToolStep):
            gate.set()
    assert isinstance(heard[-1], ModelEnded)


# The settings


def loaded(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_settings(path, environ={"OPENAI_API_KEY": "sk-test", "TEXTLLM_DATA_DIR": str(tmp_path)}, cwd=tmp_path)


def test_an_operator_allows_each_tool_by_its_price(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "hosted_tools: {web_search: {price: 0.01}, mcp: {price: 0, tokens: 9000}}")
    (provider,) = settings.all_providers.values()
    assert provider.hosted_tools["web_search"].price == Decimal("0.01")
    assert (provider.hosted_tools["web_search"].tokens, provider.hosted_tools["mcp"].tokens) == (16_000, 9000)
    shown: Any = settings.public()["hosted_tools"]
    (told,) = allowed_tools(settings)
    assert told == (
        "openai: its own tools may be used: web_search for 0.01 USD a call, mcp for 0 USD a call (with any server: "
        "`allowed` names some); 5 calls at most in one reply."
    )
    assert shown["web_search"] == {"price": Decimal("0.01"), "tokens": 16_000, "allowed": None, "tenants": {}}


def test_an_operator_says_what_requests_may_name(tmp_path: Path) -> None:
    text = "hosted_tools: {file_search: {price: 1, allowed: [vs_1], tenants: {acme: [vs_2]}}, mcp: {price: 0}}"
    (provider,) = loaded(tmp_path, text).all_providers.values()
    assert provider.hosted_tools["file_search"].allowed == ("vs_1",)
    assert provider.hosted_tools["file_search"].tenants == {"acme": ("vs_2",)}
    (told,) = allowed_tools(loaded(tmp_path, "hosted_tools: {file_search: {price: 1}}"))
    assert "no vector store" in told


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("hosted_tools: {web_search: {}}", "hosted_tools.web_search", "price"),
        ("hosted_tools: {web_search: {price: -1}}", "hosted_tools.web_search.price", "US dollars"),
        ("hosted_tools: {image_generation: {price: 1}}", "hosted_tools", "code_interpreter or mcp"),
        ("hosted_tools: {mcp: {price: 1}}\nllm_api: chat_completions", "hosted_tools", "Responses API"),
        ("hosted_tools: {mcp: {price: 1, allowed: ['a b']}}", "hosted_tools.mcp.allowed", "without spaces"),
        ("hosted_tools: {web_search: {price: 1, allowed: [a]}}", "hosted_tools.web_search", "nothing is named"),
        ("max_tool_calls: 0", "max_tool_calls", "from 1 to 100"),
        (
            "providers: {groq: {kind: embedded, hosted_tools: {mcp: {price: 1}}}}",
            "providers.groq.hosted_tools",
            "Responses API",
        ),
        (
            "hosted_tools: {mcp: {price: 1}}\nproviders: {openai: {kind: openai}}",
            "hosted_tools",
            "providers.NAME.hosted_tools",
        ),
    ],
)
def test_settings_of_tools_that_cannot_be_are_refused(tmp_path: Path, text: str, path: str, says: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        loaded(tmp_path, text)
    assert any(path in problem.path and says in str(problem) for problem in refusal.value.problems), refusal.value
