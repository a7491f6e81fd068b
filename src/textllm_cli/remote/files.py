"""A server's files."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final
from urllib.parse import unquote

import msgspec

from textllm_cli.remote.client import Client, named
from textllm_cli.remote.turns import form_of
from textllm_core.file_links import FileView
from textllm_core.file_names import Folder
from textllm_core.records.files import FilePage, StoredFile
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload

# ruff: noqa: ARG002 - on a server it is the key that says who calls

_AT: Final = "files"
_NAMED: Final = re.compile(r"filename\*=UTF-8''(?P<encoded>[^;]+)|filename=\"(?P<plain>[^\"]*)\"(?!;)")
_NAME_AFTER: Final = 3  # YYYYMMDD_HHMMSS_random_name


class _FileList(msgspec.Struct):
    data: list[FileView]
    has_more: bool


class _Deleted(msgspec.Struct):
    key: str


class _LinkedFile(StoredFile, frozen=True, kw_only=True):
    """A file as a server shows it, with the link that it gave."""

    url: str

    @classmethod
    def of(cls, view: FileView, name: str | None = None) -> _LinkedFile:
        _, folder, user_id, stored_as = view.key.split("/", 3)
        return cls(
            key=view.key,
            user_id=user_id,
            folder=folder,  # type: ignore[arg-type]  # the server's word
            name=name or stored_as.split("_", _NAME_AFTER)[-1],
            content_type=view.content_type,
            size=view.size,
            sha256=view.sha256,
            created_at=view.created_at,
            url=view.url,
        )


class RemoteFiles:
    """A server's `Files`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def upload(self, caller: Caller, upload: Upload, *, user_id: str | None = None) -> StoredFile:
        content, headers = form_of({} if user_id is None else {"user_id": user_id}, [("file", upload)])
        view = await self._client.call("POST", named(_AT, "upload"), FileView, content=content, headers=headers)
        return _LinkedFile.of(view)

    async def list(
        self, caller: Caller, *, user_id: str | None = None, folder: Folder, limit: int, after: str | None = None
    ) -> FilePage:
        query = {"user_id": user_id, "folder": folder, "limit": limit, "after": after}
        page = await self._client.call("GET", named(_AT), _FileList, query=query)
        return FilePage([_LinkedFile.of(view) for view in page.data], page.has_more)

    async def get(self, caller: Caller, key: str) -> StoredFile:
        view = await self._client.get(named(_AT, key), FileView)
        async with self._client.open("HEAD", named(_AT, key, "content")) as answer:
            return _LinkedFile.of(view, _name_in(answer.headers.get("content-disposition", "")))

    async def read(self, file: StoredFile) -> AsyncGenerator[bytes, None]:
        async with self._client.open("GET", named(_AT, file.key, "content")) as answer:
            with self._client.told():
                pieces: AsyncIterator[bytes] = answer.aiter_raw()
                async for piece in pieces:
                    yield piece

    async def link(self, caller: Caller, file: StoredFile) -> str:
        assert isinstance(file, _LinkedFile)  # it came from here
        return file.url

    async def delete(self, caller: Caller, key: str) -> None:
        await self._client.call("DELETE", named(_AT, key), _Deleted)


def _name_in(disposition: str) -> str | None:
    """The name that a download is to have (RFC 6266)."""
    found = _NAMED.search(disposition)
    if found is None:
        return None
    return unquote(found["encoded"]) if found["encoded"] else found["plain"]
