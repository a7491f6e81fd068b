"""How a provider is reached: the SDK for its settings and what is rare, plain connections for what each turn asks."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from textllm_adapters.openai.bodies import Body
from textllm_adapters.openai.connections import Connections
from textllm_adapters.openai.errors import UNANSWERED, Asked, refusal, unanswered
from textllm_core.errors import TextLLMError
from textllm_core.ports.tracer import Tracer
from textllm_core.steps import UNTRACED

OPENAI_URL: Final = "https://api.openai.com/v1"
_CONNECT_TIMEOUT_S: Final = 5.0
_SILENCE_MARGIN: Final = 1.1  # the exchange's own deadline comes first; this one only frees what it leaves behind
_MAX_CONNECTIONS: Final = 10_000  # one for each reply under way; beyond it calls wait, and none runs
_KEEP_ALIVE_S: Final = 30.0
_READ_TIMEOUT_S: Final = 10.0
_READ_RETRIES: Final = 2
_NOT_TOLD: Final = ("x-stainless-", "authorization")
_FAILURES: Final[tuple[type[Exception], ...]] = (openai.APIStatusError, *UNANSWERED)


class Answer(Protocol):
    """An answer whose head has come, to something that a turn asks. Whoever has it closes it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in lower case."""

    @property
    def is_over(self) -> bool:
        """Whether all of it has come, and was taken."""

    async def read(self) -> bytes:
        """What has come since the last call, or what comes next; nothing at its end.

        What came before a break is read before that is raised: it was sent, is paid for, and may be all that is left.
        Raises:
            Exception: broken, as in `BROKEN_ANSWER`.
        """

    def close(self) -> None:
        """End the call, if it has not ended yet."""


class _SessionAnswer:
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
            return await content.readany()
        content.set_exception(cast("BaseException", None))  # it has no other way to what it keeps
        received = content.read_nowait()
        content.set_exception(broken)
        if not received:
            raise broken
        return received

    def close(self) -> None:
        self._answer.close()


@dataclass(frozen=True, slots=True)
class Client:
    """One provider.

    Args:
        sdk: knows its address and our key; asks for what is rare.
        session: sends what each turn asks, with the SDK's headers, timeouts, proxy and certificates.
        connections: in the place of `session` for bodies that are at hand; None where that is to go through a proxy.
        base_url: up to and including `/v1`.
        tracer: knows which step a request is part of; the request says so.
    """

    sdk: AsyncOpenAI
    session: aiohttp.ClientSession
    connections: Connections | None
    base_url: str
    tracer: Tracer

    async def post(self, path: str, body: Body) -> Answer:
        """The answer to what a turn asks, whatever its status.

        Raises:
            Exception: there is none; those in `UNANSWERED`.
        """
        headers, content = {**self.sdk.auth_headers, **self.tracer.outgoing()}, body.content
        if self.connections is not None and isinstance(content, bytes):
            answer = await self.connections.post(path, content, headers)
            if answer.status // 100 != 3:
                return answer
            answer.close()  # the session follows it, wherever it leads
        headers |= body.headers
        return _SessionAnswer(await self.session.post(self.base_url + path, data=content, headers=headers))


@asynccontextmanager
async def open_client(
    api_key: str, base_url: str | None = None, *, silence_timeout_s: float = 60.0, tracer: Tracer = UNTRACED
) -> AsyncIterator[Client]:
    """A client that repeats nothing by itself, closed on exit.

    Args:
        api_key: some servers need none; the SDK wants a text all the same.
        base_url: up to and including `/v1`; None is OpenAI's.
        silence_timeout_s: how long the core waits for the next byte; the client waits a little longer.
        tracer: knows which step a request is part of; the request says so.
    """

    async def tell_step(request: httpx2.Request) -> None:
        for name, value in tracer.outgoing().items():
            request.headers[name] = value

    silence_s = silence_timeout_s * _SILENCE_MARGIN
    timeout = httpx2.Timeout(silence_s, connect=_CONNECT_TIMEOUT_S)
    limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEP_ALIVE_S)
    certificates = httpx2.create_ssl_context()  # read once, for all ways
    http_client = DefaultAioHttpClient(
        timeout=timeout, limits=limits, verify=certificates, event_hooks={"request": [tell_step]}
    )
    async with (
        AsyncOpenAI(
            api_key=api_key, base_url=base_url or OPENAI_URL, timeout=timeout, max_retries=0, http_client=http_client
        ) as sdk,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=certificates, limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S),
            headers=_told(sdk.default_headers),
            timeout=aiohttp.ClientTimeout(connect=silence_s, sock_connect=_CONNECT_TIMEOUT_S, sock_read=silence_s),
            cookie_jar=aiohttp.DummyCookieJar(),  # users of one process share nothing at the provider
            proxy=(proxy := _proxy(sdk.base_url)),
        ) as session,
    ):
        url, host = sdk.base_url, sdk.base_url.netloc.decode("ascii", "replace")
        connections = None
        if proxy is None:
            connections = Connections(
                url.raw_host.decode("ascii"),
                url.port or (443 if url.scheme == "https" else 80),
                certificates=certificates if url.scheme == "https" else None,
                prefix=url.raw_path.decode("ascii").rstrip("/"),
                headers={"Host": host, "Accept-Encoding": "identity", **_told(sdk.default_headers)},
                most=_MAX_CONNECTIONS,
                connect_timeout_s=_CONNECT_TIMEOUT_S,
                silence_timeout_s=silence_s,
                keep_s=_KEEP_ALIVE_S,
            )
        try:
            yield Client(sdk, session, connections, str(url).rstrip("/"), tracer)
        finally:
            if connections is not None:
                await connections.close()


def _told(headers: Mapping[str, object]) -> dict[str, str]:
    """Those of the SDK's headers that are of use to an answer: not what tells of this machine. The key may change."""
    told = {name: value for name, value in headers.items() if not name.lower().startswith(_NOT_TOLD)}
    return {name: value for name, value in told.items() if isinstance(value, str)}  # the SDK marks what it omits


def _proxy(url: httpx2.URL) -> str | None:
    """The proxy that the environment names for `url`."""
    if proxy_bypass(url.netloc.decode("ascii", "replace")):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


async def delete(client: Client, path: str) -> None:
    """Remove a resource; one that does not exist is as good as removed.

    Raises:
        TextLLMError: the provider refused or did not answer.
    """
    try:
        answer = await client.sdk.delete(
            path, cast_to=httpx2.Response, options={"max_retries": _READ_RETRIES, "timeout": _READ_TIMEOUT_S}
        )
        await answer.aread()
    except openai.NotFoundError:
        return
    except _FAILURES as failure:
        raise _meant(failure, Asked.of(client.base_url, path)) from None


async def get(client: Client, path: str, params: Mapping[str, object] | None = None) -> bytes | None:
    """The body of a resource, None where it does not exist.

    Raises:
        ModelError: the provider refused or did not answer.
    """
    try:
        answer = await client.sdk.get(
            path,
            cast_to=httpx2.Response,
            options={"params": params or {}, "max_retries": _READ_RETRIES, "timeout": _READ_TIMEOUT_S},
        )
        return await answer.aread()
    except openai.NotFoundError:
        return None
    except _FAILURES as failure:
        raise _meant(failure, Asked.of(client.base_url, path)) from None


def _meant(failure: Exception, asked: Asked) -> TextLLMError:
    """What a failure of the SDK's means to us."""
    if not isinstance(failure, openai.APIStatusError):
        return unanswered(failure, asked)
    try:
        body = failure.response.content
    except httpx2.ResponseNotRead:  # the SDK reads it, as long as the connection lasts
        body = b""
    return refusal(failure.status_code, failure.response.headers, body, asked)
