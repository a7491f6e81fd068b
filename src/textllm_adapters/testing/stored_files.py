"""Images and files as they are stored, and messages that have them."""

import hashlib
from collections.abc import AsyncIterator, Mapping

from textllm_adapters.testing.models import NOON
from textllm_core.errors import StoredFileNotFoundError
from textllm_core.records.messages import Message
from textllm_core.records.model import ReadBlob
from textllm_core.records.parts import InputFile, InputImage, InputText

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
GIF = b"GIF89a" + b"\x01" * 11
PDF = b"%PDF-1.7\n" + b"of one page" * 1000
STORED = {"LLM/one.png": PNG, "LLM/two.gif": GIF, "LLM/three.pdf": PDF}


def reading(stored: Mapping[str, bytes], *, piece_bytes: int = 1000) -> ReadBlob:
    """Reads what is stored, in pieces of a size that is no multiple of three."""

    async def read(key: str) -> AsyncIterator[bytes]:
        if key not in stored:
            raise StoredFileNotFoundError
        for start in range(0, len(stored[key]), piece_bytes):
            yield stored[key][start : start + piece_bytes]

    return read


def image(key: str) -> InputImage:
    content = STORED[key]
    return InputImage(key=key, media_type=f"image/{key[-3:]}", size=len(content), name=key.removeprefix("LLM/"))


def pdf() -> InputFile:
    return InputFile(key="LLM/three.pdf", media_type="application/pdf", size=len(PDF), name="three.pdf", pages=1)


def asked(text: str, *parts: InputImage | InputFile) -> Message:
    return Message(id="msg_1", role="user", content=(InputText(text), *parts), created_at=NOON)


def seen(*contents: bytes) -> str:
    """What a stand-in answers behind its `echo`, where these images or files came along, in their order."""
    return "Seen: " + " ".join(hashlib.sha256(content).hexdigest()[:8] for content in contents)
