"""Files that users keep: stored, listed, read, linked, deleted."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from textllm_core.cancellation import carried_through
from textllm_core.errors import (
    Allowance,
    FileTooLargeError,
    InvalidRequestError,
    StorageQuotaExceededError,
    StorageUnavailableError,
    StoredFileNotFoundError,
)
from textllm_core.file_names import OCTETS, SNIFFED_BYTES, Folder, clean_name, media_type_of, new_key
from textllm_core.ids import new_user_id
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.clock import Clock
from textllm_core.ports.file_repository import FileRepository
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.records.files import FilePage, Purpose, StoredFile
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload

MAX_LISTED: Final = 1000


class FilePolicy(Struct, frozen=True, kw_only=True):
    """Rules for files.

    Args:
        max_file_bytes: of one file.
        max_tenant_bytes: of all files of a tenant; None: no limit.
        link_expires_in_s: how long a link can be followed.
        rate_per_minute: requests of a user, turns included.
    """

    max_file_bytes: int
    max_tenant_bytes: int | None
    link_expires_in_s: int
    rate_per_minute: int


@dataclass(frozen=True, slots=True)
class AdmitUpload:
    """Count an upload as one of the requests that a user may make in a minute."""

    rate_limiter: RateLimiter
    policy: FilePolicy

    async def __call__(self, caller: Caller, user_id: str | None) -> Allowance:
        """
        Args:
            user_id: for whom; None: for a user whom nobody named, so that the caller itself is counted.
        Raises:
            InvalidRequestError, NotFoundError: the caller may not act for the user.
            RateLimitedError: too many requests.
            StorageUnavailableError: they could not be counted.
        """
        charged = self._charged(caller, user_id)
        return await self.rate_limiter.take(caller.tenant_id, charged, per_minute=self.policy.rate_per_minute)

    async def give_back(self, caller: Caller, user_id: str | None) -> None:
        """Count it no more: nothing came of it, for no fault of the user."""
        with suppress(StorageUnavailableError):  # then it counts: nobody gets more than the limit
            charged = self._charged(caller, user_id)
            await self.rate_limiter.give_back(caller.tenant_id, charged, per_minute=self.policy.rate_per_minute)

    def _charged(self, caller: Caller, user_id: str | None) -> str:
        user = caller.acts_for(user_id)
        return caller.id if user is None else caller.pays_for(user) or user


@dataclass(frozen=True, slots=True)
class StoreFile:
    """Keep a file: written down first, visible last, and gone without a trace if anything fails between.

    Between `keep` and `show` comes what the file is kept for; where that never comes, `SweepFiles` takes it away.
    """

    files: FileRepository
    blobs: BlobStore
    clock: Clock
    policy: FilePolicy

    async def __call__(
        self,
        caller: Caller,
        upload: Upload,
        *,
        user_id: str | None = None,
        folder: Folder = "uploads",
        purpose: Purpose = "user_data",
    ) -> StoredFile:
        """Keep and show it; raises what both do."""
        file = await self.keep(caller, upload, user_id=user_id, folder=folder, purpose=purpose)
        try:
            await self.show(caller.tenant_id, file)
        except BaseException:
            await carried_through(self._undo(caller.tenant_id, file, is_in_doubt=False))
            raise
        return file

    async def keep(
        self,
        caller: Caller,
        upload: Upload,
        *,
        user_id: str | None = None,
        folder: Folder = "uploads",
        purpose: Purpose = "user_data",
    ) -> StoredFile:
        """Store what nobody sees yet.

        Args:
            user_id: whose it is; left out, a new user's.
        Raises:
            InvalidRequestError, NotFoundError: the caller may not act for the user.
            InvalidRequestError: the upload has more bytes than it says, or fewer.
            FileTooLargeError: the file is, or the tenant's files together are.
            StorageUnavailableError: nothing was stored.
        """
        user = caller.acts_for(user_id) or new_user_id()
        if upload.size > self.policy.max_file_bytes:
            raise FileTooLargeError(limit=self.policy.max_file_bytes)
        now = self.clock.now()
        file = StoredFile(
            key=new_key(folder, user, upload.name, now),
            user_id=user,
            folder=folder,
            name=clean_name(upload.name),
            content_type=OCTETS,
            size=upload.size,
            sha256="",
            created_at=now,
            purpose=purpose,
        )
        try:
            await self.files.announce(caller.tenant_id, file, max_total_bytes=self.policy.max_tenant_bytes)
            return await self._store(file, upload)
        except StorageQuotaExceededError:  # nothing was written down
            raise
        except BaseException as error:
            await carried_through(self._undo(caller.tenant_id, file, is_in_doubt=_is_in_doubt(error)))
            raise

    async def show(self, tenant_id: str, file: StoredFile) -> None:
        """Let a file be seen that was kept.

        Raises:
            StorageUnavailableError: it cannot, or was swept meanwhile.
        """
        if not await self.files.make_ready(tenant_id, file):
            raise StorageUnavailableError("Storing the file took too long; send it again.", storage="file storage")

    async def discard(self, tenant_id: str, user_id: str, key: str) -> None:
        """Take away what was kept, whether it is shown already or not; nothing where it is gone.

        Raises:
            StorageUnavailableError: it may be hidden by now; `SweepFiles` ends the work.
        """
        is_hidden = await self.files.give_up(tenant_id, user_id, key)
        if not is_hidden and await self.files.hide(tenant_id, key, user_id=user_id) is None:
            return
        await self.blobs.delete(key)
        await self.files.forget(tenant_id, user_id, key)

    async def _store(self, file: StoredFile, upload: Upload) -> StoredFile:
        beginning = b""

        async def content() -> AsyncIterator[bytes]:
            nonlocal beginning
            left = file.size
            async for piece in upload.read():
                beginning += piece[: SNIFFED_BYTES - len(beginning)]
                left -= len(piece)
                if left < 0:
                    raise _changed()
                yield piece
            if left:
                raise _changed()

        blob = await self.blobs.put(file.key, content(), max_bytes=file.size)
        return replace(file, sha256=blob.sha256, content_type=media_type_of(beginning))

    async def _undo(self, tenant_id: str, file: StoredFile, *, is_in_doubt: bool) -> None:
        with suppress(StorageUnavailableError):  # then `SweepFiles` does it
            await self.blobs.delete(file.key)
            if not is_in_doubt:  # else the bytes may come yet, and `SweepFiles` has to know of them
                await self.files.forget(tenant_id, file.user_id, file.key)


def _is_in_doubt(error: BaseException | None) -> bool:
    """Whether bytes may come yet, also where the doubt is behind a cancellation that came meanwhile."""
    while error is not None:
        if isinstance(error, StorageUnavailableError) and error.is_in_doubt:
            return True
        error = error.__cause__ or error.__context__
    return False


def _changed() -> InvalidRequestError:
    return InvalidRequestError("The file is not as long as was said: it changes while it is read. Send a copy of it.")


@dataclass(frozen=True, slots=True)
class UploadFile:
    """Keep a file that comes without a turn, and counts as one in its user's rate limit."""

    admit: AdmitUpload
    store: StoreFile

    async def __call__(
        self,
        caller: Caller,
        upload: Upload,
        *,
        user_id: str | None = None,
        allowance: Allowance | None = None,
        purpose: Purpose = "user_data",
    ) -> StoredFile:
        """
        Args:
            user_id: whose it is; left out, a new user's.
            allowance: what is left of the user's rate limit, where the upload has been counted already.
            purpose: what it is uploaded for.
        Raises:
            TextLLMError: what `AdmitUpload` and `StoreFile` raise.
        """
        user = caller.acts_for(user_id)
        if allowance is None:
            await self.admit(caller, user)
        return await self.store(caller, upload, user_id=user, purpose=purpose)


@dataclass(frozen=True, slots=True)
class GetFile:
    """One file by its key."""

    files: FileRepository

    async def __call__(self, caller: Caller, key: str) -> StoredFile:
        """
        Raises:
            StoredFileNotFoundError: not the caller's, or unknown.
        """
        file = await self.files.get(caller.tenant_id, key, user_id=caller.user_id)
        if file is None:
            raise StoredFileNotFoundError
        return file

    async def all(self, caller: Caller, keys: Sequence[str]) -> Mapping[str, StoredFile]:
        """Those that are the caller's, by their keys.

        Raises:
            StorageUnavailableError: the storage does not answer.
        """
        return await self.files.find(caller.tenant_id, keys, user_id=caller.user_id) if keys else {}


@dataclass(frozen=True, slots=True)
class ListFiles:
    """The files of a folder, newest first unless they are asked for otherwise."""

    files: FileRepository

    async def __call__(
        self,
        caller: Caller,
        *,
        user_id: str | None = None,
        folder: Folder = "uploads",
        limit: int = 100,
        after: str | None = None,
        purpose: Purpose | None = None,
        oldest_first: bool = False,
    ) -> FilePage:
        """
        Args:
            user_id: left out, of all users that the caller acts for.
            limit: 1 to 1000.
            after: the key of the last file of the page before.
            purpose: what they were uploaded for; None: anything.
        Raises:
            InvalidRequestError: `limit` is not in its range, `after` names no file, or `user_id` is malformed.
            NotFoundError: the caller may not act for the user.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise InvalidRequestError.of("limit", f"must be a whole number from 1 to {MAX_LISTED}")
        last = None
        if after is not None:
            try:
                last = await GetFile(self.files)(caller, after)
            except StoredFileNotFoundError as error:
                raise InvalidRequestError.of("after", "names no file; begin again without it") from error
        found = await self.files.newest(
            caller.tenant_id,
            user_id=caller.acts_for(user_id),
            folder=folder,
            limit=limit + 1,
            after=last,
            purpose=purpose,
            oldest_first=oldest_first,
        )
        return FilePage(found[:limit], len(found) > limit)


@dataclass(frozen=True, slots=True)
class ReadFile:
    """The bytes of a file."""

    blobs: BlobStore

    async def __call__(
        self, file: StoredFile, *, first: int = 0, last: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Those from `first` to `last`, both included, in pieces of at most 1 MiB.

        Args:
            file: as `GetFile` gave it.
        Raises:
            StoredFileNotFoundError: it was deleted meanwhile, or the storage has lost it.
            StorageUnavailableError: the storage does not answer, or has fewer bytes or more.
        """
        left = (file.size if last is None else min(last + 1, file.size)) - first
        async with aclosing(self.blobs.get(file.key, first=first, last=last)) as pieces:
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise _damaged()
                yield piece
        if left > 0:
            raise _damaged()

    async def check(self, file: StoredFile) -> None:
        """See, without reading them, that its bytes are there, as many as there should be; raises as reading does."""
        if await self.blobs.size(file.key) != file.size:
            raise _damaged()


def _damaged() -> StorageUnavailableError:
    return StorageUnavailableError("The file storage does not hold the file as it was stored.", storage="file storage")


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """Delete a file; what a failure leaves half done, a repeat or the sweeper ends."""

    files: FileRepository
    blobs: BlobStore

    async def __call__(self, caller: Caller, key: str) -> None:
        """
        Raises:
            StoredFileNotFoundError: not the caller's, unknown, or gone already.
            StorageUnavailableError: it may be hidden by now; the same call ends the work.
        """
        file = await self.files.hide(caller.tenant_id, key, user_id=caller.user_id)
        if file is None:
            raise StoredFileNotFoundError
        await self.blobs.delete(key)
        await self.files.forget(caller.tenant_id, file.user_id, key)
