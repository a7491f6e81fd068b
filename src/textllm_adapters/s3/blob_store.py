"""Bytes in a bucket of Amazon S3, or of a service with its API.

What is sent is signed with its SHA-256, so that the service refuses what was damaged on its way; checksums beyond
that are left out, because not every service knows them.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any, Final, TypeVar

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from textllm_adapters.s3.errors import S3_ERRORS, code_of, status_of, told
from textllm_adapters.s3.session import BoundedSession
from textllm_adapters.translation import translated
from textllm_core.cancellation import carried_through
from textllm_core.errors import (
    ConfigurationError,
    FileTooLargeError,
    StorageUnavailableError,
    StoredFileNotFoundError,
)
from textllm_core.file_names import as_attachment
from textllm_core.ports.blob_store import StoredBlob, is_key

_PIECE_BYTES: Final = 64 * 1024  # as many as wait for a client that does not read are held for it
_PART_BYTES: Final = 5 * 1024 * 1024  # the least that S3 takes; all but the last are alike, as some services demand
_PUTS_AT_ONCE: Final = 8  # each holds a part in memory
_CONNECT_S: Final = 3  # a lost packet is sent again after 1 s; it is tried three times
_LOOK_S: Final = 3  # at the start; a store that is slower than that then may be ready later, and is asked again
_METADATA: Final = "textllm-put"

_T = TypeVar("_T")


@asynccontextmanager
async def open_blob_store(
    *,
    bucket: str,
    prefix: str,
    region: str,
    endpoint: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
    timeout_s: float = 10.0,
) -> AsyncIterator["S3BlobStore"]:
    """The store in `bucket`, which must be there; where nothing answers yet, the store is opened all the same.

    It needs the rights s3:ListBucket, s3:ListBucketMultipartUploads, s3:GetObject, s3:PutObject, s3:DeleteObject and
    s3:AbortMultipartUpload.

    Args:
        prefix: what all keys begin with; `sweep` leaves everything else in the bucket alone.
        endpoint: the URL of a service other than Amazon's; the bucket is then named in the path.
        access_key, secret_key, session_token: None: the usual places are searched for credentials.
        timeout_s: how long to wait for an answer, retries included; for one to content, three times as long.
    Raises:
        ConfigurationError: there is no such bucket, or the credentials are refused; the text says what to do.
    """
    config = AioConfig(
        signature_version="s3v4",
        s3={"payload_signing_enabled": True} | ({"addressing_style": "path"} if endpoint else {}),
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=_CONNECT_S,
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": 3},
        http_session_cls=BoundedSession,
        max_pool_connections=512,  # whoever reads slowly holds one: more than are let in at a time
    )
    async with AsyncExitStack() as stack:
        try:
            session = aioboto3.Session(access_key, secret_key, session_token, region)
            client = await stack.enter_async_context(session.client("s3", endpoint_url=endpoint, config=config))
            async with asyncio.timeout(_LOOK_S):
                await client.head_bucket(Bucket=bucket)
        except ClientError as error:
            _refuse_configuration(bucket, status_of(error), error)
        except (NoConnectionError, HTTPClientError, OSError):
            pass  # an outage, which the health probe reports and which ends without us
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(
                f"S3 cannot be used ({type(error).__name__}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
                "check S3_ENDPOINT."
            ) from error
        yield S3BlobStore(client, bucket, prefix, timeout_s)


@dataclass(frozen=True, slots=True)
class S3BlobStore:
    """A `BlobStore` in a bucket. Some puts go on at once, and the others wait, so that memory stays bounded.

    A request of a put is always seen to its end: what one did that was broken off, nobody knows.
    A taken key is refused as strictly as the service does: Swift lets several puts of one key through at once.
    """

    client: Any
    bucket: str
    prefix: str
    timeout_s: float
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PUTS_AT_ONCE), init=False)

    async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:
        if not is_key(key):
            raise ValueError("not a key")
        size, digest = 0, hashlib.sha256()
        async with self._slot():
            upload, part = _Upload(self, key), BytesIO()
            try:
                async for piece in content:
                    size += len(piece)
                    if size > max_bytes:
                        raise FileTooLargeError(limit=max_bytes)
                    rest = memoryview(piece)
                    while rest:
                        room = _PART_BYTES - part.tell()
                        part.write(rest[:room])
                        rest = rest[room:]
                        if part.tell() == _PART_BYTES:
                            await asyncio.to_thread(digest.update, part.getbuffer())
                            await carried_through(upload.send(part))
                            part = BytesIO()
                await asyncio.to_thread(digest.update, part.getbuffer())
                await carried_through(upload.publish(part))
            except BaseException:
                await carried_through(upload.undo())
                raise
        return StoredBlob(size=size, sha256=digest.hexdigest())

    async def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        if first == 0 and last is None:
            asked = {}
        elif last is None:
            asked = {"Range": f"bytes={first}-"}
        elif last >= first:
            asked = {"Range": f"bytes={first}-{last}"}
        else:  # which S3 would take for no range at all
            await self.size(key)
            return
        body = await self._open(key, asked)
        if body is None:
            return
        try:
            while True:
                with translated(S3_ERRORS):
                    piece: bytes = await body.read(_PIECE_BYTES)
                if not piece:
                    return
                yield piece
        finally:
            body.close()

    async def size(self, key: str) -> int:
        try:
            return int(told(await self.head(key), "ContentLength"))
        except StoredFileNotFoundError:
            await self.ask(self.client.head_bucket)  # a bucket that is gone says nothing about a file
            raise

    async def delete(self, key: str) -> None:
        if is_key(key):
            await self.ask(self.client.delete_object, Key=key)

    async def link(self, key: str, *, expires_in_s: int, name: str, media_type: str) -> str | None:
        params = {
            "Bucket": self.bucket,
            "Key": key,
            "ResponseContentDisposition": as_attachment(name),
            "ResponseContentType": media_type,
        }
        await asyncio.sleep(0)  # signing takes a while and waits for nothing: others have their turn before each
        with translated(S3_ERRORS):
            return str(await self.client.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_in_s))

    async def sweep(self, *, before: datetime) -> int:
        swept = 0
        paginator = self.client.get_paginator("list_multipart_uploads")
        pages = aiter(paginator.paginate(Bucket=self.bucket, Prefix=self.prefix))
        with translated(S3_ERRORS):
            while (page := await self._next_of(pages)) is not None:
                for upload in page.get("Uploads", ()):
                    if told(upload, "Initiated") < before:
                        swept += await self.abort(told(upload, "Key"), told(upload, "UploadId"))
        return swept

    async def ask(self, call: Callable[..., Awaitable[_T]], *, timeout_s: float | None = None, **arguments: Any) -> _T:
        """One request about the bucket. Raises what `S3_ERRORS` makes of its failure."""
        with translated(S3_ERRORS):
            async with asyncio.timeout(timeout_s or self.timeout_s):
                return await call(Bucket=self.bucket, **arguments)

    async def head(self, key: str) -> dict[str, Any]:
        """What S3 knows of the object."""
        if not is_key(key):
            raise StoredFileNotFoundError
        return dict(await self.ask(self.client.head_object, Key=key))

    async def abort(self, key: str, upload_id: str) -> bool:
        """Undo a multipart upload; False where someone else has."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            return False
        return True

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A place among the puts at once, unless those before do not end."""
        with translated(S3_ERRORS):
            async with asyncio.timeout(6 * self.timeout_s):
                await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _next_of(self, pages: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
        async with asyncio.timeout(self.timeout_s):
            return await anext(pages, None)

    async def _open(self, key: str, asked: dict[str, str]) -> Any:
        """The body of the object; None where it ends before what is asked for."""
        if not is_key(key):
            raise StoredFileNotFoundError
        with translated(S3_ERRORS):
            try:
                async with asyncio.timeout(self.timeout_s):
                    answer = await self.client.get_object(Bucket=self.bucket, Key=key, **asked)
            except ClientError as error:
                if code_of(error) != "InvalidRange":
                    raise
                return None
        return answer["Body"]


@dataclass(slots=True)
class _Upload:
    """One put on its way: a multipart upload from its first whole part on, a single request below that."""

    store: S3BlobStore
    key: str
    upload_id: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    is_published: bool = False
    metadata: dict[str, str] = field(default_factory=lambda: {_METADATA: secrets.token_hex(16)})

    async def send(self, part: BytesIO) -> None:
        client = self.store.client
        if self.upload_id is None:
            begun = await self.store.ask(client.create_multipart_upload, Key=self.key, Metadata=self.metadata)
            self.upload_id = str(told(begun, "UploadId"))
        which = {"Key": self.key, "UploadId": self.upload_id, "PartNumber": len(self.parts) + 1}
        sent = await self._transfer(client.upload_part, Body=_from_start(part), **which)
        self.parts.append({"PartNumber": which["PartNumber"], "ETag": told(sent, "ETag")})

    async def publish(self, rest: BytesIO) -> None:
        """Let the key have all that was sent, and `rest`."""
        client = self.store.client
        if self.upload_id is not None and rest.tell():
            await self.send(rest)
        self.is_published = True
        try:
            if self.upload_id is None:
                which = {"Key": self.key, "Body": _from_start(rest), "Metadata": self.metadata}
                answer = await self._transfer(client.put_object, IfNoneMatch="*", **which)
            else:
                which = {"Key": self.key, "UploadId": self.upload_id, "MultipartUpload": {"Parts": self.parts}}
                answer = await self._transfer(client.complete_multipart_upload, IfNoneMatch="*", **which)
            told(answer, "ETag")
        except (ValueError, StorageUnavailableError) as error:
            try:
                if await self._is_there():  # the answer was lost, and what repeated the request was refused
                    return
                is_in_doubt = self.upload_id is None and not isinstance(error.__cause__, ClientError)
            except StorageUnavailableError:
                is_in_doubt = True
            if is_in_doubt:  # it has the bytes, and may be slow
                raise StorageUnavailableError.of_files(is_in_doubt=True) from error
            raise

    async def undo(self) -> None:
        """Leave nothing of it; where nothing answers, `sweep` has the rest to do."""
        with suppress(StorageUnavailableError), translated(S3_ERRORS):
            if self.upload_id is not None:
                await self.store.abort(self.key, self.upload_id)
            if self.is_published and await self._is_there():
                await self.store.delete(self.key)

    async def _is_there(self) -> bool:
        """Whether the key holds what this upload, and no other, has stored."""
        try:
            stored = (await self.store.head(self.key))["Metadata"]
        except StoredFileNotFoundError:
            return False
        return bool(stored.get(_METADATA) == self.metadata[_METADATA])

    async def _transfer(self, call: Callable[..., Awaitable[_T]], **arguments: Any) -> _T:
        return await self.store.ask(call, timeout_s=3 * self.store.timeout_s, **arguments)


def _from_start(part: BytesIO) -> BytesIO:
    part.seek(0)
    return part


def _refuse_configuration(bucket: str, status: int, error: ClientError) -> None:
    if status == 404:
        raise ConfigurationError(
            f"S3 has no bucket {bucket!r}: create it, or check S3_BUCKET and S3_ENDPOINT."
        ) from error
    if status in {401, 403}:
        raise ConfigurationError(
            f"S3 refuses the credentials for the bucket {bucket!r}: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "that they allow s3:ListBucket."
        ) from error
    if status < 500:
        raise ConfigurationError(
            f"S3 answers {status} for the bucket {bucket!r}: check AWS_REGION, S3_BUCKET and S3_ENDPOINT."
        ) from error
