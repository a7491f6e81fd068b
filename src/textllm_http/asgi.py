"""The served app: settings, wiring, `create_app`; nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from textllm_adapters.telemetry.listeners import Listeners
from textllm_adapters.telemetry.logs import LogTelemetry, configure_logs
from textllm_adapters.telemetry.metrics import PrometheusTelemetry
from textllm_adapters.telemetry.tracing import open_tracer
from textllm_adapters.wiring import ListedModels, load_settings, open_textllm, public_settings
from textllm_core.application import TextLLM
from textllm_core.steps import UNTRACED
from textllm_core.uploads import MEGABYTE
from textllm_http.app import Application, create_app
from textllm_http.services import Models

_DATABASE_PATIENCE_S: Final = 60.0  # after a reboot, a database may come later than we do
_ABOUT_THIS_MACHINE: Final = {"data_dir", "local_model", "server", "trusted_proxies"}


class Served(NamedTuple):
    """An app, and what its server is to know."""

    app: Application
    header_timeout_s: float


def create() -> Served:
    """The app of one worker process.

    Raises:
        ConfigurationError: the settings do not allow it to start.
    """
    settings = load_settings()
    configure_logs(settings.logging.level, settings.logging.log_dir if settings.logging.log_to_file else None)

    counters = PrometheusTelemetry()
    traces = open_tracer(provider=settings.resolved_provider, named=settings.providers)
    telemetry = Listeners(counters, LogTelemetry(), *filter(None, [traces]))
    tracer = traces or UNTRACED

    @asynccontextmanager
    async def opener() -> AsyncIterator[TextLLM]:
        try:
            with counters.gathering():
                async with open_textllm(
                    settings, database_patience_s=_DATABASE_PATIENCE_S, serves=True, telemetry=telemetry, tracer=tracer
                ) as textllm:
                    yield textllm
        finally:
            if traces is not None:
                await asyncio.to_thread(traces.close)

    models = ListedModels(settings)
    in_force = public_settings(settings)
    app = create_app(
        opener,
        public_config={name: value for name, value in in_force.items() if name not in _ABOUT_THIS_MACHINE},
        max_input_chars=settings.max_input_length,
        max_file_bytes=settings.max_file_size_mb * MEGABYTE,
        body_timeout_s=settings.body_timeout_s,
        spool_dir=settings.data_dir / "spool",
        requires_keys=settings.auth != "disabled",  # `auto` is decided by whoever knows the address
        asks_openai=settings.resolved_provider == "openai",
        providers=tuple(settings.providers),
        telemetry=telemetry,
        metrics=counters.expose,
        models=Models(models.all(), models.find),
        operator_token=None if settings.metrics_token is None else settings.metrics_token.reveal(),
        tracer=tracer,
        cors_origins=settings.cors_origins,
        allowed_hosts=settings.allowed_hosts,
        trusted_proxies=settings.trusted_proxies,
    )
    return Served(app, settings.header_timeout_s)
