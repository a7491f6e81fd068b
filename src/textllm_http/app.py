"""The HTTP application: routes, hooks and lifespan. It is handed an opener, and names no adapter."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Final

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from textllm_core.application import TextLLM
from textllm_core.errors import ServiceUnavailableError, StorageUnavailableError, TextLLMError
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.reconcile import RECOVER_EVERY_S
from textllm_core.steps import UNTRACED
from textllm_http.concurrency import ConcurrencyLimit
from textllm_http.download import MAX_DOWNLOADS
from textllm_http.entrance import Entrance
from textllm_http.middleware import ResponseHeaders
from textllm_http.observing import observed
from textllm_http.openai_door.routes import DOOR
from textllm_http.problems import trace_of
from textllm_http.refusals import respond
from textllm_http.requests import refuse_query
from textllm_http.routes import chat, chat_files, conversations, docs, files, keys, operations, sessions, usage
from textllm_http.services import MAX_IMPORTS, Models, Services
from textllm_http.short_way import ShortWay
from textllm_http.spool import Spool
from textllm_http.unknown_keys import UnknownKeyLimit
from textllm_http.worker_state import WorkerState

EXPIRE_EVERY_S: Final = 20.0  # how often a worker asks whether it is its turn; each minute one of them does it
ERASE_EVERY_S: Final = 30.0  # what was erased here is gone at the provider within a minute
SWEEP_EVERY_S: Final = 600.0  # files that a dead process left; they only cost space
_NO_MODELS: Final = Models()
_ASKED_ALL_THE_TIME: Final = ("/chat", "/chat/stream", "/v1/chat/completions", "/v1/responses")
_BODY_BYTES_BESIDE_MESSAGE: Final = 256 * 1024
_TEXT_BYTES_BESIDE_MESSAGE: Final = 1024
_MAX_BYTES_PER_CHARACTER: Final = 4

_logger: Final = logging.getLogger("textllm")


class Application:
    """What a server calls, in one process: the routes, and what is around them.

    Args:
        handler: answers a request whose `state` has the services.
        opened: what they stand on, from the start to the stop.
    """

    services: Services

    def __init__(self, handler: ASGIApp, opened: Callable[[], AbstractAsyncContextManager[Services]]) -> None:
        self._handler, self._opened = handler, opened

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Services]:
        """Start; stop when the block ends."""
        async with self._opened() as self.services:
            yield self.services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"services": self.services}
        await self._handler(scope, receive, send)


@cache
def routes() -> Litestar:
    """All routes. They keep nothing from one request to the next, so that applications share them."""
    return Litestar(
        [
            chat.chat,
            chat.chat_stream,
            chat.resume,
            chat.cancel,
            chat_files.chat_image,
            chat_files.chat_file,
            conversations.create,
            conversations.import_one,
            conversations.listed,
            conversations.conversation,
            conversations.change,
            conversations.remove,
            conversations.restore,
            conversations.summarize,
            conversations.messages,
            sessions.session,
            sessions.end,
            sessions.of_user,
            usage.stats_of_all,
            usage.stats,
            usage.stats_of_conversations,
            files.upload,
            files.list_files,
            files.delete,
            files.file_or_content,
            keys.issue,
            keys.list_,
            keys.revoke,
            *DOOR,
            operations.health,
            operations.live,
            operations.ready,
            operations.config,
            operations.metrics,
            docs.openapi,
            docs.docs,
            docs.redoc,
            docs.asset,
            docs.start,
            docs.problem,
        ],
        before_request=refuse_query,
        exception_handlers={TextLLMError: respond, HTTPException: respond, Exception: respond},
        request_max_body_size=None,  # ours is checked where a body is read
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def create_app(
    opener: Callable[[], AbstractAsyncContextManager[TextLLM]],
    *,
    public_config: Mapping[str, object],
    max_input_chars: int,
    max_file_bytes: int,
    body_timeout_s: float,
    spool_dir: Path,
    requires_keys: bool,
    asks_openai: bool,
    telemetry: Telemetry,
    metrics: Callable[[], bytes],
    models: Models = _NO_MODELS,
    providers: Sequence[str] = (),
    operator_token: str | None = None,
    tracer: Tracer = UNTRACED,
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
    recover_every_s: float = RECOVER_EVERY_S,
) -> Application:
    """The application of one process.

    Args:
        opener: opens TextLLM once, when the server starts, and closes it when the server stops.
        public_config: what `/config` shows; no secrets.
        max_input_chars: the longest message; it bounds what is read of a body.
        max_file_bytes: of one file; it bounds what is read of a form.
        body_timeout_s: until a JSON body is there, and at most between two pieces of a form.
        spool_dir: where files wait while they come in; the health report is about the disk that it is on.
        requires_keys: False lets everyone in, as a service of the tenant `default`.
        asks_openai: the model is OpenAI's or of a server with its API, for the health report.
        telemetry: is told of each request that was answered.
        metrics: what `/metrics` shows, in Prometheus' text format; called in a thread.
        models: what can be asked, for `/v1/models`.
        providers: the names of all that answer, for the health report; none where they have no names.
        operator_token: what opens `/metrics` and `/config`, which are about all tenants; None: nobody where keys are
            required, and everybody where they are not.
        tracer: follows each request.
        cors_origins: exact origins whose pages may call the service.
        allowed_hosts: the names that requests may be for; none: any.
        trusted_proxies: addresses and networks of proxies that are believed where a request comes from.
        recover_every_s: how often it is looked for turns that a dead process left.
    """

    worker = WorkerState()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Services]:
        async with (
            opener() as textllm,
            _repeating(textllm.reconcile, recover_every_s, "abandoned exchanges wait to be settled"),
            _repeating(
                partial(textllm.remove_expired, scheduled=True), EXPIRE_EVERY_S, "what has expired waits to be removed"
            ),
            _repeating(textllm.files.sweep, SWEEP_EVERY_S, "abandoned files wait to be removed"),
            _repeating(
                textllm.conversations.erase_at_provider, ERASE_EVERY_S, "deleted conversations wait to be erased"
            ),
        ):
            yield Services(
                textllm,
                worker,
                requires_keys=requires_keys,
                operator_token=None if operator_token is None else operator_token.encode(),
                unknown_keys=UnknownKeyLimit(),
                max_body_bytes=_BODY_BYTES_BESIDE_MESSAGE + _MAX_BYTES_PER_CHARACTER * max_input_chars,
                max_text_bytes=_TEXT_BYTES_BESIDE_MESSAGE + _MAX_BYTES_PER_CHARACTER * max_input_chars,
                max_file_bytes=max_file_bytes,
                body_timeout_s=body_timeout_s,
                spool=Spool(spool_dir),
                downloads=ConcurrencyLimit(
                    MAX_DOWNLOADS, ServiceUnavailableError, "Too many files are being sent; ask again in a moment."
                ),
                imports=ConcurrencyLimit(
                    MAX_IMPORTS,
                    ServiceUnavailableError,
                    "Too many conversations are being imported; send this again in a moment.",
                ),
                models=models,
                public_config=public_config,
                metrics=metrics,
                asks_openai=asks_openai,
                providers=providers,
                data_dir=spool_dir.parent,
                started_at=monotonic(),
            )

    entrance = Entrance(
        ShortWay(routes(), _ASKED_ALL_THE_TIME), trusted_proxies=trusted_proxies, allowed_hosts=allowed_hosts
    )
    seen = observed(entrance, telemetry, tracer, worker.unanswered)
    return Application(ResponseHeaders(cors_origins, worker).around(seen), opened)


@asynccontextmanager
async def _repeating(work: Callable[[], Awaitable[object]], every_s: float, otherwise: str) -> AsyncIterator[None]:
    """End what a dead process left half done: now, and on an interval for as long as the block runs.

    Args:
        otherwise: what is the case while that does not work, for the log.
    """

    async def repeat() -> None:
        while True:
            try:
                await work()
            except StorageUnavailableError as error:
                _logger.warning("%s: the %s does not answer", otherwise, error.storage)
            except Exception as defect:  # noqa: BLE001 - it must not end the work for good
                _logger.error("%s: that failed\n%s", otherwise, trace_of(defect))
            await asyncio.sleep(every_s)

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        repeating.cancel()
        with suppress(asyncio.CancelledError):
            await repeating
