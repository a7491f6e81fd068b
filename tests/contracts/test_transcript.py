"""Every transcript that ships keeps the port `Transcript`."""

from collections.abc import AsyncIterator

import pytest
from tests.contracts.model_fixtures import CONVERSING

from textllm_adapters.testing import TranscriptContract
from textllm_core.ports.transcript import Transcript


class TestTranscripts(TranscriptContract):
    """Those that go with models whose provider keeps conversations."""

    @pytest.fixture(params=sorted(CONVERSING))
    async def transcript(self, request: pytest.FixtureRequest) -> AsyncIterator[Transcript]:
        async with CONVERSING[request.param]() as model:
            yield model.transcript
