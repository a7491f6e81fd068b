"""Links by which anyone can read a file for a while."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlencode

from msgspec import Meta

from textllm_core.errors import StoredFileNotFoundError
from textllm_core.fields import CreatedAt, FileKey, SizeInBytes
from textllm_core.files import FilePolicy
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.clock import Clock
from textllm_core.ports.file_repository import FileRepository
from textllm_core.records.files import StoredFile
from textllm_core.tenancy import Caller
from textllm_core.wire import Record


class FileView(Record, frozen=True, kw_only=True):
    """A file as it is shown. `url` can be followed by anyone, and for a while."""

    success: Annotated[bool, Meta(description="Always true.")] = True
    key: FileKey
    url: Annotated[str, Meta(description="A link that anyone can follow for a while.")]
    size: SizeInBytes
    content_type: Annotated[str, Meta(description="What it is, told by its content.")]
    sha256: Annotated[str, Meta(description="Of its bytes, in hex.")]
    created_at: CreatedAt

    @classmethod
    def of(cls, file: StoredFile, url: str) -> "FileView":
        """The file, behind this link."""
        return cls(
            key=file.key,
            url=url,
            size=file.size,
            content_type=file.content_type,
            sha256=file.sha256,
            created_at=file.created_at,
        )


@dataclass(frozen=True, slots=True)
class LinkFile:
    """Links by which anyone can read one file for a while, made when they are asked for and kept nowhere.

    Args:
        secret: what links are signed with where the store makes none of its own; one for all workers.
    """

    files: FileRepository
    blobs: BlobStore
    clock: Clock
    policy: FilePolicy
    secret: bytes = field(repr=False)

    async def __call__(self, caller: Caller, file: StoredFile) -> str:
        """The store's own link; else the path and query of one through our server, which `opened` understands.

        Args:
            file: as `GetFile` gave it to the caller.
        Raises:
            StorageUnavailableError: the storage does not answer.
        """
        expires_in_s = self.policy.link_expires_in_s
        link = await self.blobs.link(file.key, expires_in_s=expires_in_s, name=file.name, media_type=file.content_type)
        if link is not None:
            return link
        expires = int(self.clock.now().timestamp()) + expires_in_s
        signature = self._signature(caller.tenant_id, file.key, expires)
        query = urlencode({"tenant": caller.tenant_id, "expires": expires, "signature": signature})
        return f"/files/{file.key}/content?{query}"

    async def opened(self, key: str, *, tenant_id: str, expires: int, signature: str) -> StoredFile:
        """The file that a link through our server leads to.

        Raises:
            StoredFileNotFoundError: the link has expired or is not ours, or the file is gone.
        """
        expected = self._signature(tenant_id, key, expires)
        is_ours = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
        if not is_ours:
            raise StoredFileNotFoundError
        if self.clock.now().timestamp() >= expires:
            raise StoredFileNotFoundError("The link has expired; ask for a new one.")
        if (file := await self.files.get(tenant_id, key)) is None:
            raise StoredFileNotFoundError
        return file

    def _signature(self, tenant_id: str, key: str, expires: int) -> str:
        claim = f"{tenant_id}\n{key}\n{expires}".encode("utf-8", "replace")
        return hmac.new(self.secret, claim, hashlib.sha256).hexdigest()
