"""OpenAI's Responses API: with a conversation on the provider's side, or with the whole history in every call."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI

from textllm_adapters.openai.bodies import input_parts
from textllm_adapters.openai.client import RETRIES, Retries, drained, get, post_for_events
from textllm_adapters.openai.counts import responses_usage
from textllm_adapters.openai.errors import BROKEN_ANSWER, named, reported
from textllm_adapters.openai.sse import ServerSentEvent
from textllm_adapters.translation import translated
from textllm_core.chat.messages import FinishReason, InputFile, InputImage, Message, TextDelta
from textllm_core.errors import ProviderError
from textllm_core.ports.llm import EndStatus, ModelEnded, ModelEvent, ModelRequest, ModelStarted

_BEGINNINGS: Final = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
_DELTAS: Final = frozenset({b"response.output_text.delta", b"response.refusal.delta"})
_ENDS: Final[Mapping[bytes, EndStatus]] = {
    b"response.completed": "completed",
    b"response.incomplete": "incomplete",
    b"response.failed": "failed",
}
_STATUSES: Final[Mapping[str | None, EndStatus]] = {s: s for s in get_args(EndStatus)}
_NOTHING: Final = msgspec.Raw(b"null")


# Only what is read; compatible servers leave out or add what they like.
class _Kind(Struct):
    type: str = ""


class _Delta(Struct):
    delta: str


class _Fault(Struct):
    code: str | int | None = None


class _ErrorEvent(Struct):
    code: str | int | None = None
    error: _Fault | None = None


class _IncompleteDetails(Struct):
    reason: str | None = None


class _Response(Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    error: _Fault | None = None
    incomplete_details: _IncompleteDetails | None = None
    output: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    service_tier: str | None = None


class _ResponseEvent(Struct):
    response: _Response


class _Part(Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    type: str = ""
    content: list[_Part] | None = None


_kind = msgspec.json.Decoder(_Kind).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_error = msgspec.json.Decoder(_ErrorEvent).decode
_response = msgspec.json.Decoder(_Response).decode
_response_event = msgspec.json.Decoder(_ResponseEvent).decode
_items = msgspec.json.Decoder(list[_Item] | None).decode


@dataclass(frozen=True, slots=True)
class ResponsesLLM:
    """The Responses API as an `LLM`. It always streams: so a reply that breaks off has an id to ask for.

    Args:
        reads_files: the server takes files as they are; few but OpenAI's do.
    """

    client: AsyncOpenAI
    retries: Retries = RETRIES
    reads_files: bool = True

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`; a model that reads none refuses them itself."""
        return True

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        started = refused = False
        said = ""  # grows in place; a buffer or a list would keep each of the many pieces
        answer = post_for_events(self.client, "/responses", request, _body(request), self.retries)
        with translated(BROKEN_ANSWER):
            async with aclosing(answer) as events:
                async for event in events:
                    name = _name(event)
                    if name in _DELTAS:
                        if not started:
                            started = True
                            yield ModelStarted(None, request.model)
                        if text := _delta(event.data).delta:
                            said += text
                            refused = refused or name == b"response.refusal.delta"
                            yield TextDelta(text)
                    elif name in _BEGINNINGS or name in _ENDS:
                        if not started:
                            started = True
                            yield _started(_response_event(event.data).response, request)
                        if name in _BEGINNINGS:
                            continue
                        response = _response_event(event.data).response
                        if not said:
                            text, refused = _output(response.output)
                            if text:
                                said = text
                                yield TextDelta(text)
                        yield _ended(_ENDS[name], response, said, refused)
                        await drained(events)
                        return
                    elif name == b"error":
                        fault = _error(event.data)
                        raise reported(fault.error.code if fault.error else fault.code)
        raise ProviderError("The provider's stream ended before the reply did.")

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:
        """Keeps `LLM.outcome`."""
        body = await get(self.client, f"/responses/{quote(provider_response_id, safe='')}")
        if body is None:
            return None
        try:
            response = _response(body)
            text, refused = _output(response.output)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProviderError("The provider described the response in a way we cannot read.") from None
        status = _STATUSES.get(response.status)
        return None if status is None else _ended(status, response, text, refused)


def _body(request: ModelRequest) -> dict[str, object]:
    body: dict[str, object] = {
        "model": request.model,
        # The form that all compatible servers take, for earlier replies too: with a type, without parts, id and status.
        "input": [{"type": "message", "role": m.role, "content": _content(m)} for m in request.messages],
        "max_output_tokens": request.max_output_tokens,
        "store": request.transcript_id is not None,  # only what is stored can be asked for after a broken stream
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }
    optional = {
        "conversation": request.transcript_id,
        "instructions": request.instructions,
        "safety_identifier": request.safety_identifier or None,
        "prompt_cache_key": request.cache_key or None,
        "temperature": request.temperature,
        "metadata": request.metadata or None,
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def _content(message: Message) -> object:
    has_files = any(isinstance(part, InputImage | InputFile) for part in message.content)
    return input_parts(message) if has_files else message.text


def _started(response: _Response, request: ModelRequest) -> ModelStarted:
    kept_id = response.id if request.transcript_id else None  # `store: false` keeps nothing
    return ModelStarted(kept_id, response.model or request.model)


def _delta(data: bytes) -> _Delta:
    try:
        return _decode_delta(data)
    except msgspec.DecodeError:
        # msgspec takes no half of a surrogate pair, which may well stand at the end of a delta.
        return msgspec.convert(json.loads(data), _Delta)


def _name(event: ServerSentEvent) -> bytes:
    """What the event is; where it has no name of its own, its data says so."""
    if event.name not in (b"", b"message") or event.data == b"[DONE]":
        return event.name
    return _kind(event.data).type.encode()


def _output(output: msgspec.Raw) -> tuple[str, bool]:
    """The text of all messages in the output, and whether any of it is a refusal. Reasoning comes before them."""
    parts = [part for item in _items(output) or () if item.type == "message" for part in item.content or ()]
    text = "".join(part.text or part.refusal or "" for part in parts if part.type in ("output_text", "refusal"))
    return text, any(part.type == "refusal" for part in parts)


def _ended(status: EndStatus, response: _Response, text: str, refused: bool) -> ModelEnded:
    reason = response.incomplete_details.reason if response.incomplete_details else None
    cut_short = status == "incomplete" and reason != "content_filter"
    finish_reason: FinishReason = "refusal" if refused else "length" if cut_short else "stop"
    return ModelEnded(
        status=status,
        usage=responses_usage(response.usage),
        text=text,
        finish_reason=finish_reason,
        content_filtered=status == "incomplete" and reason == "content_filter",
        service_tier=response.service_tier,
        error_code=named(response.error.code) if response.error else None,
    )
