"""Which conversations are listed, whoever asks."""

import pytest
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import memory_conversations
from textllm_core import Caller
from textllm_core.errors import InvalidRequestError
from textllm_core.records.conversations import ConversationFilter


@pytest.mark.parametrize(
    "wanted", [ConversationFilter(q="\0"), ConversationFilter(q="Hi\0"), ConversationFilter(tag="\0")]
)
async def test_what_no_store_can_keep_is_not_looked_for(bench: Bench, wanted: ConversationFilter) -> None:
    await bench.say("Hi")
    conversations = memory_conversations(bench.store, bench.clock, bench.running, bench.files, bench.transcript)
    with pytest.raises(InvalidRequestError, match="NUL"):
        await conversations.list(Caller(), wanted)
