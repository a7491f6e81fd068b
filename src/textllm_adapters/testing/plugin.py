"""Fixtures for tests of an application: `pytest_plugins = ["textllm_adapters.testing.plugin"]` in its conftest.py."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from textllm_adapters.memory.application import open_in_memory
from textllm_adapters.memory.llm import ScriptedLLM
from textllm_core.application import TextLLM


@pytest.fixture
def scripted_llm() -> ScriptedLLM:
    """The model of `textllm`: says what a test tells it by `script`, then echoes."""
    return ScriptedLLM()


@pytest_asyncio.fixture
async def textllm(scripted_llm: ScriptedLLM) -> AsyncIterator[TextLLM]:
    """A whole TextLLM of one test alone, in memory, with real books; no network, no disk, no cost."""
    async with open_in_memory(llm=scripted_llm) as opened:
        yield opened
