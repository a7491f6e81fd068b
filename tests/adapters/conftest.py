"""A provider that stands in for OpenAI, and what asks it by the Responses API."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn

from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.responses import ResponsesLLM


@pytest.fixture
def provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn() as provider:
        yield provider


@pytest.fixture
async def llm(provider: OpenAIStandIn) -> AsyncIterator[ResponsesLLM]:
    async with open_client("sk-test", provider.base_url) as client:
        yield ResponsesLLM(client, QUICK)
