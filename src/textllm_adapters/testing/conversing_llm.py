"""What models keep of the port `LLM` whose provider keeps conversations."""

import pytest

from textllm_adapters.testing.models import (
    ConversingModel,
    assistant,
    first_delta,
    hear,
    request,
    user,
)
from textllm_adapters.testing.stored_files import GIF, PDF, PNG, STORED, asked, image, pdf, reading, seen
from textllm_core.errors import (
    ConversationBusyError,
    ConversationLostError,
    StoredFileNotFoundError,
)


class ConversingLLMContract:
    """What models keep, besides, whose provider keeps conversations.

    Fixture `model`: a `ConversingModel`, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_conversation_grows_by_turn_and_reply(self, model: ConversingModel) -> None:
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

    async def test_a_conversation_that_is_gone_is_lost(self, model: ConversingModel) -> None:
        heard = await hear(model.llm.stream(request("Hello", transcript_id="conv_never_made")))
        assert heard.events == []
        assert isinstance(heard.error, ConversationLostError)

    async def test_a_conversation_takes_one_turn_at_a_time(self, model: ConversingModel) -> None:
        transcript_id = await model.transcript.create([])
        open_gate = model.hold()
        running = model.llm.stream(request("Hello", transcript_id=transcript_id))
        await first_delta(running)
        intruder = await hear(model.llm.stream(request("Me too", transcript_id=transcript_id)))
        open_gate()
        await hear(running)
        assert intruder.events == []
        assert isinstance(intruder.error, ConversationBusyError)
        messages = await model.transcript.messages(transcript_id)
        assert [message.text for message in messages] == ["Hello", "[0] You said: Hello"]

    async def test_a_turn_that_was_closed_early_is_not_in_the_conversation(self, model: ConversingModel) -> None:
        transcript_id = await model.transcript.create([])
        model.hold()
        stream = model.llm.stream(request("Hello", transcript_id=transcript_id))
        await first_delta(stream)
        await stream.aclose()
        assert list(await model.transcript.messages(transcript_id)) == []

    async def test_the_outcome_of_a_kept_response_is_how_it_ended(self, model: ConversingModel) -> None:
        transcript_id = await model.transcript.create([])
        heard = await hear(model.llm.stream(request("Hello", transcript_id=transcript_id)))
        assert heard.started.provider_response_id is not None
        assert await model.llm.outcome(heard.started.provider_response_id) == heard.ended


class FilesLLMContract:
    """What models keep whose provider keeps conversations, and reads images and files as they are.

    Fixture `model`: as `ConversingLLMContract` has it.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_conversation_keeps_knowing_its_files(self, model: ConversingModel) -> None:
        made_with = [asked("Look", image("LLM/one.png")), assistant("Nice.")]
        transcript_id = await model.transcript.create(made_with, read=reading(STORED))
        turn = asked("And this?", pdf())
        first = await hear(model.llm.stream(request(turn, transcript_id=transcript_id, read=reading(STORED))))
        second = await hear(model.llm.stream(request("Which?", transcript_id=transcript_id)))
        assert first.ended.text == f"[2] You said: And this? {seen(PNG, PDF)}"
        assert second.ended.text == f"[4] You said: Which? {seen(PNG, PDF)}"

    async def test_a_transcript_is_made_of_any_number_of_messages_with_files(self, model: ConversingModel) -> None:
        made_with = [asked(f"Look {n}", image("LLM/two.gif")) for n in range(45)]
        transcript_id = await model.transcript.create(made_with, read=reading(STORED))
        heard = await hear(model.llm.stream(request("How many?", transcript_id=transcript_id)))
        assert heard.ended.text == f"[45] You said: How many? {seen(*[GIF] * 45)}"

    async def test_a_transcript_is_not_made_of_files_that_are_gone(self, model: ConversingModel) -> None:
        with pytest.raises(StoredFileNotFoundError):
            await model.transcript.create([asked("Look", image("LLM/one.png"))], read=reading({}))

    async def test_a_file_as_it_is_reaches_the_models_that_read_files(self, model: ConversingModel) -> None:
        assert model.llm.reads_files
        heard = await hear(model.llm.stream(request(asked("Well?", pdf()), read=reading(STORED))))
        assert heard.ended.text == f"[0] You said: Well? {seen(PDF)}"
