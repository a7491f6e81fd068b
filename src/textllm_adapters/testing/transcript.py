"""What every transcript keeps of the port `Transcript`."""

import pytest

from textllm_adapters.testing.models import NOON, assistant, user
from textllm_core.errors import ConversationLostError
from textllm_core.ports.transcript import Transcript
from textllm_core.records.messages import Message
from textllm_core.records.parts import Refusal


class TranscriptContract:
    """What every transcript keeps of the port `Transcript`.

    Fixture `transcript`: one of them.
    """

    pytestmark = pytest.mark.asyncio

    async def test_messages_come_back_in_order_with_role_and_words(self, transcript: Transcript) -> None:
        given = [
            user("Hello"),
            assistant("Hi.\n\U0001f9f6"),
            user("Do it"),
            Message(id="msg_3", role="assistant", content=(Refusal("No."),), created_at=NOON),
        ]
        kept = await transcript.messages(await transcript.create(given))
        assert [(message.role, message.text) for message in kept] == [(m.role, m.text) for m in given]
        assert all(message.id for message in kept)
        assert all(message.created_at.utcoffset() is not None for message in kept)

    @pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 40, 41, 100, 101, 205])
    async def test_it_holds_any_number_of_messages(self, transcript: Transcript, count: int) -> None:
        texts = [f"message {n}" for n in range(count)]
        transcript_id = await transcript.create([user(text) for text in texts])
        assert [message.text for message in await transcript.messages(transcript_id)] == texts

    async def test_two_transcripts_are_apart(self, transcript: Transcript) -> None:
        one, other = await transcript.create([user("one")]), await transcript.create([user("other")])
        assert one != other
        assert [message.text for message in await transcript.messages(one)] == ["one"]
        assert [message.text for message in await transcript.messages(other)] == ["other"]

    @pytest.mark.parametrize("transcript_id", ["conv_never_made", "../responses", "", "conv_\u00fc?x=1#y"])
    async def test_what_was_never_made_is_lost(self, transcript: Transcript, transcript_id: str) -> None:
        with pytest.raises(ConversationLostError):
            await transcript.messages(transcript_id)

    async def test_what_is_erased_is_lost_and_nothing_else_is(self, transcript: Transcript) -> None:
        one, other = await transcript.create([user("one")] * 205), await transcript.create([user("other")])
        for _ in range(2):
            await transcript.erase(one)
        with pytest.raises(ConversationLostError):
            await transcript.messages(one)
        assert [message.text for message in await transcript.messages(other)] == ["other"]

    async def test_a_turn_is_added_behind_what_was_said(self, transcript: Transcript) -> None:
        transcript_id = await transcript.create([user("Hello"), assistant("Hi.")])
        assert await transcript.add(transcript_id, [user("Tell me a story."), assistant("Once upon a ti")])
        assert await transcript.add(transcript_id, [user("Go on.")])
        said = [(message.role, message.text) for message in await transcript.messages(transcript_id)]
        assert said == [
            *(("user", "Hello"), ("assistant", "Hi.")),
            *(("user", "Tell me a story."), ("assistant", "Once upon a ti"), ("user", "Go on.")),
        ]

    @pytest.mark.parametrize("known", ["Once", "Once upon", "Once upon a time."])
    async def test_a_turn_that_is_there_is_not_added_whatever_is_known_of_its_reply(
        self, transcript: Transcript, known: str
    ) -> None:
        transcript_id = await transcript.create([user("Tell me a story."), assistant("Once upon")])
        assert await transcript.add(transcript_id, [user("Tell me a story."), assistant(known)])
        assert len(await transcript.messages(transcript_id)) == 2

    async def test_the_same_words_with_another_reply_are_another_turn(self, transcript: Transcript) -> None:
        transcript_id = await transcript.create([user("Go on."), assistant("One.")])
        assert await transcript.add(transcript_id, [user("Go on."), assistant("Two.")])
        assert await transcript.add(transcript_id, [user("Three?"), assistant("Two.")])
        said = [message.text for message in await transcript.messages(transcript_id)]
        assert said == ["Go on.", "One.", "Go on.", "Two.", "Three?", "Two."]

    @pytest.mark.parametrize("reply", [(), ("One.",)])
    async def test_without_a_reply_words_that_stand_at_the_end_are_not_added_again(
        self, transcript: Transcript, reply: tuple[str, ...]
    ) -> None:
        given = [user("Hello"), assistant("Hi."), user("Go on."), *map(assistant, reply)]
        transcript_id = await transcript.create(given)
        assert not await transcript.add(transcript_id, [user("Go on.")])
        assert len(await transcript.messages(transcript_id)) == len(given)
        assert await transcript.add(transcript_id, [user("Hello")])
        assert len(await transcript.messages(transcript_id)) == len(given) + 1

    async def test_nothing_is_added_to_what_is_lost(self, transcript: Transcript) -> None:
        transcript_id = await transcript.create([user("one")])
        await transcript.erase(transcript_id)
        with pytest.raises(ConversationLostError):
            await transcript.add(transcript_id, [user("two"), assistant("Two.")])

    async def test_it_says_that_what_it_has_made_is_its_own(self, transcript: Transcript) -> None:
        assert transcript.keeps(await transcript.create([]))

    @pytest.mark.parametrize("name", ["conv_never_made", "resp_never_made", "../responses", "conv_\u00fc?x=1#y"])
    async def test_what_is_not_there_counts_as_erased(self, transcript: Transcript, name: str) -> None:
        kept = await transcript.create([user("kept")])
        await transcript.erase(name)
        await transcript.erase_reply(name)
        assert [message.text for message in await transcript.messages(kept)] == ["kept"]
