"""What models keep of the port `LLM`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from textllm_adapters.testing.models import (
    ModelUnderTest,
    Say,
    assistant,
    first_delta,
    hear,
    request,
)
from textllm_adapters.testing.stored_files import GIF, PNG, STORED, asked, image, reading, seen
from textllm_core.errors import (
    ContextTooLongError,
    ModelError,
    ProviderUnavailableError,
    StorageUnavailableError,
    StoredFileNotFoundError,
)
from textllm_core.records.messages import TextDelta
from textllm_core.records.model import ModelEnded, ModelStarted
from textllm_core.records.parts import InputFile


class LLMContract:
    """What every model keeps of the port `LLM`.

    Fixture `model`: a `ModelUnderTest`, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_reply_starts_then_tells_its_text_piece_by_piece_then_ends_once(
        self, model: ModelUnderTest
    ) -> None:
        model.say(Say(("Tea", " is", " ready.")))
        heard = await hear(model.llm.stream(request("Well?")))
        assert [type(event) for event in heard.events] == [ModelStarted, TextDelta, TextDelta, TextDelta, ModelEnded]
        assert heard.deltas == ["Tea", " is", " ready."]
        assert heard.ended.text == "Tea is ready."
        assert (heard.ended.status, heard.ended.finish_reason, heard.ended.content_filtered) == (
            "completed",
            "stop",
            False,
        )
        assert heard.started.model.startswith("gpt-4o")

    async def test_any_text_comes_out_as_it_was_written(self, model: ModelUnderTest) -> None:
        deltas = ["\n\n", "data: [DONE]", "\u2028\u0085", "e\u0301\U0001f9f6", '"\\', "\r\n\t", "\x00\x1b[31m"]
        model.say(Say(tuple(deltas)))
        heard = await hear(model.llm.stream(request("Well?")))
        assert heard.deltas == deltas
        assert heard.ended.text == "".join(deltas)

    async def test_a_reply_without_text_has_no_deltas(self, model: ModelUnderTest) -> None:
        model.say(Say(()))
        heard = await hear(model.llm.stream(request("Well?")))
        assert (heard.deltas, heard.ended.text, heard.ended.status) == ([], "", "completed")

    async def test_the_reply_takes_earlier_messages_into_account(self, model: ModelUnderTest) -> None:
        alone = await hear(model.llm.stream(request("And now?")))
        later = await hear(model.llm.stream(request("Hello", assistant("Hi."), "And now?")))
        assert (alone.ended.text, later.ended.text) == ("[0] You said: And now?", "[2] You said: And now?")

    async def test_earlier_messages_and_instructions_are_counted_as_input(self, model: ModelUnderTest) -> None:
        short = (await hear(model.llm.stream(request("And now?")))).ended.usage
        longer = (await hear(model.llm.stream(request("Hello there, you", assistant("Hi."), "And now?")))).ended.usage
        longest = (await hear(model.llm.stream(request("And now?", instructions="Be brief. " * 20)))).ended.usage
        assert short is not None
        assert longer is not None
        assert longest is not None
        assert 0 < short.input_tokens < longer.input_tokens < longest.input_tokens
        assert short.output_tokens > 0

    async def test_a_reply_never_has_more_than_the_tokens_it_may_have(self, model: ModelUnderTest) -> None:
        model.say(Say(("twelve bytes",) * 40))
        ended = (await hear(model.llm.stream(request("Well?", max_output_tokens=16)))).ended
        assert ended.usage is not None
        assert ended.usage.output_tokens <= 16
        assert (ended.status, ended.finish_reason) == ("incomplete", "length")
        assert ended.text.startswith("twelve bytes")

    async def test_a_reply_that_stopped_early_says_so(self, model: ModelUnderTest) -> None:
        model.say(Say(("It was a",), end="length"))
        ended = (await hear(model.llm.stream(request("Well?")))).ended
        assert (ended.text, ended.status, ended.finish_reason) == ("It was a", "incomplete", "length")
        assert ended.usage is not None

    async def test_a_broken_reply_keeps_what_came_and_may_have_run(self, model: ModelUnderTest) -> None:
        model.say(Say(("one ", "two ", "three"), end="cut", after=2))
        heard = await hear(model.llm.stream(request("Well?")))
        assert heard.deltas == ["one ", "two "]
        assert isinstance(heard.error, ModelError)
        assert heard.error.may_have_run

    async def test_a_reported_failure_keeps_what_came_and_may_have_run(self, model: ModelUnderTest) -> None:
        model.say(Say(("so ", "far"), end="failure", after=1))
        heard = await hear(model.llm.stream(request("Well?")))
        assert heard.deltas == ["so "]
        assert isinstance(heard.error, ModelError)
        assert heard.error.may_have_run

    async def test_an_overloaded_model_surely_did_not_run(self, model: ModelUnderTest) -> None:
        model.say(Say(end="overloaded"))
        heard = await hear(model.llm.stream(request("Well?")))
        assert heard.events == []
        assert isinstance(heard.error, ProviderUnavailableError)
        assert not heard.error.may_have_run

    async def test_too_long_a_context_is_refused_before_anything_is_said(self, model: ModelUnderTest) -> None:
        model.say(Say(end="too_long"))
        heard = await hear(model.llm.stream(request("Well?")))
        assert heard.events == []
        assert isinstance(heard.error, ContextTooLongError)

    async def test_a_reply_that_is_closed_early_leaves_the_model_ready(self, model: ModelUnderTest) -> None:
        model.hold()
        stream = model.llm.stream(request("Well?"))
        assert await first_delta(stream) == "[0] "
        await stream.aclose()
        assert (await hear(model.llm.stream(request("Again")))).ended.text == "[0] You said: Again"

    async def test_replies_at_the_same_time_do_not_mix(self, model: ModelUnderTest) -> None:
        heard = await asyncio.gather(*(hear(model.llm.stream(request(f"I am {n}"))) for n in range(20)))
        assert [one.ended.text for one in heard] == [f"[0] You said: I am {n}" for n in range(20)]

    async def test_nothing_is_known_of_a_response_that_never_was(self, model: ModelUnderTest) -> None:
        assert await model.llm.outcome("resp_never/../was") is None

    async def test_extracted_text_is_said_under_the_name_of_its_file(self, model: ModelUnderTest) -> None:
        note = InputFile(key="LLM/gone.txt", media_type="text/plain", size=9, name="gone.txt", extracted="Tea at five.")
        heard = await hear(model.llm.stream(request(asked("Well?", note))))
        assert "File gone.txt:\n\nTea at five." in heard.ended.text
        assert "Well?" in heard.ended.text


class RefusalsLLMContract:
    """What models keep whose provider says that it refuses, and filters.

    Fixture `model`: as `LLMContract` has it.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_refusal_is_told_as_text_and_named(self, model: ModelUnderTest) -> None:
        model.say(Say(("I would rather not.",), end="refusal"))
        heard = await hear(model.llm.stream(request("Well?")))
        assert "".join(heard.deltas) == heard.ended.text == "I would rather not."
        assert (heard.ended.status, heard.ended.finish_reason) == ("completed", "refusal")
        told = "".join(event.text for event in heard.events if isinstance(event, TextDelta) and event.is_refusal)
        assert told == heard.ended.refusal

    async def test_a_reply_that_the_filter_ended_says_so(self, model: ModelUnderTest) -> None:
        model.say(Say(("It was a",), end="content_filter"))
        ended = (await hear(model.llm.stream(request("Well?")))).ended
        assert (ended.text, ended.status, ended.content_filtered) == ("It was a", "incomplete", True)
        assert ended.finish_reason != "length"


class ImagesLLMContract:
    """What models keep that read images.

    Fixture `model`: as `LLMContract` has it.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("piece_bytes", [1, 2, 3, 1000, 1024 * 1024])
    async def test_images_reach_the_model_byte_for_byte_and_in_order(
        self, model: ModelUnderTest, piece_bytes: int
    ) -> None:
        turn = asked("Well?", image("LLM/two.gif"), image("LLM/one.png"))
        heard = await hear(model.llm.stream(request(turn, read=reading(STORED, piece_bytes=piece_bytes))))
        assert heard.ended.text == f"[0] You said: Well? {seen(GIF, PNG)}"

    async def test_images_of_earlier_messages_are_sent_again(self, model: ModelUnderTest) -> None:
        earlier = asked("Look", image("LLM/one.png"))
        heard = await hear(model.llm.stream(request(earlier, assistant("Nice."), "And now?", read=reading(STORED))))
        assert heard.ended.text == f"[2] You said: And now? {seen(PNG)}"

    async def test_images_are_counted_as_input(self, model: ModelUnderTest) -> None:
        plain = (await hear(model.llm.stream(request("Well?")))).ended.usage
        with_image = asked("Well?", image("LLM/one.png"))
        counted = (await hear(model.llm.stream(request(with_image, read=reading(STORED))))).ended.usage
        assert plain is not None
        assert counted is not None
        assert counted.input_tokens > plain.input_tokens

    async def test_a_text_that_looks_like_a_file_stays_a_text(self, model: ModelUnderTest) -> None:
        text = "data:image/png;base64,aGVsbG8="
        heard = await hear(model.llm.stream(request(asked(text, image("LLM/one.png")), read=reading(STORED))))
        assert heard.ended.text == f"[0] You said: {text} {seen(PNG)}"

    async def test_a_file_that_is_gone_ends_the_call_and_leaves_the_model_ready(self, model: ModelUnderTest) -> None:
        turn = asked("Well?", image("LLM/two.gif"), image("LLM/one.png"))
        heard = await hear(model.llm.stream(request(turn, read=reading({"LLM/two.gif": GIF}))))
        assert heard.events == []
        assert isinstance(heard.error, StoredFileNotFoundError)
        assert (await hear(model.llm.stream(request("Again")))).ended.text == "[0] You said: Again"

    async def test_a_storage_that_fails_in_the_middle_of_a_file_ends_the_call(self, model: ModelUnderTest) -> None:
        async def read(_key: str) -> AsyncIterator[bytes]:
            yield PNG[:5000]
            raise StorageUnavailableError

        heard = await hear(model.llm.stream(request(asked("Well?", image("LLM/one.png")), read=read)))
        assert heard.events == []
        assert isinstance(heard.error, StorageUnavailableError)
