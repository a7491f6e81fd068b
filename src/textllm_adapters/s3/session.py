"""HTTP to S3, without trust in what answers."""

from collections.abc import Coroutine
from typing import Any, Final

import aiohttp
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import BotoCoreError, HTTPClientError, ReadTimeoutError

_MOST_BYTES: Final = 8 * 1024 * 1024  # a page of a thousand uploads, each with the longest key, has half of that


class AnswerTooLongError(BotoCoreError):  # type: ignore[misc] # botocore has no types
    """An answer that is no object goes on and on."""

    fmt = "The answer is too long."


class SentElsewhereError(BotoCoreError):  # type: ignore[misc] # botocore has no types
    """A redirect to no region: botocore would ask the same again to learn it, and never end."""

    fmt = "The answer is a redirect."


class BoundedSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """Follows no redirect without end, and reads no answer without end; objects are left to who reads them."""

    async def send(self, request: Any) -> Any:
        is_streamed = request.stream_output
        request.stream_output = True  # leaves the body to us
        answer = await super().send(request)
        is_redirect = request.method == "HEAD" and answer.status_code in {301, 302, 307}
        if is_redirect and "x-amz-bucket-region" not in answer.headers:
            answer.raw.close()
            raise SentElsewhereError
        bounded = _BoundedAnswer(answer.url, answer.status_code, answer.headers, answer.raw)
        if not is_streamed:
            await bounded.content
        return bounded


class _BoundedAnswer(AioAWSResponse):  # type: ignore[misc] # aiobotocore has no types
    _whole: bytes | None = None

    @property
    def content(self) -> Coroutine[Any, Any, bytes]:
        return self._read()

    async def _read(self) -> bytes:
        if self._whole is None:
            try:
                self._whole = await _whole(self.raw)
            except TimeoutError as error:
                raise ReadTimeoutError(endpoint_url=self.url) from error
            except aiohttp.ClientError as error:
                raise HTTPClientError(error=error) from error
        return self._whole


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    try:
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _MOST_BYTES:
                raise AnswerTooLongError
    except BaseException:
        response.close()
        raise
    return bytes(body)
