"""What a test tells the stand-in provider to do, and what the stand-in tells the test afterwards."""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one response; cached and cache-write tokens are parts of the input, reasoning tokens of the output."""

    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Bill:
    """One response the provider asks money for, even if nobody received it."""

    response_id: str
    conversation_id: str | None
    model: str
    usage: Usage
    status: str
    service_tier: str
    tool_calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as received.

    `path` begins with /v1, header names are lower-case, `body` is decoded JSON or None; `files` has the SHA-256 of
    every file that came with it, in order.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    files: tuple[str, ...] = ()

    @property
    def retry_count(self) -> int:
        """How often the SDK had already sent this request."""
        return int(self.headers.get("x-stainless-retry-count", "0"))


class ApiError(Exception):
    """A refusal in the provider's own form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: Json = {"message": message, "type": kind, "param": param, "code": code}

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self.error}).encode()


ENDS = ("incomplete:max_output_tokens", "incomplete:content_filter", "completed", "silent", "cut", "stall")
ENDS_WITH_CODE = ("failed:", "error_flat:", "error_nested:")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model, and how it travels.

    Without `text`, `deltas` or `refusal` the answer is an echo that depends on the history: `[3] You said: hello`,
    where 3 messages came before the latest of the user. Where the conversation has files whose bytes came along,
    `Seen: 1f3a5c7e 99aa0b4d` follows: how the SHA-256 of each of them begins.
    """

    text: str | None = None
    deltas: tuple[str, ...] | None = None  # else the text is cut in words
    refusal: str | None = None  # takes the place of the text
    calls: tuple[tuple[str, str], ...] = ()  # of functions, by name and arguments, behind the text, or without one
    hosted: tuple[Json, ...] = ()  # what tools of the provider's do before the message, as items; see `openai_tools`
    hosted_gate: threading.Event | None = None  # the last of them does not end before it is set
    annotations: tuple[Json, ...] = ()  # of the text
    reasoning: str | None = None  # an item before the message; counted as reasoning tokens
    usage: Mapping[str, int] = field(default_factory=dict)  # fields of Usage that replace the counted ones
    service_tier: str | None = None  # the tier the response reports; else the one asked for

    created_pause_s: float = 0.0  # after the response headers, before the first event
    first_delta_pause_s: float = 0.0
    pause_s: float = 0.0  # between deltas
    gate: threading.Event | None = None  # everything after the first delta waits for it
    split: Literal["event", "bytes"] = "event"  # "bytes" cuts inside lines and UTF-8 characters

    end: str = "completed"  # see ENDS and ENDS_WITH_CODE
    end_after: int | None = None  # deltas sent before the end; None is all of them
    cut_completes: bool = False  # after "cut" or "silent" the response counts as completed, with usage and bill

    def __post_init__(self) -> None:
        if self.end not in ENDS and not self.end.startswith(ENDS_WITH_CODE):
            raise ValueError(f"{self.end!r} is none of {ENDS}, and has none of the prefixes {ENDS_WITH_CODE}")
        if unknown := self.usage.keys() - {field.name for field in fields(Usage)}:
            raise ValueError(f"Usage has no {sorted(unknown)}")

    def cut_in_deltas(self, echo: str) -> tuple[str, ...]:
        """The deltas to send when the echo of this request would be `echo`."""
        if self.deltas is not None:
            return self.deltas
        chosen = [text for text in (self.refusal, self.text, "" if self.calls else echo) if text is not None]
        return tuple(re.findall(r"\S+\s*|\s+", chosen[0]))


STATUS_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request instead of an answer; built by the methods below."""

    action: Literal["answer", "stall", "cut"]
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def http(
        cls,
        status: int,
        code: str | None = None,
        message: str = "The stand-in was told to refuse.",
        *,
        param: str | None = None,
        kind: str | None = None,
        retry_after_s: int | float | None = None,
        should_retry: bool | None = None,
    ) -> Self:
        """An error answer; whole `retry_after_s` travel as `retry-after`, a float as `retry-after-ms`."""
        headers = {}
        if isinstance(retry_after_s, int):
            headers["retry-after"] = str(retry_after_s)
        elif retry_after_s is not None:
            headers["retry-after-ms"] = str(round(retry_after_s * 1000))
        if should_retry is not None:
            headers["x-should-retry"] = str(should_retry).lower()
        by_status = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
        error = ApiError(status, message, param=param, code=code or STATUS_CODES.get(status), kind=kind or by_status)
        return cls("answer", status, error.body, headers=headers)

    @classmethod
    def insufficient_quota(cls) -> Self:
        """A 429 that no waiting heals."""
        message = "You exceeded your current quota, please check your plan and billing details."
        return cls.http(429, "insufficient_quota", message, kind="insufficient_quota")

    @classmethod
    def html(cls, status: int = 502) -> Self:
        """The page of a proxy in between; with status 200 it poses as an answer."""
        return cls("answer", status, b"<html><body><h1>Bad gateway</h1></body></html>", "text/html")

    @classmethod
    def broken_json(cls) -> Self:
        """A JSON answer that ends in the middle."""
        return cls("answer", 200, b'{"id": "resp_1", "object": "resp')

    @classmethod
    def stall(cls) -> Self:
        """No answer, ever."""
        return cls("stall")

    @classmethod
    def cut(cls) -> Self:
        """The connection is reset before the first byte."""
        return cls("cut")
