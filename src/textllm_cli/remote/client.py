"""Calls of a server's REST API."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from textllm_cli.remote.problems import error_of
from textllm_core.errors import (
    ConfigurationError,
    NotFoundError,
    ServiceUnavailableError,
    TextLLMError,
    UnauthenticatedError,
)
from textllm_core.texts import well_formed
from textllm_core.wire import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textllm_adapters.settings import Settings

T = TypeVar("T")

_CONNECT_TIMEOUT_S: Final = 10.0  # across the world, with packets lost on the way; a person waits no longer
# Streams have a comment each 15 s. What is answered as a whole, such as a summary, may take as long as a model may.
_SILENCE_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Client:
    """One server.

    Args:
        url: its address, without a slash at the end.
    """

    url: str
    http: httpx2.AsyncClient

    async def get(self, path: str, kind: type[T], **query: object) -> T:
        """What there is at a path. All calls raise the error that the server tells of, or ServiceUnavailableError."""
        return await self.call("GET", path, kind, query=query)

    async def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        also: Sequence[int] = (),
    ) -> T:
        """The answer to a call, as the record that it is the shape of.

        Args:
            query: what is None is left out.
            body: a record, sent as JSON; `content`: a body itself, of the type that `headers` names.
            also: statuses that are no refusals here.
        """
        async with self.open(
            method, path, query=query, body=body, content=content, headers=headers, also=also
        ) as answer:
            with self.told():
                said = await answer.aread()
        try:
            return msgspec.json.decode(said, type=kind)
        except msgspec.DecodeError as error:
            raise self._stranger(answer.status_code) from error

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        also: Sequence[int] = (),
    ) -> AsyncIterator[httpx2.Response]:
        """The answer to a call, unread, where it is no refusal."""
        sent = dict(headers or {})
        data: Any = content
        if body is not None:
            data, sent["Content-Type"] = to_json(body), "application/json"
        request = self.http.build_request(method, self.url + path, params=_shown(query), content=data, headers=sent)
        with self.told():
            answer = await self.http.send(request, stream=True)
        try:
            if not 200 <= answer.status_code < 300 and answer.status_code not in also:
                with self.told():
                    said = await answer.aread()
                error = error_of(said) or self._stranger(answer.status_code)
                error.is_replayed = is_replayed(answer)
                if isinstance(error, UnauthenticatedError):
                    error.add_note("Set TEXTLLM_API_KEY to a key of this server.")
                if answer.status_code in (404, 405) and self.url.endswith("/v1"):
                    error.add_note("Leave /v1 out of --server or TEXTLLM_SERVER: it is for clients of OpenAI's API.")
                raise error
            yield answer
        finally:
            await answer.aclose()

    @contextmanager
    def told(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise ServiceUnavailableError(f"The server at {self.url} cannot be reached.") from error
        except httpx2.TimeoutException as error:
            raise ServiceUnavailableError(f"The server at {self.url} does not answer.", is_in_doubt=True) from error
        except httpx2.HTTPError as error:
            raise self.broke() from error

    def broke(self) -> ServiceUnavailableError:
        """The connection ended in the midst of what the server had to say."""
        return ServiceUnavailableError(f"The connection to the server at {self.url} broke.", is_in_doubt=True)

    def _stranger(self, status: int) -> TextLLMError:
        return ServiceUnavailableError(
            f"What answered at {self.url} ({status}) is no TextLLM server of this version; check TEXTLLM_SERVER."
        )


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """A client of the server that the settings name.

    Raises:
        ConfigurationError: they name none.
    """
    if settings.server is None:
        raise ConfigurationError("TEXTLLM_SERVER: no server is named.")
    url = settings.server.rstrip("/")
    headers = {"Accept": "application/json"}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key.reveal()}"
    timeout = httpx2.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    # All certificates are loaded where one may be needed alone: it takes 20 ms.
    verify = httpx2.create_ssl_context() if url.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, verify=verify) as http:
        yield Client(url, http)


def is_replayed(answer: httpx2.Response) -> bool:
    """Whether it is what an earlier call with the same idempotency key ended in."""
    return answer.headers.get("idempotent-replayed") == "true"


def named(*path: str) -> str:
    """A path of these names, escaped.

    Raises:
        NotFoundError: nothing has one of them for its name: it is no text, or means a place relative to others.
    """
    if any(name in (".", "..") or name != well_formed(name) for name in path):
        raise NotFoundError
    return "".join(f"/{quote(name, safe='')}" for name in path)


def _shown(query: Mapping[str, object] | None) -> Mapping[str, str]:
    shown = {name: value for name, value in (query or {}).items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in shown.items()}
