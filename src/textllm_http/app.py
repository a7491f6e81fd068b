"""The HTTP application: routes, hooks and lifespan. It is handed an opener, and names no adapter."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from textllm_core.application import TextLLM
from textllm_core.errors import StorageUnavailableError, TextLLMError
from textllm_http.middleware import ResponseHeaders
from textllm_http.problems import respond, trace_of
from textllm_http.requests import refuse_query
from textllm_http.routes import chat, conversations, operations, sessions, usage

RECONCILE_EVERY_S: Final = 30.0
_BODY_BYTES_BESIDE_MESSAGE: Final = 256 * 1024
_MAX_BYTES_PER_CHARACTER: Final = 4

_logger: Final = logging.getLogger("textllm")


def create_app(
    opener: Callable[[], AbstractAsyncContextManager[TextLLM]],
    *,
    public_config: Mapping[str, object],
    max_input_chars: int,
    cors_origins: Sequence[str] = (),
) -> Litestar:
    """The application of one process.

    Args:
        opener: opens TextLLM once, when the server starts, and closes it when the server stops.
        public_config: what `/config` shows; no secrets.
        max_input_chars: the longest message; it bounds what is read of a body.
        cors_origins: exact origins whose pages may call the service.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with (
            opener() as textllm,
            _repeating(textllm.reconcile, "abandoned exchanges", "to be settled"),
            _repeating(textllm.conversations.erase_at_provider, "deleted conversations", "to be erased"),
        ):
            app.state.textllm = textllm
            yield

    return Litestar(
        [
            chat.chat,
            chat.chat_stream,
            conversations.create,
            conversations.listed,
            conversations.conversation,
            conversations.change,
            conversations.remove,
            conversations.restore,
            conversations.messages,
            sessions.session,
            sessions.end,
            sessions.of_user,
            usage.stats,
            operations.live,
            operations.ready,
            operations.config,
        ],
        lifespan=[lifespan],
        before_request=refuse_query,
        before_send=[ResponseHeaders(cors_origins)],
        exception_handlers={TextLLMError: respond, HTTPException: respond, Exception: respond},
        state=State(
            {
                "public_config": public_config,
                "max_body_bytes": _BODY_BYTES_BESIDE_MESSAGE + _MAX_BYTES_PER_CHARACTER * max_input_chars,
            }
        ),
        request_max_body_size=None,  # ours is checked where a body is read
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


@asynccontextmanager
async def _repeating(work: Callable[[], Awaitable[int]], what: str, waits: str) -> AsyncIterator[None]:
    """Do what is left to be done: now, and on an interval for as long as the block runs."""

    async def repeat() -> None:
        while True:
            try:
                await work()
            except StorageUnavailableError:
                _logger.warning("%s wait %s: the storage does not answer", what, waits)
            except Exception as defect:  # noqa: BLE001 - it must not end the work for good
                _logger.error("%s still wait %s\n%s", what, waits, trace_of(defect))
            await asyncio.sleep(RECONCILE_EVERY_S)

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        repeating.cancel()
        with suppress(asyncio.CancelledError):
            await repeating
