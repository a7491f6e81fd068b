"""Every model that ships keeps the port `LLM`."""

from collections.abc import AsyncIterator

import pytest
from tests.contracts.model_fixtures import CONVERSING, MODELS

from textllm_adapters.testing import (
    ConversingLLMContract,
    FilesLLMContract,
    ImagesLLMContract,
    LLMContract,
    RefusalsLLMContract,
)
from textllm_adapters.testing.models import ConversingModel, ModelUnderTest


class Models:
    @pytest.fixture(params=sorted(MODELS))
    async def model(self, request: pytest.FixtureRequest) -> AsyncIterator[ModelUnderTest]:
        async with MODELS[request.param]() as model:
            yield model


class ConversingModels:
    @pytest.fixture(params=sorted(CONVERSING))
    async def model(self, request: pytest.FixtureRequest) -> AsyncIterator[ConversingModel]:
        async with CONVERSING[request.param]() as model:
            yield model


class TestModels(Models, LLMContract):
    """All of them."""


class TestModelsThatRefuse(Models, RefusalsLLMContract):
    """All of them may."""


class TestModelsThatReadImages(Models, ImagesLLMContract):
    """All of them do."""


class TestConversingModels(ConversingModels, ConversingLLMContract):
    """Those whose provider keeps conversations."""


class TestModelsThatReadFiles(ConversingModels, FilesLLMContract):
    """The same ones do."""
