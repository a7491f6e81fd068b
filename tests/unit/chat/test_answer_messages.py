"""A conversation that its caller keeps is answered, charged, and kept nowhere."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast, get_args

import pytest
from msgspec.structs import replace
from tests.unit.conftest import NOON, POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import (
    BudgetExceededError,
    Caller,
    ContentPart,
    ConversationFilter,
    FunctionTool,
    Idempotency,
    InputText,
    InputTooLongError,
    InvalidRequestError,
    Message,
    MessageRole,
    MessagesTurn,
    OutputText,
    ProviderError,
    ReplyCompleted,
    Sampling,
    ToolCall,
    ToolResult,
    TurnOptions,
    UnsupportedMediaTypeError,
)
from textllm_core.chat.answer_messages import MAX_GIVEN

CALL = ToolCall(call_id="call_1", name="weather", arguments="{}")
RESULT = ToolResult(call_id="call_1", output="rain")


def said(role: MessageRole, *content: ContentPart | str) -> Message:
    text = OutputText if role == "assistant" else InputText
    parts = tuple(text(part) if isinstance(part, str) else part for part in content)
    return Message(id="msg_theirs", role=role, content=parts, created_at=NOON)


def turn(*messages: Message, **more: Any) -> MessagesTurn:
    return MessagesTurn(messages=messages, user_id="ada", **more)


TALK = (
    said("developer", "Be kind."),
    said("user", "Hello"),
    said("assistant", "Hi"),
    said("system", "It is late."),
    said("user", "Is it raining?"),
)


@pytest.mark.parametrize("keeps", [True, False])
async def test_all_that_is_given_is_asked_in_its_order_and_nothing_of_it_is_kept(keeps: bool) -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=keeps))
    reply = await bench.textllm.answer_messages(Caller(), turn(*TALK))
    request = bench.llm.requests[0]
    assert (request.messages, request.transcript_id) == (TALK, None)
    assert (reply.text, reply.message_number) == ("[4] You said: Is it raining?", 1)
    kept = bench.store.conversations["default", "ada", reply.conversation_id]
    assert (kept.messages, kept.conversation.title, kept.transcript_id) == ((), None, None)
    assert "raining" not in repr(bench.store)
    await bench.check_books()
    entry = (await bench.entries())[0]
    assert (entry.response_id, entry.cost, entry.answered) == (reply.response_id, reply.cost, True)
    bench.clock.advance(timedelta(minutes=1))
    assert (await bench.remove_expired())["expired_conversations"] == 1
    assert bench.store.conversations == {}
    assert await bench.entries() == [entry]


async def test_one_conversation_after_the_other_takes_no_room() -> None:
    bench = Bench(policy=replace(POLICY, max_conversations=1))
    for _ in range(3):
        await bench.textllm.answer_messages(Caller(), turn(said("user", "Hi")))
    await bench.say("Hi")
    assert (await bench.textllm.conversations.list(Caller(), ConversationFilter(user_id="ada"))).total == 1


async def test_calls_of_functions_go_back_with_their_results_without_a_record_here() -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    options = TurnOptions(tools=(FunctionTool(name="weather"),))
    bench.llm.script(ScriptedReply(tool_calls=(CALL,)))
    asked = await bench.textllm.answer_messages(Caller(), turn(said("user", "Rain?"), options=options))
    assert asked.finish_reason == "tool_calls"
    talk = (said("user", "Rain?"), said("assistant", CALL), said("user", RESULT))
    reply = await bench.textllm.answer_messages(Caller(), turn(*talk, options=options))
    assert reply.text == "[2] You said:  Results: call_1=rain"
    await bench.check_books()


async def test_a_call_that_brings_no_result_is_told_as_not_run() -> None:
    bench = Bench()
    talk = (said("user", "Rain?"), said("assistant", CALL), said("system", "Go on."), said("user", "Never mind."))
    await bench.textllm.answer_messages(Caller(), turn(*talk))
    asked = bench.llm.requests[0].messages
    assert [message.role for message in asked] == ["user", "assistant", "user", "system", "user"]
    assert [result.call_id for result in asked[2].tool_results] == ["call_1"]
    assert asked[4].content == talk[3].content


async def test_a_repeat_is_told_the_first_reply_also_when_its_conversation_has_gone() -> None:
    bench = Bench()
    again = turn(said("user", "Hi"), idempotency=Idempotency("key", "route", "same"))
    first = await bench.textllm.answer_messages(Caller(), again)
    bench.clock.advance(timedelta(hours=1))
    assert (await bench.remove_expired())["expired_conversations"] == 1
    second = await bench.textllm.answer_messages(Caller(), again)
    assert (first.response_id, first.text) == (second.response_id, second.text)
    assert len(bench.llm.requests) == 1


async def test_a_client_that_leaves_is_charged() -> None:
    bench = Bench()
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("Well", ", well."), gate=gate))
    events = bench.textllm.answer_messages.stream(Caller(), turn(*TALK))
    await anext(events)
    await events.aclose()
    gate.set()
    entries = await bench.entries()
    assert [(entry.status, entry.estimated) for entry in entries] == [("completed", False)]
    await bench.check_books()


async def test_it_is_read_event_by_event() -> None:
    bench = Bench()
    events = [event async for event in bench.textllm.answer_messages.stream(Caller(), turn(*TALK))]
    end = events[-1]
    assert isinstance(end, ReplyCompleted)
    assert end.reply.text == "[4] You said: Is it raining?"


async def test_what_is_held_bounds_all_that_is_given() -> None:
    text = "ü" * 1000
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.0051")))  # of which 2,000 tokens cost 0.005
    await bench.textllm.answer_messages(
        Caller(), turn(said("user", text[:600]), options=TurnOptions(max_output_tokens=16))
    )
    bench = Bench(policy=bench.policy)
    with pytest.raises(BudgetExceededError):
        await bench.textllm.answer_messages(Caller(), turn(said("user", text[:500]), said("system", text[:500])))


async def test_what_broke_off_is_estimated_with_all_that_was_given() -> None:
    bench = Bench()
    bench.llm.script(ScriptedReply(error=ProviderError("broken"), after=1))
    with pytest.raises(ProviderError):
        await bench.textllm.answer_messages(Caller(), turn(said("user", "x" * 4000), said("user", "y" * 4000)))
    entry = (await bench.entries())[0]
    assert entry.estimated
    assert 2000 <= entry.usage.input_tokens < 2010
    await bench.check_books()


async def test_a_model_that_reads_no_images_is_not_asked_a_second_time() -> None:
    bench = Bench()
    bench.llm.script(ScriptedReply(error=UnsupportedMediaTypeError("no images")))
    with pytest.raises(UnsupportedMediaTypeError):
        await bench.textllm.answer_messages(Caller(), turn(*TALK))
    assert len(bench.llm.requests) == 1


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "must say something"),
        ([said("user", "")], "must say something"),
        ([said("user", RESULT)], "the reply before it does not ask for"),
        (
            [said("assistant", CALL), said("user", "Well?"), said("user", RESULT)],
            "the reply before it does not ask for",
        ),
        ([said("user", "x"), said("assistant", CALL, CALL), said("user", RESULT)], "two calls with the id call_1"),
        ([said("user", "x"), said("assistant", CALL), said("user", RESULT, RESULT)], "two results of the call call_1"),
        ([said("user", "\ud800")], "surrogate"),
        ([said("user", "x")] * (MAX_GIVEN + 1), str(MAX_GIVEN)),
    ],
)
async def test_what_cannot_be_answered_is_refused_before_anything_is_done(messages: list[Message], what: str) -> None:
    bench = Bench()
    with pytest.raises(InvalidRequestError, match=what):
        await bench.textllm.answer_messages(Caller(), turn(*messages))
    assert not bench.llm.requests


async def test_it_may_be_as_long_as_a_history_of_the_longest_messages() -> None:
    bench = Bench(policy=replace(POLICY, max_input_chars=10, max_history_items=5))
    await bench.textllm.answer_messages(Caller(), turn(said("user", "x" * 50)))
    with pytest.raises(InputTooLongError, match="51 characters; at most 50"):
        await bench.textllm.answer_messages(Caller(), turn(said("user", "x" * 50), said("assistant", "y")))


async def test_every_role_can_be_given() -> None:
    bench = Bench()
    everyone = [said(role, role) for role in get_args(MessageRole)]
    await bench.textllm.answer_messages(Caller(), turn(*everyone))
    assert [message.role for message in bench.llm.requests[0].messages] == [*get_args(MessageRole)]


async def test_the_default_prompt_stands_in_where_no_message_instructs_the_model() -> None:
    bench = Bench()
    for talk in (TALK[1:3], TALK[:2], TALK[1:4]):
        await bench.textllm.answer_messages(Caller(), turn(*talk))
    await bench.textllm.answer_messages(Caller(), turn(*TALK, options=TurnOptions(instructions="Be brief, too.")))
    assert [request.instructions for request in bench.llm.requests] == ["Be brief.", None, None, "Be brief, too."]


async def test_the_cache_of_the_provider_is_found_by_the_user_or_by_a_key_that_is_the_tenants() -> None:
    bench = Bench()
    options = TurnOptions(cache_key="chat")
    for tenant, chosen in (("acme", None), ("acme", None), ("acme", options), ("rival", options)):
        await bench.textllm.answer_messages(Caller(tenant), turn(*TALK, options=chosen or TurnOptions()))
    first, second, third, fourth = (request.cache_key for request in bench.llm.requests)
    assert first == second
    assert len({first, third, fourth}) == 3


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(frequency_penalty=-3), "frequency_penalty"),
        (Sampling(presence_penalty=3), "presence_penalty"),
        (Sampling(seed=2**63), "seed"),
        (Sampling(stop=[""]), "stop"),
        (Sampling(verbosity=cast(Any, "much")), "verbosity"),
        (Sampling(stop=["x"] * 5), "stop"),
        (Sampling(stop=["\ud800"]), "stop"),
    ],
)
async def test_no_model_chooses_its_words_so(sampling: Sampling, field: str) -> None:
    bench = Bench()
    with pytest.raises(InvalidRequestError) as refused:
        await bench.textllm.answer_messages(Caller(), turn(*TALK, options=TurnOptions(sampling=sampling)))
    assert refused.value.errors[0][0] == field
    chosen = Sampling(top_p=1, stop=["x"])
    await bench.textllm.answer_messages(Caller(), turn(*TALK, options=TurnOptions(sampling=chosen)))
    assert bench.llm.requests[0].sampling == chosen
