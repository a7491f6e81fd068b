"""Functions that a model asks for: each call gets its result, whoever leaves, and nobody's result is made up."""

import math
from collections.abc import Sequence
from datetime import timedelta

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from tests.unit.conftest import NOON, POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import (
    Caller,
    FunctionTool,
    InputText,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedFunction,
    OutputText,
    Reply,
    TextTurn,
    ToolCall,
    ToolResult,
    TurnOptions,
)
from textllm_core.chat.tool_use import paired
from textllm_core.errors import InvalidRequestError, ProviderError
from textllm_core.records.messages import Idempotency
from textllm_core.records.parts import ContentPart
from textllm_core.records.thoughts import Reasoning

WEATHER = FunctionTool(
    name="weather",
    description="The weather of a city now.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
OPTIONS = TurnOptions(tools=[WEATHER])
OSLO = ToolCall(call_id="call_1", name="weather", arguments='{"city": "Oslo"}')
ROME = ToolCall(call_id="call_2", name="weather", arguments='{"city": "Rome"}')
RAIN = ToolResult(call_id="call_1", output="rain")
NOT_RUN = "There is no result: this call was not run."


@pytest.fixture(params=["transcript", "history"])
def tool_bench(request: pytest.FixtureRequest) -> Bench:
    return Bench() if request.param == "transcript" else Bench(transcript=None)


async def call(bench: Bench, *calls: ToolCall, text: str | None = None) -> Reply:
    bench.llm.script(ScriptedReply(tool_calls=calls or (OSLO,), text=text))
    return await bench.say("Is it raining?", options=OPTIONS)


async def answer(bench: Bench, asked: Reply, *results: ToolResult, text: str = "", key: str | None = None) -> Reply:
    bench.clock.advance(timedelta(seconds=1))
    repeat = None if key is None else Idempotency(key, "chat", "same")
    turn = TextTurn(text, asked.conversation_id, "ada", OPTIONS, repeat, tool_results=results)
    return await bench.send_message(Caller(), turn)


def sent(bench: Bench) -> Sequence[ContentPart]:
    return bench.llm.requests[-1].messages[-1].content


async def test_what_was_thought_before_a_call_goes_back_with_it() -> None:
    bench = Bench(transcript=None)
    thought = replace(OSLO, reasoning=Reasoning(made_by="a/model/", content="{}"))
    await answer(bench, await call(bench, thought), RAIN)
    assert bench.llm.requests[-1].messages[1].tool_calls == (thought,)


async def test_a_call_is_told_with_its_reply_and_its_result_goes_back_to_the_model(tool_bench: Bench) -> None:
    asked = await call(tool_bench)
    assert (asked.text, asked.finish_reason) == ("", "tool_calls")
    assert asked.tool_calls is not UNSET
    assert [(it.id, it.function.name, it.function.arguments) for it in asked.tool_calls] == [
        ("call_1", "weather", '{"city": "Oslo"}')
    ]
    assert list(tool_bench.llm.requests[0].tools) == [WEATHER]
    answered = await answer(tool_bench, asked, RAIN)
    assert answered.text.endswith("Results: call_1=rain")
    assert (answered.finish_reason, answered.tool_calls, answered.message_number) == ("stop", UNSET, 2)
    said = await tool_bench.said((await tool_bench.entries())[0])
    assert [message.content for message in said] == [
        (InputText("Is it raining?"),),
        (OSLO,),
        (RAIN,),
        (OutputText(answered.text),),
    ]
    assert [message.finish_reason for message in said] == [None, "tool_calls", None, "stop"]
    await tool_bench.check_books()


async def test_a_call_without_a_result_is_told_to_the_model_as_not_run(tool_bench: Bench) -> None:
    asked = await call(tool_bench, OSLO, ROME, text="Let me see.")
    assert asked.text == "Let me see."
    await answer(tool_bench, asked, RAIN, text="Only Oslo, please.")
    assert sent(tool_bench) == (
        ToolResult(call_id="call_2", output=NOT_RUN),
        RAIN,
        InputText("Only Oslo, please."),
    )
    assert sent(tool_bench) == (await tool_bench.said((await tool_bench.entries())[0]))[-2].content


async def test_a_conversation_goes_on_with_plain_words_after_a_call(tool_bench: Bench) -> None:
    asked = await call(tool_bench)
    reply = await tool_bench.say("Never mind.", asked.conversation_id)
    assert (reply.finish_reason, reply.message_number) == ("stop", 2)
    assert sent(tool_bench) == (ToolResult(call_id="call_1", output=NOT_RUN), InputText("Never mind."))
    assert (await tool_bench.say("And now?", asked.conversation_id)).message_number == 3
    assert sent(tool_bench) == (InputText("And now?"),)


@pytest.mark.parametrize(
    ("results", "text", "says"),
    [
        pytest.param([ToolResult(call_id="call_9", output="x")], "", "it waits for call_1", id="nobody's"),
        pytest.param([RAIN, RAIN], "", "two results of the call call_1; send one", id="twice"),
        pytest.param([ToolResult(call_id="call_1", output="\ud83d")], "", "half of a surrogate", id="half a character"),
        pytest.param([], "", "must not be blank", id="nothing"),
    ],
)
async def test_a_wrong_result_is_refused_and_changes_nothing(
    bench: Bench, results: list[ToolResult], text: str, says: str
) -> None:
    asked = await call(bench)
    with pytest.raises(InvalidRequestError, match=says):
        await answer(bench, asked, *results, text=text)
    assert (await answer(bench, asked, RAIN)).message_number == 2
    with pytest.raises(InvalidRequestError, match="no call at all"):
        await answer(bench, asked, RAIN)
    await bench.check_books()


async def test_a_repeat_of_results_is_told_the_same_reply(bench: Bench) -> None:
    asked = await call(bench)
    first = await answer(bench, asked, RAIN, key="k")
    assert await answer(bench, asked, RAIN, key="k") == first
    assert len(bench.llm.requests) == 2


async def test_a_repeat_of_a_call_is_told_the_same_calls(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(tool_calls=(OSLO,)))
    repeat = Idempotency("k", "chat", "same")
    first = await bench.say("Is it raining?", options=OPTIONS, idempotency=repeat)
    assert await bench.say("Is it raining?", options=OPTIONS, idempotency=repeat) == first


async def test_calls_of_a_reply_that_was_cut_are_none(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(tool_calls=(OSLO,), text="Let me see.", error=ProviderError("cut"), after=1))
    with pytest.raises(ProviderError):
        await bench.say("Is it raining?", options=OPTIONS)
    (entry,) = await bench.entries()
    await bench.say("Still there?", entry.conversation_id)
    assert InputText("Still there?") in sent(bench)
    assert not any(isinstance(part, ToolResult) for part in sent(bench))


async def test_results_may_come_again_after_a_reply_that_broke_off(tool_bench: Bench) -> None:
    asked = await call(tool_bench)
    tool_bench.llm.script(ScriptedReply(text="It is rain", error=ProviderError("cut"), after=1))
    with pytest.raises(ProviderError):
        await answer(tool_bench, asked, RAIN)
    reply = await answer(tool_bench, asked, RAIN, text="Well?")
    told = InputText("Once more, the result of the call call_1: rain\n")
    assert (reply.message_number, sent(tool_bench)) == (3, (told, InputText("Well?")))
    with pytest.raises(InvalidRequestError, match="no call at all"):
        await answer(tool_bench, asked, RAIN)
    await tool_bench.check_books()


async def test_a_failed_turn_leaves_the_calls_open(bench: Bench) -> None:
    asked = await call(bench)
    bench.llm.script(ScriptedReply(error=ProviderError("refused", may_have_run=False)))
    with pytest.raises(ProviderError):
        await answer(bench, asked, RAIN)
    assert (await answer(bench, asked, RAIN)).message_number == 2


async def test_a_summary_asks_with_the_calls_closed_and_leaves_them_open(bench: Bench) -> None:
    asked = await call(bench)
    await bench.summarize(Caller(), asked.conversation_id)
    assert ToolResult(call_id="call_1", output=NOT_RUN) in sent(bench)
    assert (await answer(bench, asked, RAIN)).message_number == 2


async def test_results_whose_call_has_left_the_history_are_left_out() -> None:
    bench = Bench(policy=replace(POLICY, max_history_items=2), transcript=None)
    asked = await call(bench)
    await answer(bench, asked, RAIN)
    await bench.say("Thanks.", asked.conversation_id)
    assert [message.content for message in bench.llm.requests[-1].messages][-1] == (InputText("Thanks."),)
    assert not any(message.tool_results for message in bench.llm.requests[-1].messages)


async def test_the_call_goes_with_its_result_however_short_the_history() -> None:
    bench = Bench(policy=replace(POLICY, max_history_items=1), transcript=None)
    asked = await call(bench)
    await answer(bench, asked, RAIN)
    assert [message.content for message in bench.llm.requests[-1].messages] == [(OSLO,), (RAIN,)]


def message(role: str, *content: ContentPart) -> Message:
    assert role in ("user", "assistant")
    return Message(id="msg", role="user" if role == "user" else "assistant", content=content, created_at=NOON)


def test_a_history_has_each_result_behind_its_call_and_each_call_with_its_result() -> None:
    hello, reply = message("user", InputText("hello")), message("assistant", OutputText("ok"))
    both = message("assistant", OSLO, ROME)
    closed = message("user", ToolResult(call_id="call_2", output=NOT_RUN), RAIN)
    assert paired([hello, both, message("user", RAIN), reply]) == (hello, both, closed, reply)
    assert paired([message("user", RAIN), reply]) == (reply,)
    assert paired([hello, both]) == (hello, both)
    assert paired([hello, both, reply]) == (hello, reply)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": [FunctionTool(name="a b")]}, "the name of a function must have 1 to 64"),
        ({"tools": [FunctionTool(name="a"), FunctionTool(name="a")]}, "must have different names"),
        ({"tools": [FunctionTool(name=f"f{n}") for n in range(129)]}, "may be 128 at most"),
        ({"tools": [FunctionTool(name="a", description="\ud83d")]}, "half of a surrogate pair"),
        ({"tools": [FunctionTool(name="a", parameters={"maximum": math.inf})]}, "what JSON cannot hold"),
        ({"tools": [FunctionTool(name="a")], "tool_choice": "sometimes"}, "must be one of auto, none, required"),
        ({"reasoning_effort": "ultra"}, "must be one of none, minimal"),
        ({"tools": [FunctionTool(name="a", parameters={"default": object()})]}, "what JSON cannot hold"),
        ({"response_format": JsonSchemaFormat(name="a", schema={"const": math.nan})}, "what JSON cannot hold"),
        ({"tool_choice": "required"}, "tool_choice: needs tools beside it"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls: needs tools beside it"),
        ({"tools": [WEATHER], "tool_choice": NamedFunction("other")}, "not among the tools"),
        ({"response_format": JsonSchemaFormat(name="a b", schema={})}, "the name of a schema must have"),
    ],
)
async def test_what_no_provider_takes_is_refused_before_anything_is_held(
    bench: Bench, options: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        await bench.say("Hello", options=TurnOptions(**options))  # type: ignore[arg-type]
    assert bench.llm.requests == []
    assert await bench.entries() == []


async def test_functions_need_our_own_copy_of_what_is_said() -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    with pytest.raises(InvalidRequestError, match="store_messages"):
        await bench.say("Hello", options=OPTIONS)
    assert bench.llm.requests == []


async def test_functions_and_formats_are_a_part_of_what_is_held_and_go_to_the_model(bench: Bench) -> None:
    long = FunctionTool(name="long", description="x" * 40_000)
    await bench.say("Hello")
    plain = bench.telemetry.events[0]
    shape = JsonObjectFormat()
    options = TurnOptions(tools=[long], tool_choice="none", response_format=shape, reasoning_effort="low")
    await bench.say("Hello", options=options)
    asked = bench.llm.requests[-1]
    assert (asked.tool_choice, asked.response_format, asked.reasoning_effort) == ("none", shape, "low")
    admitted = [event for event in bench.telemetry.events if type(event) is type(plain)]
    assert admitted[1].held > admitted[0].held  # type: ignore[union-attr]
