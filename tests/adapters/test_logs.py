"""Log lines: what is in them, what never is, and files that several processes share."""

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from textllm_adapters.telemetry.logs import JsonLines, LogTelemetry
from textllm_adapters.telemetry.shared_file import SharedRotatingFile
from textllm_adapters.testing.telemetry import EVENTS
from textllm_core.errors import ProviderReport
from textllm_core.events import (
    REQUEST_ID,
    ErasureFailed,
    ErasuresWaiting,
    ExchangeCorrected,
    ExchangeFailed,
    ExchangeSettled,
    RequestAnswered,
    TurnNotKept,
)
from textllm_core.usage import Usage

REQUEST = RequestAnswered(
    request_id="req_1", method="GET", route="/users/{user_id}/stats", status=402, duration_s=0.0123,
    code="budget_exceeded", tenant_id="acme",
)  # fmt: skip
SETTLED = ExchangeSettled(
    response_id="resp_1", kind="text", model="gpt-4o", status="completed", usage=Usage(), held=Decimal("0.1"),
    cost=Decimal("0.2"), estimated=False, recovered=False, time_to_first_token_ms=None,
)  # fmt: skip


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """What was logged, as it is written."""
    written: list[dict[str, Any]] = []

    class Writing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = JsonLines().format(record)
            assert len(text.splitlines()) == 1
            assert text.isprintable()
            written.append(json.loads(text))

    handler, logger = Writing(), logging.getLogger("textllm")
    caplog.set_level("INFO", "textllm")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


@contextmanager
def request_of(request_id: str) -> Iterator[None]:
    outer = REQUEST_ID.set(request_id)
    yield
    REQUEST_ID.reset(outer)


def fields(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("time", "logger")}


def test_a_request_is_a_line_of_named_fields(lines: list[dict[str, Any]]) -> None:
    LogTelemetry().emit(REQUEST)
    assert [fields(line) for line in lines] == [
        {
            "level": "INFO", "message": "request", "request_id": "req_1", "method": "GET",
            "route": "/users/{user_id}/stats", "status": 402, "duration_ms": 12.3, "code": "budget_exceeded",
            "tenant_id": "acme",
        }
    ]  # fmt: skip


def test_a_reply_that_failed_is_logged_with_both_codes_and_both_ids(lines: list[dict[str, Any]]) -> None:
    with request_of("req_9"):
        report = ProviderReport(
            status=400, code="invalid_value", type="BadRequestError", param="input[0].content", request_id="req_7",
            address="llm.example/v1",
        )  # fmt: skip
        LogTelemetry().emit(
            ExchangeFailed(
                response_id="resp_1",
                code="provider_error",
                model="gpt-4o",
                reason="It refused the call.",
                report=report,
            )
        )
    assert [fields(line) for line in lines] == [
        {
            "level": "WARNING", "message": "a reply failed", "request_id": "req_9", "response_id": "resp_1",
            "code": "provider_error", "model": "gpt-4o", "provider_status": 400, "provider_code": "invalid_value",
            "provider_type": "BadRequestError", "provider_param": "input[0].content", "provider_request_id": "req_7",
            "provider_address": "llm.example/v1", "reason": "It refused the call.",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_all_that_an_event_has_for_the_log_is_written(
    lines: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    LogTelemetry().emit(EVENTS[name])
    # What a record has of its own, and what handlers note in it: those of libraries that other tests have loaded, too.
    usual = vars(logging.makeLogRecord({})).keys() | {"json_line", "message", "asctime"}
    for record, line in zip(caplog.records, lines, strict=True):
        assert vars(record).keys() - usual <= line.keys()


def test_a_turn_that_the_provider_did_not_keep_is_logged_with_its_reason(lines: list[dict[str, Any]]) -> None:
    LogTelemetry().emit(TurnNotKept("resp_1", "conv_1", "provider_error", "It refused.", ProviderReport(status=403)))
    assert [fields(line) for line in lines] == [
        {
            "level": "WARNING", "message": "a turn whose reply broke off may be missing in its conversation",
            "response_id": "resp_1", "provider_id": "conv_1", "code": "provider_error", "reason": "It refused.",
            "provider_status": 403,
        }
    ]  # fmt: skip


def test_an_erasure_that_failed_is_logged_with_its_reason(lines: list[dict[str, Any]]) -> None:
    failed = ErasureFailed(
        erasure_id="erase_1",
        provider_id="conv_1",
        attempts=1,
        retry_in_s=15,
        code="provider_error",
        reason="The provider refused the call (403).",
        report=ProviderReport(status=403),
    )
    LogTelemetry().emit(failed)
    assert [fields(line) for line in lines] == [
        {
            "level": "WARNING",
            "message": "the provider did not erase what was deleted here; it is asked again",
            "erasure_id": "erase_1", "provider_id": "conv_1", "attempts": 1, "retry_in_s": 15, "code": "provider_error",
            "reason": "The provider refused the call (403).", "provider_status": 403,
        }
    ]  # fmt: skip


def test_what_a_provider_keeps_for_ever_is_an_error(lines: list[dict[str, Any]]) -> None:
    kept = ErasureFailed(
        erasure_id="erase_1", provider_id="conv_1", attempts=1, retry_in_s=None, code="provider_error", reason="kept"
    )
    LogTelemetry().emit(kept)
    (line,) = map(fields, lines)
    assert (line["level"], line["message"]) == (
        "ERROR",
        "the provider keeps what was deleted here; it is not asked again",
    )


def test_what_waits_for_a_provider_that_is_not_in_the_settings_is_logged_once(lines: list[dict[str, Any]]) -> None:
    telemetry = LogTelemetry()
    for absent in ({}, {"two": 3}, {"two": 3}, {}, {"two": 3}):
        telemetry.emit(ErasuresWaiting(pending=3, failing=0, by_provider={"two": 3}, absent=absent))
    assert [(line["level"], line["reason"]) for line in map(fields, lines)] == [
        (
            "WARNING",
            "3 to be erased at the provider two, which is not among the settings: put it back under `providers`, with "
            "kind: openai, until that is done.",
        )
    ] * 2


def test_a_turn_that_cost_more_than_was_held_is_logged(lines: list[dict[str, Any]]) -> None:
    LogTelemetry().emit(SETTLED)
    (line,) = lines
    assert (line["level"], line["response_id"], line["cost"], line["held"]) == ("WARNING", "resp_1", "0.2", "0.1")


@pytest.mark.parametrize(("held", "levels"), [("0.1", ["INFO", "WARNING"]), ("0.3", ["INFO"])])
def test_a_correction_is_logged_with_what_was_estimated_and_what_it_cost(
    lines: list[dict[str, Any]], held: str, levels: list[str]
) -> None:
    costs = {"held": Decimal(held), "estimate": Decimal("0.1"), "cost": Decimal("0.2")}
    LogTelemetry().emit(ExchangeCorrected(response_id="resp_1", model="gpt-4o", **costs))
    assert [line["level"] for line in lines] == levels
    assert all((line["response_id"], line["estimate"], line["cost"]) == ("resp_1", "0.1", "0.2") for line in lines)


@pytest.mark.parametrize(
    "forged", ['x\n{"level": "ERROR"}', "x\r\n", "\x1b[2J", "\x7f\x9b1m", "\u2028", "\0", "x" * 9999]
)
def test_what_others_name_cannot_forge_a_line(lines: list[dict[str, Any]], forged: str) -> None:
    report = ProviderReport(code=forged)
    LogTelemetry().emit(ExchangeFailed(response_id="resp_1", code="provider_error", model="m", report=report))
    (line,) = lines
    assert line["provider_code"] == forged[:200]


@pytest.mark.parametrize("key", ["sk-proj-canary_12345678", "tllm_canary12345678", "Bearer canary=="])
def test_what_looks_like_a_key_is_not_written(lines: list[dict[str, Any]], key: str) -> None:
    logging.getLogger("textllm").warning("refused %s", key)
    assert "canary" not in json.dumps(lines)
    assert lines[0]["message"] == "refused [key]"


def test_a_message_of_a_library_is_written_without_what_it_quotes() -> None:
    said = logging.LogRecord("aiohttp", logging.ERROR, "", 0, "cannot read %s", ("canary",), None)
    assert json.loads(JsonLines().format(said))["message"] == "cannot read %s"
    silent = logging.LogRecord("aiohttp", logging.ERROR, "", 0, "", (), None)
    assert json.loads(JsonLines().format(silent))["message"] == ""


WRITER = """
import logging, sys
from pathlib import Path
from textllm_adapters.telemetry.shared_file import SharedRotatingFile
from textllm_adapters.testing.telemetry import EVENTS
handler = SharedRotatingFile(Path(sys.argv[1]), max_bytes=20_000, kept=50)
for number in range(1000):
    handler.emit(logging.LogRecord("x", 20, "", 0, f"{sys.argv[2]}-{number}-" + "x" * 100, (), None))
"""


def test_processes_that_share_a_file_lose_no_line_and_mix_none_while_it_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "textllm.log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    files = [file for file in tmp_path.iterdir() if file.suffix != ".lock"]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{w}-{n}-" + "x" * 100 for w in range(3) for n in range(1000))
    assert len(files) > 10
    assert all(file.stat().st_size < 25_000 for file in files)


def test_no_more_full_files_are_kept_than_wanted(tmp_path: Path) -> None:
    handler = SharedRotatingFile(tmp_path / "textllm.log", max_bytes=10, kept=2)
    for number in range(10):
        handler.emit(logging.LogRecord("x", 20, "", 0, f"line number {number}", (), None))
    handler.close()
    kept = {file.name: file.read_text() for file in tmp_path.iterdir() if file.suffix != ".lock"}
    assert kept == {
        "textllm.log": "line number 9\n",
        "textllm.log.1": "line number 8\n",
        "textllm.log.2": "line number 7\n",
    }


def test_log_files_are_for_their_owner_and_group_alone(tmp_path: Path) -> None:
    outer = os.umask(0o022)
    try:
        handler = SharedRotatingFile(tmp_path / "textllm.log", max_bytes=10, kept=2)
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "more than ten bytes"}))
        handler.close()
    finally:
        os.umask(outer)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        f"textllm.log{suffix}": 0o640 for suffix in ("", ".1", ".2", ".lock")
    }
