"""Every reader that ships keeps the port `DocumentReader`."""

import pytest

from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.memory.document_reader import MemoryDocumentReader
from textllm_adapters.testing import DocumentReaderContract
from textllm_core.ports.document_reader import DocumentReader


class TestDocumentReaders(DocumentReaderContract):
    """Both of them."""

    @pytest.fixture(params=[MemoryDocumentReader, ChildDocumentReader])
    def reader(self, request: pytest.FixtureRequest) -> DocumentReader:
        opened: DocumentReader = request.param()
        return opened
