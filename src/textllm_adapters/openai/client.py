"""How a provider is reached: over plain connections for what each turn asks, else over aiohttp or the SDK."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol
from urllib.request import getproxies, proxy_bypass

import httpx2

from textllm_adapters.openai.bodies import Body
from textllm_adapters.openai.connections import Connections
from textllm_adapters.openai.provider import CONNECT_TIMEOUT_S, KEEP_ALIVE_S, MAX_CONNECTIONS, Provider
from textllm_core.ports.tracer import Tracer
from textllm_core.steps import UNTRACED

if TYPE_CHECKING:  # what is rare is loaded when it is needed, for it takes longer than all else that a turn needs
    from textllm_adapters.openai.sdk import Sdk
    from textllm_adapters.openai.session import Session

OPENAI_URL: Final = "https://api.openai.com/v1"
_SAME_BODY: Final = (307, 308)  # redirections behind which the same is to be asked
_SILENCE_MARGIN: Final = 1.1  # the exchange's own deadline comes first; this one only frees what it leaves behind
_PAYERS: Final = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
_NOT_TOLD: Final = ("x-stainless-", "authorization")  # what tells of this machine; and the key, which may change


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


@dataclass(slots=True)
class Client(Provider):
    """One provider, and the ways to it.

    Args:
        connections: for bodies that are at hand; None where that is to go through a proxy.
    """

    connections: Connections | None = None
    _session: Session | None = field(default=None, init=False)
    _sdk: Sdk | None = field(default=None, init=False)

    async def post(self, path: str, body: Body) -> Answer:
        """The answer to what a turn asks, whatever its status.

        Raises:
            Exception: there is none; those in `BROKEN_ANSWER`.
        """
        headers, content = self._now(), body.content
        if self.connections is not None and isinstance(content, bytes):
            answer = await self.connections.post(path, content, headers)
            if answer.status not in _SAME_BODY:  # of others a client would get what is there, and ask nothing
                return answer
            answer.close()  # the session follows it, wherever it leads
        return await (await self.session()).post(path, content, {**headers, **body.headers})

    async def fetch(self, path: str) -> Answer:
        """The answer to a turn that looks for a resource, whatever its status; errors as `post`."""
        headers = self._now()
        if self.connections is not None:
            answer = await self.connections.get(path, headers)
            if answer.status // 100 != 3:
                return answer
            answer.close()  # as above
        return await (await self.session()).get(path, headers)

    def _now(self) -> dict[str, str]:
        """The headers that are not the same for all calls."""
        return {**self.credentials(), **self.tracer.outgoing()}

    async def get(self, path: str, params: Mapping[str, object] | None = None) -> bytes | None:
        """The body of a resource, None where it does not exist.

        Raises:
            TextLLMError: the provider refused or did not answer.
        """
        return await (await self.sdk()).get(path, params)

    async def delete(self, path: str) -> bool:
        """Remove a resource; False: it does not exist, which is as good as removed.

        Raises:
            TextLLMError: the provider refused or did not answer.
        """
        return await (await self.sdk()).delete(path)

    async def session(self) -> Session:
        """The way of aiohttp."""
        if self._session is None:
            module = await asyncio.to_thread(import_module, "textllm_adapters.openai.session")  # turns go on meanwhile
            self._session = self._session or module.Session(self)
        return self._session

    async def sdk(self) -> Sdk:
        """The way of the SDK."""
        if self._sdk is None:
            module = await asyncio.to_thread(import_module, "textllm_adapters.openai.sdk")  # as above
            self._sdk = self._sdk or module.Sdk(self)
        return self._sdk

    async def close(self) -> None:
        """End all connections."""
        for way in (self.connections, self._session, self._sdk):
            if way is not None:
                await way.close()


@asynccontextmanager
async def open_client(
    api_key: str,
    base_url: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    key_header: str = "Authorization",
    silence_timeout_s: float = 60.0,
    tracer: Tracer = UNTRACED,
) -> AsyncIterator[Client]:
    """A client that repeats nothing by itself, closed on exit.

    Args:
        api_key: some servers need none; the SDK wants a text all the same.
        base_url: up to and including `/v1`; None is OpenAI's.
        headers: of every call; None: those that the SDK would take from the environment.
        key_header: as `Provider` has it.
        silence_timeout_s: how long the core waits for the next byte; the client waits a little longer.
        tracer: knows which step a request is part of; the request says so.
    """
    url = httpx2.URL(base_url or OPENAI_URL)
    client = Client(
        api_key,
        url,
        str(url).rstrip("/"),
        headers=standing_headers(os.environ) if headers is None else standing_headers({}) | dict(headers),
        silence_s=silence_timeout_s * _SILENCE_MARGIN,
        proxy=_proxy(url),
        tracer=tracer,
        connections=None,
        key_header=key_header,
    )
    if client.proxy is None:
        client.connections = Connections(
            url.raw_host.decode("ascii"),
            url.port or (443 if url.scheme == "https" else 80),
            certificates=client.certificates() if url.scheme == "https" else None,
            prefix=url.raw_path.decode("ascii").rstrip("/"),
            headers={"Host": url.netloc.decode("ascii", "replace"), "Accept-Encoding": "identity", **client.headers},
            most=MAX_CONNECTIONS,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            silence_timeout_s=client.silence_s,
            keep_s=KEEP_ALIVE_S,
        )
    try:
        yield client
    finally:
        await client.close()


def standing_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of the SDK's headers that are of use to an answer, by the variables that it reads them from."""
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": f"AsyncOpenAI/Python {_version_of_sdk()}",
    }
    headers |= {header: environ[variable] for header, variable in _PAYERS.items() if variable in environ}
    for line in environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return {name: value for name, value in headers.items() if not name.lower().startswith(_NOT_TOLD)}


@cache
def _version_of_sdk() -> str:
    return version("openai")  # which reads its whole description, in 9 ms


def _proxy(url: httpx2.URL) -> str | None:
    """The proxy that the environment names for `url`."""
    if proxy_bypass(url.netloc.decode("ascii", "replace")):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
