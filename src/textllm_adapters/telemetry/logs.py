"""Logs as JSON lines: named fields only, so that no message text, key or URL can slip into them."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from textllm_core.errors import ConfigurationError

_FIELDS: Final = ("request_id", "code", "status", "response_id", "count")


class JsonLines(logging.Formatter):
    """One JSON object a line. An exception appears as its type and places in the code, never as its text."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            # Our own messages hold nothing private; what libraries put into theirs is left out.
            "message": record.getMessage() if record.name.startswith("textllm") else str(record.msg).splitlines()[0],
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["exception"] = type(error).__qualname__
            line["places"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        return json.dumps(line, default=str)


def configure_logs(level: str, log_dir: Path | None) -> None:
    """Send the logs of this process to stderr, and to `log_dir/textllm.log` where a folder is given.

    Raises:
        ConfigurationError: the folder or the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_dir is not None:
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log_dir / "textllm.log", encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                f"Logs cannot be written to {log_dir} ({error.strerror}); set logging.log_dir or logging.log_to_file."
            ) from error
    for handler in handlers:
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("textllm").setLevel(level)
