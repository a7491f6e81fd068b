"""The application that users test theirs with: as `docs/library.md` shows it, and with what it leaves out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import textllm_core
from textllm_adapters.memory.application import SCRIPTED_POLICY, open_in_memory
from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.store import MemoryStore
from textllm_core import Caller, TextTurn
from textllm_core.errors import ProviderUnavailableError

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


def test_the_example_of_the_page_passes_as_a_test_of_its_own(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (example,) = [example for example in examples if "open_in_memory" in example]
    (tmp_path / "test_example.py").write_text(example)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout


async def test_every_call_of_the_table_of_the_page_succeeds_in_its_order() -> None:
    calls = re.findall(r"\| `(textllm\.[^`]+)` \|", PAGE.read_text())
    assert len(calls) == 10
    async with open_in_memory() as textllm:
        reply = await textllm.send_message(Caller(), TextTurn("Which is the longest river?", user_id="ada"))
        names = {name: getattr(textllm_core, name) for name in textllm_core.__all__}
        names |= {"textllm": textllm, "caller": Caller(), "id": reply.conversation_id}
        found = [await eval(call, names) for call in calls]
        assert [page.total for page in found[:2]] == [1, 1]
        assert found[-1].total_cost > reply.cost  # the summary's is in it


async def test_the_model_shows_what_it_was_asked_and_the_store_stays(
    store: MemoryStore,
) -> None:
    llm = ScriptedLLM()
    async with open_in_memory("One.", llm=llm, store=store) as textllm:
        first = await textllm.send_message(Caller(), TextTurn("Count.", user_id="ada"))
    async with open_in_memory("Two.", llm=llm, store=store) as textllm:
        turn = TextTurn("Go on.", conversation_id=first.conversation_id)
        second = await textllm.send_message(Caller(), turn)
    assert (second.text, second.message_number, second.model) == ("Two.", 2, SCRIPTED_POLICY.model)
    assert [message.text for message in llm.requests[-1].messages] == ["Count.", "One.", "Go on."]


async def test_a_model_that_fails_is_scripted_too() -> None:
    failure = ScriptedReply(error=ProviderUnavailableError("The provider is overloaded.", may_have_run=False))
    async with open_in_memory(failure) as textllm:
        with pytest.raises(ProviderUnavailableError):
            await textllm.send_message(Caller(), TextTurn("Hello", user_id="ada"))
        assert [drift async for drift in textllm.administration.audit()] == []


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()
