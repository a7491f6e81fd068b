"""What every model keeps of the port `LLM`."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.contracts.model_fixtures import (
    MODELS,
    STATEFUL,
    ModelUnderTest,
    assistant,
    first_delta,
    hear,
    request,
    user,
)

from textllm_core.errors import (
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    ModelError,
    ProviderUnavailableError,
)
from textllm_core.records.messages import TextDelta
from textllm_core.records.model import ModelEnded, ModelStarted


@pytest.fixture(params=sorted(MODELS))
async def model(request: pytest.FixtureRequest) -> AsyncIterator[ModelUnderTest]:
    async with MODELS[request.param]() as model:
        yield model


@pytest.fixture(params=sorted(STATEFUL))
async def stateful_model(request: pytest.FixtureRequest) -> AsyncIterator[ModelUnderTest]:
    async with STATEFUL[request.param]() as model:
        yield model


async def test_a_reply_starts_then_tells_its_text_piece_by_piece_then_ends_once(model: ModelUnderTest) -> None:
    model.say("Tea", " is", " ready.")
    heard = await hear(model.llm.stream(request("Well?")))
    assert [type(event) for event in heard.events] == [ModelStarted, TextDelta, TextDelta, TextDelta, ModelEnded]
    assert heard.deltas == ["Tea", " is", " ready."]
    assert heard.ended.text == "Tea is ready."
    assert (heard.ended.status, heard.ended.finish_reason, heard.ended.content_filtered) == ("completed", "stop", False)
    assert heard.started.model.startswith("gpt-4o")


async def test_any_text_comes_out_as_it_was_written(model: ModelUnderTest) -> None:
    deltas = ["\n\n", "data: [DONE]", "\u2028\u0085", "e\u0301\U0001f9f6", '"\\', "\r\n\t", "\x00\x1b[31m"]
    model.say(*deltas)
    heard = await hear(model.llm.stream(request("Well?")))
    assert heard.deltas == deltas
    assert heard.ended.text == "".join(deltas)


async def test_a_reply_without_text_has_no_deltas(model: ModelUnderTest) -> None:
    model.say()
    heard = await hear(model.llm.stream(request("Well?")))
    assert (heard.deltas, heard.ended.text, heard.ended.status) == ([], "", "completed")


async def test_the_reply_takes_earlier_messages_into_account(model: ModelUnderTest) -> None:
    alone = await hear(model.llm.stream(request("And now?")))
    later = await hear(model.llm.stream(request("Hello", assistant("Hi."), "And now?")))
    assert (alone.ended.text, later.ended.text) == ("[0] You said: And now?", "[2] You said: And now?")


async def test_earlier_messages_and_instructions_are_counted_as_input(model: ModelUnderTest) -> None:
    short = (await hear(model.llm.stream(request("And now?")))).ended.usage
    longer = (await hear(model.llm.stream(request("Hello there, you", assistant("Hi."), "And now?")))).ended.usage
    longest = (await hear(model.llm.stream(request("And now?", instructions="Be brief. " * 20)))).ended.usage
    assert short is not None
    assert longer is not None
    assert longest is not None
    assert 0 < short.input_tokens < longer.input_tokens < longest.input_tokens
    assert short.output_tokens > 0


async def test_a_reply_never_has_more_than_the_tokens_it_may_have(model: ModelUnderTest) -> None:
    model.say(*["twelve bytes"] * 40)
    ended = (await hear(model.llm.stream(request("Well?", max_output_tokens=16)))).ended
    assert ended.usage is not None
    assert ended.usage.output_tokens <= 16
    assert (ended.status, ended.finish_reason) == ("incomplete", "length")
    assert ended.text.startswith("twelve bytes")


async def test_a_refusal_is_told_as_text_and_named(model: ModelUnderTest) -> None:
    model.refuse("I would rather not.")
    heard = await hear(model.llm.stream(request("Well?")))
    assert "".join(heard.deltas) == heard.ended.text == "I would rather not."
    assert (heard.ended.status, heard.ended.finish_reason) == ("completed", "refusal")


async def test_a_reply_that_stopped_early_says_so(model: ModelUnderTest) -> None:
    model.stop_early("It was a")
    ended = (await hear(model.llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.finish_reason) == ("It was a", "incomplete", "length")
    assert ended.usage is not None


async def test_a_reply_that_the_filter_ended_says_so(model: ModelUnderTest) -> None:
    model.filter_after("It was a")
    ended = (await hear(model.llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.content_filtered) == ("It was a", "incomplete", True)
    assert ended.finish_reason != "length"


async def test_a_broken_reply_keeps_what_came_and_may_have_run(model: ModelUnderTest) -> None:
    model.break_after(2, ["one ", "two ", "three"])
    heard = await hear(model.llm.stream(request("Well?")))
    assert heard.deltas == ["one ", "two "]
    assert isinstance(heard.error, ModelError)
    assert heard.error.may_have_run


async def test_a_reported_failure_keeps_what_came_and_may_have_run(model: ModelUnderTest) -> None:
    model.fail()
    heard = await hear(model.llm.stream(request("Well?")))
    assert heard.deltas == ["so "]
    assert isinstance(heard.error, ModelError)
    assert heard.error.may_have_run


async def test_an_overloaded_model_surely_did_not_run(model: ModelUnderTest) -> None:
    model.be_overloaded()
    heard = await hear(model.llm.stream(request("Well?")))
    assert heard.events == []
    assert isinstance(heard.error, ProviderUnavailableError)
    assert not heard.error.may_have_run


async def test_too_long_a_context_is_refused_before_anything_is_said(model: ModelUnderTest) -> None:
    model.find_it_too_long()
    heard = await hear(model.llm.stream(request("Well?")))
    assert heard.events == []
    assert isinstance(heard.error, ContextTooLongError)


async def test_a_reply_that_is_closed_early_leaves_the_model_ready(model: ModelUnderTest) -> None:
    model.wait_after_first_delta()
    stream = model.llm.stream(request("Well?"))
    assert await first_delta(stream) == "[0] "
    await stream.aclose()
    assert (await hear(model.llm.stream(request("Again")))).ended.text == "[0] You said: Again"


async def test_replies_at_the_same_time_do_not_mix(model: ModelUnderTest) -> None:
    heard = await asyncio.gather(*(hear(model.llm.stream(request(f"I am {n}"))) for n in range(20)))
    assert [one.ended.text for one in heard] == [f"[0] You said: I am {n}" for n in range(20)]


async def test_nothing_is_known_of_a_response_that_never_was(model: ModelUnderTest) -> None:
    assert await model.llm.outcome("resp_never/../was") is None


async def test_a_conversation_grows_by_turn_and_reply(stateful_model: ModelUnderTest) -> None:
    model = stateful_model
    transcript_id = await model.transcript.create([user("Hello"), assistant("Hi.")])
    first = await hear(model.llm.stream(request("And now?", transcript_id=transcript_id)))
    second = await hear(model.llm.stream(request("And then?", transcript_id=transcript_id)))
    assert first.ended.text == "[2] You said: And now?"
    assert second.ended.text == "[4] You said: And then?"
    assert [(message.role, message.text) for message in await model.transcript.messages(transcript_id)] == [
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "And now?"),
        ("assistant", "[2] You said: And now?"),
        ("user", "And then?"),
        ("assistant", "[4] You said: And then?"),
    ]


async def test_a_conversation_that_is_gone_is_lost(stateful_model: ModelUnderTest) -> None:
    heard = await hear(stateful_model.llm.stream(request("Hello", transcript_id="conv_never_made")))
    assert heard.events == []
    assert isinstance(heard.error, ConversationLostError)


async def test_a_conversation_takes_one_turn_at_a_time(stateful_model: ModelUnderTest) -> None:
    model = stateful_model
    transcript_id = await model.transcript.create([])
    open_gate = model.wait_after_first_delta()
    running = model.llm.stream(request("Hello", transcript_id=transcript_id))
    await first_delta(running)
    intruder = await hear(model.llm.stream(request("Me too", transcript_id=transcript_id)))
    open_gate()
    await hear(running)
    assert intruder.events == []
    assert isinstance(intruder.error, ConversationBusyError)
    messages = await model.transcript.messages(transcript_id)
    assert [message.text for message in messages] == ["Hello", "[0] You said: Hello"]


async def test_a_turn_that_was_closed_early_is_not_in_the_conversation(stateful_model: ModelUnderTest) -> None:
    model = stateful_model
    transcript_id = await model.transcript.create([])
    model.wait_after_first_delta()
    stream = model.llm.stream(request("Hello", transcript_id=transcript_id))
    await first_delta(stream)
    await stream.aclose()
    assert list(await model.transcript.messages(transcript_id)) == []


async def test_the_outcome_of_a_kept_response_is_how_it_ended(stateful_model: ModelUnderTest) -> None:
    model = stateful_model
    transcript_id = await model.transcript.create([])
    heard = await hear(model.llm.stream(request("Hello", transcript_id=transcript_id)))
    assert heard.started.provider_response_id is not None
    assert await model.llm.outcome(heard.started.provider_response_id) == heard.ended
