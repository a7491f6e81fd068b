"""Whether there are traces, by OpenTelemetry's own environment variables; its SDK is imported only where there are."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Final

from textllm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from textllm_adapters.telemetry.traces import OpenTelemetryTracer

_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_SDK: Final = "opentelemetry-exporter-otlp-proto-http"  # which brings the rest


def open_tracer(*, provider: str, named: Collection[str] = ()) -> OpenTelemetryTracer | None:
    """What traces this process, until it is closed; None where nobody asked for it, or the extra is missing.

    Args:
        provider: the name, in spans, of whoever answers turns.
        named: other providers, whose names stand before those of their models.
    Raises:
        ConfigurationError: a variable cannot be used.
    """
    exporters = exporters_in(os.environ)
    if not exporters or not _is_installed():
        return None
    check(os.environ)
    try:
        from textllm_adapters.telemetry.traces import open_exporting

        return open_exporting(exporters, provider=provider, named=named)
    except ValueError as error:
        raise ConfigurationError(
            "A variable of OpenTelemetry (OTEL_…) has a value that its SDK does not take; look at OTEL_PROPAGATORS, "
            "OTEL_BSP_* and OTEL_EXPORTER_OTLP_*."
        ) from error


def tracing_notice() -> str | None:
    """What an operator should know who asks for traces that cannot be had; None where all is well.

    They are no reason not to serve: the variables may be there for all that runs on a host.

    Raises:
        ConfigurationError: there could be traces, and a variable asks for what is not there.
    """
    if not exporters_in(os.environ):
        return None
    if _is_installed():
        check(os.environ)
        return None
    return (
        "no traces: the environment asks for OpenTelemetry's, which need the extra `telemetry` (in the checkout: "
        "uv pip install -c constraints.txt -e '.[telemetry]', or uv run --extra telemetry textllm …)."
    )


def exporters_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is to take traces, such as "otlp"; nothing without a word. An endpoint is enough to say so."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    implied = "otlp" if _first(environ, _ENDPOINTS) else "none"
    named = [name.strip() for name in (environ.get(_EXPORTER, "").strip() or implied).split(",")]
    return () if named == ["none"] else tuple(dict.fromkeys(named))


def check(environ: Mapping[str, str]) -> None:
    """
    Raises:
        ConfigurationError: the variables ask for what is not there.
    """
    exporters = exporters_in(environ)
    if not {"otlp", "console"}.issuperset(exporters):
        raise ConfigurationError(f"{_EXPORTER}: expected otlp, console, both with a comma, or none.")
    if "otlp" in exporters and (_first(environ, _PROTOCOLS) or _PROTOCOL) != _PROTOCOL:
        raise ConfigurationError(
            f"{_PROTOCOLS[0]}: expected {_PROTOCOL}, which collectors take on port 4318 as a rule; "
            f"or set {_EXPORTER} to none."
        )


def _first(environ: Mapping[str, str], names: Iterable[str]) -> str:
    """The value of the first of the variables that has one; "" where none has."""
    return next((value for name in names if (value := environ.get(name, "").strip())), "")


def _is_installed() -> bool:
    try:
        distribution(_SDK)
    except PackageNotFoundError:
        return False
    return True
