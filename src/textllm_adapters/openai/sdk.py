"""What is rare goes through the SDK. It is imported here alone: it takes as long to load as all that a turn needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
import anyio
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from textllm_adapters.openai.connections import SilenceError, UnreachableError
from textllm_adapters.openai.errors import BROKEN_ANSWER, Asked, causes_of, refusal, unanswered
from textllm_adapters.openai.provider import CONNECT_TIMEOUT_S, KEEP_ALIVE_S, MAX_CONNECTIONS, Provider
from textllm_core.errors import TextLLMError

_TIMEOUT_S: Final = 10.0  # for what is a small look-up to the provider; with its retries half a minute
_RETRIES: Final = 2
# What the SDK raises. It lets some failures of its transport pass as they are: among them one whose repr shows the
# request's headers, and so the key.
_FAILURES: Final[tuple[type[Exception], ...]] = (
    openai.APIStatusError,
    openai.APIConnectionError,
    httpx2.HTTPError,
    aiohttp.ClientError,
    anyio.EndOfStream,
    *BROKEN_ANSWER,
)
_NOT_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_PERHAPS_NOT_CONNECTED: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_SILENCE: Final = (aiohttp.SocketTimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout)


class Sdk:
    """A provider, asked by the SDK, which tries again by itself.

    Attributes:
        openai: repeats nothing, unless it is asked to.
    """

    def __init__(self, provider: Provider) -> None:
        async def api_key() -> str:
            return provider.api_key

        async def tell_step(request: httpx2.Request) -> None:
            for name, value in provider.tracer.outgoing().items():
                request.headers[name] = value

        timeout = httpx2.Timeout(provider.silence_s, connect=CONNECT_TIMEOUT_S)
        self._base_url = provider.base_url
        self.openai = AsyncOpenAI(
            api_key=api_key,
            base_url=provider.url,
            timeout=timeout,
            max_retries=0,
            default_headers=dict(provider.headers),
            http_client=DefaultAioHttpClient(
                timeout=timeout,
                limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S),
                verify=provider.certificates(),
                event_hooks={"request": [tell_step]},
            ),
        )

    async def close(self) -> None:
        """End its connections."""
        await self.openai.close()

    async def delete(self, path: str) -> bool:
        """Remove a resource; False: it does not exist, which is as good as removed.

        Raises:
            TextLLMError: the provider refused or did not answer.
        """
        try:
            answer = await self.openai.delete(
                path, cast_to=httpx2.Response, options={"max_retries": _RETRIES, "timeout": _TIMEOUT_S}
            )
            await answer.aread()
        except openai.NotFoundError:
            return False
        except _FAILURES as failure:
            raise _meant(failure, Asked.of(self._base_url, path)) from None
        return True

    async def get(self, path: str, params: Mapping[str, object] | None = None) -> bytes | None:
        """The body of a resource, None where it does not exist.

        Raises:
            TextLLMError: the provider refused or did not answer.
        """
        try:
            answer = await self.openai.get(
                path,
                cast_to=httpx2.Response,
                options={"params": params or {}, "max_retries": _RETRIES, "timeout": _TIMEOUT_S},
            )
            return await answer.aread()
        except openai.NotFoundError:
            return None
        except _FAILURES as failure:
            raise _meant(failure, Asked.of(self._base_url, path)) from None


def _meant(failure: Exception, asked: Asked) -> TextLLMError:
    """What a failure of the SDK's means to us."""
    if not isinstance(failure, openai.APIStatusError):
        return unanswered(_ours(failure), asked)
    try:
        body = failure.response.content
    except httpx2.ResponseNotRead:  # the SDK reads it, as long as the connection lasts
        body = b""
    return refusal(failure.status_code, failure.response.headers, body, asked)


def _ours(failure: Exception) -> Exception:
    """What our own connections would raise."""
    causes = causes_of(failure)

    def is_one_of(*kinds: type[Exception]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    # To the SDK a lost connection is a connect timeout, too: then aiohttp knows better.
    if is_one_of(*_NOT_CONNECTED) or (is_one_of(*_PERHAPS_NOT_CONNECTED) and not is_one_of(aiohttp.ClientError)):
        return UnreachableError("There is no connection.")
    return SilenceError("Nothing came for too long.") if is_one_of(*_SILENCE) else failure
