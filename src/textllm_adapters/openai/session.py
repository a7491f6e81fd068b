"""What our own connections leave to a client of all of HTTP: proxies, redirections, bodies read on their way."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import aiohttp

from textllm_adapters.openai.connections import BrokenAnswerError, SilenceError, UnreachableError
from textllm_adapters.openai.errors import causes_of
from textllm_adapters.openai.provider import CONNECT_TIMEOUT_S, KEEP_ALIVE_S, MAX_CONNECTIONS, Provider


class Session:
    """A provider, asked over aiohttp, with the SDK's headers, timeouts, proxy and certificates."""

    def __init__(self, provider: Provider) -> None:
        self._base_url = provider.base_url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=provider.certificates(), limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S
            ),
            headers=provider.headers,
            timeout=aiohttp.ClientTimeout(
                connect=provider.silence_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=provider.silence_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),  # users of one process share nothing at the provider
            proxy=provider.proxy,
        )

    async def post(self, path: str, content: bytes | AsyncIterable[bytes], headers: Mapping[str, str]) -> _Answer:
        """The answer, once its head is there.

        Raises:
            OSError: as `Connections.post`.
        """
        with _as_ours():
            return _Answer(await self._session.post(self._base_url + path, data=content, headers=headers))

    async def get(self, path: str, headers: Mapping[str, str]) -> _Answer:
        """As `post`, without a body."""
        with _as_ours():
            return _Answer(await self._session.get(self._base_url + path, headers=headers))

    async def close(self) -> None:
        """End its connections."""
        await self._session.close()


class _Answer:
    """An `Answer` of aiohttp's."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status: int = answer.status
        self.headers: Mapping[str, str] = answer.headers  # which is asked for in any case

    @property
    def is_over(self) -> bool:
        return self._answer.content.at_eof()

    async def read(self) -> bytes:
        """Where the connection has broken meanwhile, aiohttp tells that alone, and keeps back what came before."""
        content = self._answer.content
        broken = content.exception()
        if broken is None:
            with _as_ours():
                return await content.readany()
        content.set_exception(cast("BaseException", None))  # it has no other way to what it keeps
        received = content.read_nowait()
        content.set_exception(broken)
        if not received:
            with _as_ours():
                raise broken
        return received

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _as_ours() -> Iterator[None]:
    """What aiohttp raises becomes what our own connections would."""
    try:
        yield
    except aiohttp.ClientError as failure:
        raise _ours(failure) from None  # some of them show the key


def _ours(failure: aiohttp.ClientError) -> OSError:
    causes = causes_of(failure)
    if any(isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) for cause in causes):
        return UnreachableError("There is no connection.")
    if any(isinstance(cause, aiohttp.SocketTimeoutError) for cause in causes):
        return SilenceError("Nothing came for too long.")
    return BrokenAnswerError("The connection broke.")
