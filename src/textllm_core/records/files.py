"""Files that users keep."""

from collections.abc import Sequence
from datetime import datetime

from textllm_core.file_names import Folder
from textllm_core.wire import Record


class StoredFile(Record, frozen=True, kw_only=True):
    """A file and where its bytes are.

    Args:
        name: as its sender wrote it, without folders and control characters.
        size: in bytes.
        content_type: by its content; whatever a sender says it is.
        sha256: of its bytes, in lower-case hex.
    """

    key: str
    user_id: str
    folder: Folder
    name: str
    content_type: str
    size: int
    sha256: str
    created_at: datetime


class FilePage(Record, frozen=True):
    """Files of a list, and whether there are more behind the last of them."""

    files: Sequence[StoredFile]
    has_more: bool
