"""A conversation goes on after a reply was cut short: the provider's side of it is made anew from our copy."""

from contextlib import aclosing
from pathlib import Path

import pytest
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_adapters.settings import load_settings
from textllm_adapters.wiring import open_textllm
from textllm_core import Caller, TextLLM, TextTurn
from textllm_core.errors import TextLLMError
from textllm_core.records.messages import ReplyStarted, TextDelta

ENDS = ["cut", "silent", "failed:server_error", "error_flat:server_error", "error_nested:server_error"]


async def leave(textllm: TextLLM, turn: TextTurn, *, cancels: bool) -> None:
    """Read up to the first piece of the text, then cancel the reply, or go away; it is settled on return."""
    async with aclosing(textllm.send_message.stream(Caller(), turn)) as events:
        async for event in events:
            if isinstance(event, ReplyStarted):
                response_id = event.response_id
            if isinstance(event, TextDelta):
                break
    if cancels:
        await textllm.cancel_reply(Caller(), response_id)
        return
    resumed = await textllm.resume_reply(Caller(), response_id)
    async with aclosing(resumed.events) as rest:
        async for _ in rest:
            pass


@pytest.mark.parametrize("after", ["cancel", "hang-up", *ENDS])
async def test_the_next_turn_is_answered_after_any_cut_reply(tmp_path: Path, after: str) -> None:
    with OpenAIStandIn(api_key="sk-test") as provider:
        environ = {
            "TEXTLLM_DATA_DIR": str(tmp_path),
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": provider.base_url,
            "TEXTLLM_MAX_DETACHED_STREAMS": "0",  # a hang-up ends the reply at once
        }
        async with open_textllm(load_settings(environ=environ, cwd=tmp_path)) as textllm:
            first = await textllm.send_message(Caller(), TextTurn("first", user_id="ada"))
            second = TextTurn("second", first.conversation_id)
            if after in ENDS:
                provider.script(Reply(text="one two three", end=after, end_after=2))
                with pytest.raises(TextLLMError):
                    await textllm.send_message(Caller(), second)
            else:
                provider.script(Reply(text="one two three", end="stall", end_after=2))
                await leave(textllm, second, cancels=after == "cancel")
            third = await textllm.send_message(Caller(), TextTurn("third", first.conversation_id))
            page = await textllm.conversations.messages(Caller(), first.conversation_id)
        assert third.text.endswith("You said: third")
        [theirs] = [items for items in provider.conversations.values() if items[-1]["content"][0]["text"] == third.text]
        assert [item["content"][0]["text"] for item in theirs] == [message.text for message in page.data]
