"""What the provider's failures mean to us: refusals and broken answers in, ours out. No text of theirs passes."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import ceil
from time import time
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from textllm_adapters.openai.connections import GarbledAnswerError, SilenceError, UnreachableError
from textllm_adapters.openai.faults import Fault, Meaning, fault_in, fault_of, identified
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderReport,
    ProviderTimeoutError,
    ProviderUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.records.model import ModelRequest

# A client that obeys would stay away for days because of a clock, or a proxy, that is wrong; and where it is right, an
# hour later the provider says again how long it takes.
LONGEST_WAIT_S: Final = 3600
# As OpenAI and Anthropic name it, AWS, Azure, and Cloudflare before whoever it is.
_REQUEST_IDS: Final = (
    *("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "x-ms-request-id", "cf-ray"),
)

# The provider's names of what our caller may set.
_OPEN_CALL: Final = re.compile(r"no tool (output|call) found for function call")
_OPTIONS: Final = {
    "temperature": "temperature",
    "metadata": "metadata",
    "max_output_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
}
# What callers write in their own words, which we send on as it is; that a kind of tool is not known is not theirs.
_OF_TOOL: Final = re.compile(r"tools\[[0-9]+\]\.(?!type$).+")
_OWN_WORDS: Final = {
    "tools": _OF_TOOL,
    "hosted": _OF_TOOL,
    "response_format": re.compile(r"(text\.format|response_format\.json_schema)\.(schema|name)\b.*"),
}
# What to set where an address does not exist at the provider.
_WAYS_OUT: Final = {
    "/conversations": "the operator must set llm_api to responses or chat_completions (or a kind of these), "
    "which ask for no conversations",
    "/responses": "the operator must set llm_api to chat_completions (or the kind of the provider), "
    "which nearly every server has",
}
_CHECK_ADDRESS: Final = (
    "the operator must check its address (OPENAI_BASE_URL, or base_url), which for most servers ends in /v1"
)


@dataclass(slots=True)
class Asked:
    """What was asked of whom, for the words of what comes in place of an answer.

    Args:
        base_url: its address, up to and including `/v1`; `path`: of the call.
        model: None where the call asks none.
        has_files: the model is to read images or files, or may have to: a conversation at the provider may have some.
        options: what the turn set by itself.
        request_id: the provider's; None before its answer.
        refused: what it has said against the call, if anything.
    """

    base_url: str
    path: str
    model: str | None = None
    has_transcript: bool = False
    has_files: bool = False
    options: frozenset[str] = frozenset()
    request_id: str | None = None
    refused: Fault | None = None

    @classmethod
    def of(cls, base_url: str, path: str, request: ModelRequest | None = None) -> Self:
        path = "/".join(path.split("/")[: 3 if request else 2])  # what follows are ids
        if request is None:
            return cls(base_url, path)
        return cls(
            base_url,
            path,
            request.model,
            has_transcript=request.transcript_id is not None,
            has_files=request.transcript_id is not None or any(message.has_shown_parts for message in request.messages),
            options=frozenset(
                name for name in (*_OPTIONS.values(), *_OWN_WORDS) if getattr(request, name) not in (None, ())
            ),
        )

    def __str__(self) -> str:
        return f"The provider ({self.model})" if self.model else "The provider"

    @property
    def address(self) -> str:
        """For the operator: callers are not told where providers are."""
        parts = urlsplit(self.base_url)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"

    def answered(self, headers: Mapping[str, str]) -> None:
        """Remember under which name the provider knows the call."""
        ids = (identified(headers.get(name)) for name in _REQUEST_IDS)
        self.request_id = next(filter(None, ids), None)


def refusal(status: int, headers: Mapping[str, str], body: bytes, asked: Asked) -> TextLLMError:
    """What an answer means that is not one of 2xx."""
    asked.answered(headers)
    asked.refused = fault = fault_in(body, status=status)
    wait = retry_after(headers)
    error = _meant(fault if wait is None else fault._replace(wait_s=wait), asked)
    return _reported(error, fault, asked)


def told_in_stream(fault: Fault, asked: Asked, *, has_begun: bool, what: str = "broke the reply off") -> TextLLMError:
    """What a failure means that the provider tells in the midst of its answer; the call may have run.

    Args:
        has_begun: something of a reply came before it. If not, what it limits by its nature did not run.
        what: it has done, where it says no more of the failure.
    """
    error = _meant(fault, asked, what=what)
    if isinstance(error, ModelError):
        error.may_have_run = has_begun or fault.meaning() not in ("rate", "quota")
    return _reported(error, fault, asked)


_BLANK: Final = "\ufeff \t\r\n"  # before a page


def wants_tool(name: str, asked: Asked) -> TextLLMError:
    """Why there is no reply where the model has only called a tool that nobody has offered to it."""
    what = "wants to use a tool in the place of a reply, but there is none for it"
    return told_in_stream(fault_of({"code": name}), asked, has_begun=True, what=what)


def ended_early(aside: object, asked: Asked, *, has_begun: bool) -> TextLLMError:
    """Why a stream ended before its reply did.

    Args:
        aside: the last that was told beside the reply, in no shape that a failure has; it may have been one.
    """
    fault = fault_of(aside)
    if fault.is_stated(with_files=asked.has_files):
        return told_in_stream(fault, asked, has_begun=has_begun)
    if has_begun:
        return ProviderError(f"{asked} ended its stream before the reply did.")
    is_text = isinstance(aside, str)
    if is_text and str(aside).lstrip(_BLANK).startswith("<"):  # of a proxy, a login, a user interface
        page = nothing_there(asked, "a page in the place of an answer")
        page.may_have_run = True  # somebody between may show it; as with a page of 502, no reply will come
        return _reported(page, fault, asked)
    came = "nothing" if aside is None else "text that is no reply" if is_text else "JSON that is no reply"
    return ProviderError(f"{asked} was asked, and {came} came in the place of one; {_CHECK_ADDRESS}.")


def _reported(error: TextLLMError, fault: Fault, asked: Asked) -> TextLLMError:
    error.report = ProviderReport(
        status=fault.status,
        code=fault.code,
        type=fault.type,
        param=fault.param,
        request_id=asked.request_id or fault.request_id,
        address=asked.address,
    )
    _note_address(error, asked)
    return error


def _note_address(error: TextLLMError, asked: Asked) -> None:
    """Let the command line, which is the operator's, say where it was; a note is in no answer of a server."""
    if isinstance(error, ModelError):
        error.add_note(f"It is at {asked.address}.")


def _meant(fault: Fault, asked: Asked, *, what: str = "refused the call") -> TextLLMError:
    meaning = fault.meaning(with_files=asked.has_files)
    if asked.has_transcript and fault.status == 404 and meaning == "route" and "conversation" in fault.words:
        return ConversationLostError()
    if asked.has_transcript and fault.status == 400 and _OPEN_CALL.search(fault.words):
        return ConversationLostError()  # it has kept a call that no reply told us of: made anew it goes on
    names_more = fault.param is not None or "hosted" in asked.options  # which names stores and files by their ids
    if meaning == "route" and fault.status != 501 and (fault.names_what_is_missing or (fault.code and names_more)):
        meaning = "other"  # the address exists: what it names does not
    if meaning == "other":
        return _refused_input(fault, asked) or ProviderError(f"{asked} {what} ({_at(fault)}).", may_have_run=False)
    if meaning in ("rate", "unavailable"):
        status = fault.status or 0
        return ProviderUnavailableError(
            f"{asked} cannot answer now ({_cause(fault)}).",
            may_have_run=status >= 500 and status not in (501, 503),
            retry_after_s=_whole_seconds(fault.wait_s) or 5,
        )
    return _of_meaning(meaning, fault, asked)


def _of_meaning(meaning: Meaning, fault: Fault, asked: Asked) -> TextLLMError:
    match meaning:
        case "busy":
            return ConversationBusyError(retry_after_s=_whole_seconds(fault.wait_s) or 1)
        case "too_long":
            return ContextTooLongError()
        case "filtered":
            return ContentRefusedError()
        case "blind":
            return UnsupportedMediaTypeError(
                f"The model {asked.model} takes no images or files of this kind; send text alone, or use another model."
            )
        case "quota":
            what = "says that our account has no quota left; the operator must check its plan and billing"
        case "key":
            what = f"refused our API key ({_cause(fault)}); the operator must check it"
        case "model":
            what = f"has no such model for us ({_cause(fault)}); the operator must check its name"
        case _:
            return nothing_there(asked, _cause(fault))
    return ProviderError(f"{asked} {what}.", may_have_run=False)


def nothing_there(asked: Asked, cause: str = "no such answer") -> ProviderError:
    """The provider does not have the API that was asked; the text says what to set."""
    is_bare = not urlsplit(asked.base_url).path.strip("/")  # nearly every API is below some path
    way_out = _CHECK_ADDRESS if is_bare else _WAYS_OUT.get(asked.path, _CHECK_ADDRESS)
    return ProviderError(f"{asked} has nothing at {asked.path} ({cause}); {way_out}.", may_have_run=False)


def _refused_input(fault: Fault, asked: Asked) -> TextLLMError | None:
    if asked.has_files and fault.spoils_file:
        return UnsupportedMediaTypeError(
            "The provider cannot read an image or a file of this turn; save it in another form, or use a model that "
            "reads it."
        )
    option = _OPTIONS.get(re.split(r"[.\[]", fault.param or "", maxsplit=1)[0])
    if option in asked.options:
        return InvalidRequestError.of(option, "the model does not take it, or not this value")
    for own, place in _OWN_WORDS.items():
        is_named = place.fullmatch(fault.param or "") or f"invalid schema for {own}" in fault.words
        if own in asked.options and is_named:
            field = "tools" if own == "hosted" else own
            return InvalidRequestError.of(field, f"the model's provider refuses what is said there ({_at(fault)})")
    return None


def _cause(fault: Fault) -> str:
    names = dict.fromkeys(str(name) for name in (fault.status, fault.code or fault.type) if name is not None)
    return ", ".join(names) or "it does not say why"


def _at(fault: Fault) -> str:
    return _cause(fault) + (f", at {fault.param}" if fault.param else "")


def unanswered(failure: Exception, asked: Asked) -> ModelError:
    """What it means that no answer came, or none that can be read: was the request sent at all?"""
    error: ModelError
    if isinstance(failure, UnreachableError):
        error = ProviderUnavailableError(f"{asked} cannot be reached.", may_have_run=False)
    else:
        error = BROKEN_ANSWER.get(type(failure), _cut)(asked)
    return _identified(error, asked)


def _identified(error: ModelError, asked: Asked) -> ModelError:
    """With what is known of the call, where the provider itself has stated nothing."""
    if error.report is None:
        error.report = ProviderReport(request_id=asked.request_id, address=asked.address, is_answer=False)
        _note_address(error, asked)
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks us to wait, None where it does not say."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after")
    if stated is None:
        return None
    if (seconds := _number(stated)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(stated)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time())  # of HTTP, all are
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", text) else None


def _whole_seconds(wait_s: float | None) -> int | None:
    return None if wait_s is None else max(1, min(ceil(wait_s), LONGEST_WAIT_S))


def causes_of(failure: BaseException) -> list[BaseException]:
    """It, what it was raised from, and so on."""
    causes = []
    cause: BaseException | None = failure
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    return causes


def _silent(asked: Asked) -> ModelError:
    return ProviderTimeoutError(f"{asked} was silent for too long (the setting upstream_timeout_s).")


def _cut(asked: Asked) -> ModelError:
    return ProviderError(f"{asked} broke the connection off.")


def _no_http(asked: Asked) -> ModelError:
    return ProviderError(f"{asked} sent what is no answer in HTTP/1.1, or one that is compressed.")


def _garbled(asked: Asked) -> ModelError:
    return ProviderError(f"{asked} sent something that is not JSON of the expected shape.")


# What can happen while an answer is read; whatever it is, the call may have run.
BROKEN_ANSWER: Final[Mapping[type[Exception], Callable[[Asked], ModelError]]] = {
    SilenceError: _silent,
    GarbledAnswerError: _no_http,
    OSError: _cut,
    msgspec.DecodeError: _garbled,
    json.JSONDecodeError: _garbled,
    UnicodeError: _garbled,
    RecursionError: _garbled,
}


class hearing:  # noqa: N801 - called as `contextlib.suppress` is
    """Raise what a broken answer means; what the provider itself has not stated is known by the id of the call."""

    __slots__ = ("_asked",)

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(failure, ModelError):
            _identified(failure, self._asked)
            return
        for name in type(failure).__mro__:
            if name in BROKEN_ANSWER:
                raise _identified(BROKEN_ANSWER[name](self._asked), self._asked) from failure
