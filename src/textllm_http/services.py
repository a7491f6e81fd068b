"""What handlers stand on: one record, complete when the application has started."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from litestar.connection import ASGIConnection

from textllm_core.application import TextLLM
from textllm_core.records.models import ListedModel, ModelList
from textllm_http.concurrency import ConcurrencyLimit
from textllm_http.spool import Spool
from textllm_http.unknown_keys import UnknownKeyLimit
from textllm_http.worker_state import WorkerState

MAX_IMPORTS: Final = 8  # each may have a file's bytes in memory, and the records that are read out of them
IMPORTS_OF_TENANT: Final = 4


@dataclass(frozen=True, slots=True)
class Models:
    """What `/v1/models` tells.

    Args:
        listed: to who may use all.
        find: a model that can be asked, by its name, listed or not; None: there is none.
    """

    listed: ModelList = field(default_factory=ModelList)
    find: Callable[[str], ListedModel | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Services:
    """
    Args:
        worker: what changes while the process serves.
        requires_keys: False lets everyone in, as a service of the tenant `default`.
        operator_token: what opens `/metrics` and `/config`; None: nobody where keys are required, else everybody.
        unknown_keys: how many of them each address may try.
        max_body_bytes: of a JSON body, or of the texts of a turn that comes in a form.
        max_text_bytes: of the texts of any other form.
        max_file_bytes: of one file.
        body_timeout_s: until a JSON body is there, and at most between two pieces of a form.
        spool: where files wait while they come in.
        downloads: how many may be sent a file at a time.
        imports: how many conversations may be taken in at a time.
        models: what can be asked.
        public_config: what `/config` shows; no secrets.
        metrics: what `/metrics` shows, in Prometheus' text format; called in a thread.
        asks_openai: the model is OpenAI's or of a server with its API, for the health report.
        providers: the names of all that answer, likewise; none where they have no names.
        data_dir: whose disk the health report is about.
        started_at: by the clock that only goes forward, in seconds.
    """

    textllm: TextLLM
    worker: WorkerState
    requires_keys: bool
    operator_token: bytes | None
    unknown_keys: UnknownKeyLimit
    max_body_bytes: int
    max_text_bytes: int
    max_file_bytes: int
    body_timeout_s: float
    spool: Spool
    downloads: ConcurrencyLimit
    imports: ConcurrencyLimit
    models: Models
    public_config: Mapping[str, object]
    metrics: Callable[[], bytes]
    asks_openai: bool
    providers: Sequence[str]
    data_dir: Path
    started_at: float


def services_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """What the application that a request came to stands on."""
    services: Services = connection.scope["state"]["services"]
    return services
