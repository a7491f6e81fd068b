"""The suites of the ports, as pytest classes: who writes an adapter inherits one, and says in a fixture what to test.

docs/adapters.md shows how. Who writes an application finds a TextLLM in memory in `textllm_adapters.testing.plugin`.
"""

from pkgutil import iter_modules

import pytest

# Before the suites are imported, so that their failures say what was compared.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from textllm_adapters.testing.blob_store import BlobStoreContract
from textllm_adapters.testing.conversing_llm import ConversingLLMContract, FilesLLMContract
from textllm_adapters.testing.document_reader import DocumentReaderContract
from textllm_adapters.testing.llm import ImagesLLMContract, LLMContract
from textllm_adapters.testing.models import ConversingModel, ModelUnderTest, Say, echo
from textllm_adapters.testing.rate_limiter import Limiting, RateLimiterContract
from textllm_adapters.testing.telemetry import TelemetryContract
from textllm_adapters.testing.tracer import TracerContract
from textllm_adapters.testing.transcript import TranscriptContract

__all__ = [
    "BlobStoreContract",
    "ConversingLLMContract",
    "ConversingModel",
    "DocumentReaderContract",
    "FilesLLMContract",
    "ImagesLLMContract",
    "LLMContract",
    "Limiting",
    "ModelUnderTest",
    "RateLimiterContract",
    "Say",
    "TelemetryContract",
    "TracerContract",
    "TranscriptContract",
    "echo",
]
