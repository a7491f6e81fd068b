"""A reply that has come as a whole is settled at once, without a note before that it has begun."""

from typing import Any

import pytest
from tests.unit.conftest import Bench

from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, TextTurn
from textllm_core.errors import ProviderError, StorageUnavailableError
from textllm_core.records.ledger import Hold

WHOLE = ScriptedReply(text="Tea.", is_whole=True)


class TakesNoNotes(MemoryLedger):
    """Books in which nothing can be noted while a turn runs."""

    async def pend(self, hold: Hold, **_: Any) -> Hold:  # noqa: ARG002 - as the port has it
        raise StorageUnavailableError


async def test_a_plain_turn_needs_none() -> None:
    bench = Bench(ledger_type=TakesNoNotes)
    bench.llm.script(WHOLE)
    assert (await bench.say("hi")).text == "Tea."
    (entry,) = await bench.entries()
    assert (entry.status, entry.estimated) == ("completed", False)
    assert entry.provider_response_id == "resp_scripted_1"
    await bench.check_books()


async def test_one_that_breaks_off_all_the_same_is_charged_by_its_provider_s_word() -> None:
    bench = Bench(ledger_type=TakesNoNotes)
    bench.llm.script(
        ScriptedReply(text="a b c", is_whole=True, error=ProviderError("Broken."), after=1, unheard="completed")
    )
    with pytest.raises(ProviderError):
        await bench.say("hi")
    (entry,) = await bench.entries()
    assert (entry.status, entry.estimated, entry.provider_response_id) == ("completed", False, "resp_scripted_1")
    await bench.check_books()


async def test_what_others_may_read_along_is_noted_first() -> None:
    bench = Bench(ledger_type=TakesNoNotes)
    bench.llm.script(WHOLE)
    with pytest.raises(StorageUnavailableError):
        async for _ in bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada", is_resumable=True)):
            pass
    await bench.check_books()


async def test_a_reply_that_takes_its_time_is_noted_when_it_begins() -> None:
    bench = Bench(ledger_type=TakesNoNotes)
    with pytest.raises(StorageUnavailableError):
        await bench.say("hi")
    await bench.check_books()
