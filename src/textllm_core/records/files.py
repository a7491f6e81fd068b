"""Files that users keep."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from textllm_core.file_names import Folder
from textllm_core.wire import Record

Purpose: TypeAlias = Literal["user_data", "vision", "assistants"]
"""What a file is uploaded for; all of them can be shown to models in the same way."""


class StoredFile(Record, frozen=True, kw_only=True):
    """A file and where its bytes are.

    Args:
        name: as its sender wrote it, without folders and control characters.
        size: in bytes.
        content_type: by its content; whatever a sender says it is.
        sha256: of its bytes, in lower-case hex.
        purpose: what it was uploaded for, as OpenAI's API has it.
    """

    key: str
    user_id: str
    folder: Folder
    name: str
    content_type: str
    size: int
    sha256: str
    created_at: datetime
    purpose: Purpose = "user_data"


class FilePage(Record, frozen=True):
    """Files of a list, and whether there are more behind the last of them."""

    files: Sequence[StoredFile]
    has_more: bool
