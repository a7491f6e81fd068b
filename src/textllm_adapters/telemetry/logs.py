"""Logs as JSON lines: named fields only, so that no message text, key or URL can slip into them."""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from textllm_adapters.telemetry.shared_file import SharedRotatingFile
from textllm_core.erasing import absent
from textllm_core.errors import ConfigurationError, ProviderReport
from textllm_core.events import (
    REQUEST_ID,
    ErasureFailed,
    ErasuresWaiting,
    Event,
    ExchangeCorrected,
    ExchangeFailed,
    ExchangeRerouted,
    ExchangeSettled,
    RequestAnswered,
    TurnNotKept,
)

MAX_FILE_BYTES: Final = 20 * 1024 * 1024
FILES_KEPT: Final = 5
TRACE_ID: Final[ContextVar[str | None]] = ContextVar("trace_id", default=None)  # of the request, where it is traced

_FIELDS: Final = frozenset(
    {
        "request_id",
        "method",
        "route",
        "status",
        "code",
        "to",
        "duration_ms",
        "tenant_id",
        "response_id",
        "provider_status",
        "provider_code",
        "provider_type",
        "provider_param",
        "provider_request_id",
        "provider_address",
        "erasure_id",
        "provider_id",
        "attempts",
        "retry_in_s",
        "reason",
        "model",
        "cost",
        "estimate",
        "held",
    }
)
_EXCEEDED: Final = "an exchange cost more than was held for it"
_MAX_FIELD_CHARS: Final = 200  # of what the provider or a client has named
# Whatever else goes wrong, what looks like a key is not written. Few lines have a mark of one, and are searched for it.
_KEY_MARKS: Final = ("sk-", "tllm_", "bearer")
_KEY_SHAPES: Final = re.compile(r"(?:sk-|tllm_)[A-Za-z0-9_-]{8,}|(?i:bearer) +[^\s\"\\]+")

_encode: Final = json.JSONEncoder(default=str).encode
_logger: Final = logging.getLogger("textllm")
_access: Final = logging.getLogger("textllm.access")


class JsonLines(logging.Formatter):
    """One JSON object a line, in ASCII, so that nothing in it can end the line or reach a terminal as a command.

    An exception appears as its type and places in the code, never as its text. A record is formatted once, however many
    handlers write it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = record.__dict__.get("json_line")
        if line is None:
            line = record.__dict__["json_line"] = self._line_of(record)
        return line

    def _line_of(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            # Our own messages hold nothing private; what libraries put into theirs is left out.
            "message": record.getMessage() if record.name.startswith("textllm") else str(record.msg).partition("\n")[0],
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        if (trace_id := TRACE_ID.get()) is not None:
            line["trace_id"] = trace_id
        line |= {name: _bounded(value) for name, value in record.__dict__.items() if name in _FIELDS}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["exception"] = type(error).__qualname__
            line["places"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        text = _encode(line).replace("\x7f", "\\u007f")
        lowered = text.lower()
        return _KEY_SHAPES.sub("[key]", text) if any(mark in lowered for mark in _KEY_MARKS) else text


def _bounded(value: object) -> object:
    return value[:_MAX_FIELD_CHARS] if isinstance(value, str) else value


def _said(report: ProviderReport | None) -> dict[str, object]:
    """The provider's own account of a failure, as fields."""
    names = () if report is None else ("status", "code", "type", "param", "request_id", "address")
    return {f"provider_{name}": value for name in names if (value := getattr(report, name)) is not None}


class LogTelemetry:
    """A line for each request, and one for each exchange that did not go as it should."""

    def __init__(self) -> None:
        self._absent: Mapping[str, int] = {}

    def emit(self, event: Event) -> None:
        """Keeps `Telemetry.emit`."""
        match event:
            case RequestAnswered():
                self._log_request(event)
            case ExchangeFailed():
                fields = {name: getattr(event, name) for name in ("response_id", "code", "model", "reason")}
                _logger.warning("a reply failed", extra=fields | _said(event.report))
            case ExchangeRerouted():
                fields = {name: getattr(event, name) for name in ("response_id", "code", "model", "to", "reason")}
                _logger.warning(
                    "another model is asked in the place of one that failed", extra=fields | _said(event.report)
                )
            case TurnNotKept():
                fields = {name: getattr(event, name) for name in ("response_id", "code", "reason")}
                fields["provider_id"] = event.transcript_id
                _logger.warning(
                    "a turn whose reply broke off may be missing in its conversation",
                    extra=fields | _said(event.report),
                )
            case ExchangeSettled():
                self._log_exchange(event)
            case ExchangeCorrected():
                self._log_correction(event)
            case ErasureFailed():
                self._log_erasure(event)
            case ErasuresWaiting():
                self._log_absent(event)

    def _log_request(self, event: RequestAnswered) -> None:
        if not _access.isEnabledFor(logging.INFO):
            return
        fields = {
            "request_id": event.request_id,
            "method": event.method,
            "route": event.route,
            "status": event.status,
            "duration_ms": round(event.duration_s * 1000, 1),
        }
        if event.code is not None:
            fields["code"] = event.code
        if event.tenant_id is not None:
            fields["tenant_id"] = event.tenant_id
        _access.info("request", extra=fields)

    def _log_erasure(self, event: ErasureFailed) -> None:
        names = ("erasure_id", "provider_id", "attempts", "retry_in_s", "code", "reason")
        fields = {name: getattr(event, name) for name in names} | _said(event.report)
        if event.retry_in_s is None:
            _logger.error("the provider keeps what was deleted here; it is not asked again", extra=fields)
        else:
            _logger.warning("the provider did not erase what was deleted here; it is asked again", extra=fields)

    def _log_absent(self, event: ErasuresWaiting) -> None:
        """Once for each state of it, which is told again and again."""
        if event.absent and event.absent != self._absent:
            reason = absent(event.absent)
            _logger.warning("what was deleted here waits for a provider that is not asked", extra={"reason": reason})
        self._absent = event.absent

    def _log_exchange(self, event: ExchangeSettled) -> None:
        fields = {"response_id": event.response_id, "model": event.model, "cost": event.cost, "held": event.held}
        if event.recovered:
            _logger.info("an abandoned exchange was settled", extra=fields)
        if event.exceeds_hold:
            _logger.warning(_EXCEEDED, extra=fields)

    def _log_correction(self, event: ExchangeCorrected) -> None:
        fields = {name: getattr(event, name) for name in ("response_id", "model", "cost", "estimate", "held")}
        _logger.info("the provider's later word has replaced an estimate", extra=fields)
        if event.exceeds_hold:
            _logger.warning(_EXCEEDED, extra=fields)


def configure_logs(level: str, log_dir: Path | None) -> None:
    """Send the logs of this process to stderr, and to `log_dir/textllm.log` where a folder is given.

    Raises:
        ConfigurationError: the folder or the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_dir is not None:
        try:
            log_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            path = log_dir / "textllm.log"
            handlers.append(SharedRotatingFile(path, max_bytes=MAX_FILE_BYTES, kept=FILES_KEPT))
        except OSError as error:
            raise ConfigurationError(
                f"Logs cannot be written to {log_dir} ({error.strerror}); set logging.log_dir or logging.log_to_file."
            ) from error
    for handler in handlers:
        handler.setFormatter(JsonLines())
    # No line tells who called, from which thread: to find it out costs a third of a line (Python's logging HOWTO).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.raiseExceptions = False  # what cannot be written is lost, rather than printed without this format
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    _logger.setLevel(level)
