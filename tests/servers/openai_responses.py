"""The Responses API: what it accepts, and what a response looks like as an object and as a stream of events."""

import base64
import json
import secrets
import time
from collections.abc import Iterable
from typing import Any

from tests.servers import openai_tools
from tests.servers.openai_items import INCLUDABLE, invalid, missing, new_id
from tests.servers.openai_runs import Outcome
from tests.servers.openai_script import ApiError, Json, Usage

SAMPLING_KEYS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs")  # of both APIs
REASONING_MODELS = ("gpt-5", "gpt-6", "o1", "o3", "o4")
ENCRYPTED = "reasoning.encrypted_content"
SNAPSHOTS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
}


def snapshot_of(model: str) -> str:
    """The dated model that answers when `model` is asked for."""
    return SNAPSHOTS.get(model, model)


def check_include(include: Iterable[str]) -> None:
    for n, value in enumerate(include):
        if value not in INCLUDABLE:
            raise invalid(value, INCLUDABLE, f"include[{n}]")


def check_references(body: Json) -> None:
    """Something to answer, and one history at most; null is the same as absent."""
    given = {key for key, value in body.items() if value is not None}
    if given >= {"conversation", "previous_response_id"}:
        message = "Mutually exclusive parameters: 'conversation' and 'previous_response_id'. Only one may be given."
        raise ApiError(400, message, code="mutually_exclusive_parameters")
    if not given & {"input", "conversation", "previous_response_id", "prompt"}:
        raise missing("input")


def check_capability(body: Json) -> None:
    """Reasoning models take no sampling parameters; the others have nothing to encrypt."""
    if not body["model"].startswith(REASONING_MODELS):
        if ENCRYPTED in (body.get("include") or []):
            raise ApiError(400, "Encrypted content is not supported with this model.", param="include")
        return
    for key in SAMPLING_KEYS:
        if body.get(key) is not None:
            message = f"Unsupported parameter: '{key}' is not supported with this model."
            raise ApiError(400, message, param=key, code="unsupported_parameter" if key == "top_logprobs" else None)


def wire_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


class ResponsesWire:
    """A response as an object, and its events; one message, perhaps after a reasoning item."""

    def __init__(
        self,
        body: Json,
        *,
        conversation_id: str | None,
        service_tier: str | None,
        refuses: bool,
        annotations: Iterable[Json] = (),
    ) -> None:
        asked_tier = body.get("service_tier")
        self.id = new_id("resp")
        self.model = snapshot_of(body["model"])
        self.service_tier: str = service_tier or ("default" if asked_tier in (None, "auto") else asked_tier)
        self.output: list[Json] = []
        self.streamed = bool(body.get("stream"))
        self.response: Json = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "queued" if body.get("background") else "in_progress",
            "background": bool(body.get("background")),
            "conversation": {"id": conversation_id} if conversation_id else None,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "max_tool_calls": body.get("max_tool_calls"),
            "metadata": body.get("metadata") or {},
            "model": self.model,
            "output": [],
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "previous_response_id": body.get("previous_response_id"),
            "prompt_cache_key": body.get("prompt_cache_key"),
            "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
            "safety_identifier": body.get("safety_identifier"),
            "service_tier": self.service_tier,
            "store": body.get("store") is not False,
            "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
            "text": {"format": {"type": "text"}, "verbosity": "medium", **(body.get("text") or {})},
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "top_logprobs": body.get("top_logprobs") or 0,
            "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
            "truncation": body.get("truncation") or "disabled",
            "usage": None,
            "user": None,
        }
        self._kind = "refusal" if refuses else "output_text"
        self._field = "refusal" if refuses else "text"
        self._obfuscated = (body.get("stream_options") or {}).get("include_obfuscation", True)
        self._encrypts = ENCRYPTED in (body.get("include") or [])
        self._message_id = new_id("msg")
        self._annotations = list(annotations)
        self._said: list[str] = []
        self._events = 0

    def begin(self) -> Iterable[bytes]:
        yield self._event("response.created", response=self.response)
        if self.response["background"]:
            yield self._event("response.queued", response=self.response)
        self.response = {**self.response, "status": "in_progress"}
        yield self._event("response.in_progress", response=self.response)

    def think(self, text: str, /) -> Iterable[bytes]:
        item: Json = {"id": new_id("rs"), "type": "reasoning", "summary": []}
        place: Json = {"item_id": item["id"], "output_index": 0, "summary_index": 0}
        yield self._event("response.output_item.added", output_index=0, item=item)
        if self.response["reasoning"]["summary"]:
            part = {"type": "summary_text", "text": text}
            yield self._event("response.reasoning_summary_part.added", **place, part={**part, "text": ""})
            yield self._event("response.reasoning_summary_text.delta", **place, delta=text, **self._padding())
            yield self._event("response.reasoning_summary_text.done", **place, text=text)
            yield self._event("response.reasoning_summary_part.done", **place, part=part)
            item = {**item, "summary": [part]}
        if self._encrypts:
            item = {**item, "encrypted_content": base64.b64encode(text.encode()).decode()}
        yield self._event("response.output_item.done", output_index=0, item=item)
        self.output.append(item)

    def begin_tool(self, item: Json, /) -> Iterable[bytes]:
        return openai_tools.begun(item, len(self.output), self._event)

    def end_tool(self, item: Json, /) -> Iterable[bytes]:
        yield from openai_tools.done(item, len(self.output), self._event)
        self.output.append(item)

    def speak(self, delta: str) -> Iterable[bytes]:
        if not self._said:
            message = self._message("in_progress", [])
            yield self._event("response.output_item.added", output_index=len(self.output), item=message)
            yield self._event("response.content_part.added", **self._place(), part=self._part(""))
        self._said.append(delta)
        logprobs: Json = {} if self._kind == "refusal" else {"logprobs": []}
        yield self._event(f"response.{self._kind}.delta", **self._place(), delta=delta, **logprobs, **self._padding())

    def finish(self, outcome: Outcome) -> Iterable[bytes]:
        match outcome.status:
            case "completed" | "incomplete":
                if self._said:
                    yield from self._finish_message(outcome.status)
                for name, arguments in outcome.calls:
                    yield from self._call(name, arguments)
                reason = {"reason": outcome.detail} if outcome.status == "incomplete" else None
                completed_at = int(time.time()) if outcome.status == "completed" else None
                changes = {"output": list(self.output), "incomplete_details": reason, "completed_at": completed_at}
            case "failed":
                changes = {"error": {"code": outcome.detail, "message": "The model failed, as it was told to."}}
            case "cancelled":
                changes = {}
        usage = None if outcome.usage is None else wire_usage(outcome.usage)
        self.response = {**self.response, **changes, "status": outcome.status, "usage": usage}
        error = {**(self.response["error"] or {}), "param": None}
        if outcome.status == "failed" and outcome.shape == "error_flat":
            yield self._event("error", **error)
        elif outcome.status == "failed" and outcome.shape == "error_nested":
            yield self._event("error", error={"type": "server_error", **error})
        elif outcome.status != "cancelled":
            yield self._event(f"response.{outcome.status}", response=self.response)

    def _finish_message(self, status: str) -> Iterable[bytes]:
        text = "".join(self._said)
        message = self._message(status, [self._part(text)])
        logprobs: Json = {} if self._kind == "refusal" else {"logprobs": []}
        for n, note in enumerate(self._annotations):
            told = {"annotation_index": n, "annotation": note}
            yield self._event("response.output_text.annotation.added", **self._place(), **told)
        yield self._event(f"response.{self._kind}.done", **self._place(), **{self._field: text}, **logprobs)
        yield self._event("response.content_part.done", **self._place(), part=self._part(text))
        yield self._event("response.output_item.done", output_index=len(self.output), item=message)
        self.output.append(message)

    def _call(self, name: str, arguments: str) -> Iterable[bytes]:
        thought = next((item["id"] for item in self.output if item["type"] == "reasoning"), None)
        item_id = f"fc_{thought}_{len(self.output)}" if thought else new_id("fc")
        item = {"id": item_id, "type": "function_call", "status": "in_progress", "call_id": new_id("call")[:29]}
        item |= {"name": name, "arguments": ""}
        place = {"item_id": item["id"], "output_index": len(self.output)}
        yield self._event("response.output_item.added", output_index=len(self.output), item=item)
        half = len(arguments) // 2
        for piece in (arguments[:half], arguments[half:]):
            yield self._event("response.function_call_arguments.delta", **place, delta=piece, **self._padding())
        yield self._event("response.function_call_arguments.done", **place, name=name, arguments=arguments)
        item |= {"status": "completed", "arguments": arguments}
        yield self._event("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)

    def _message(self, status: str, content: list[Json]) -> Json:
        return {"id": self._message_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self, text: str) -> Json:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": self._annotations if text else [], "logprobs": [], "text": text}

    def _place(self) -> Json:
        return {"item_id": self._message_id, "output_index": len(self.output), "content_index": 0}

    def _padding(self) -> Json:
        """Random filler that hides the length of a delta from those who watch the encrypted line."""
        return {"obfuscation": secrets.token_urlsafe(12)[: secrets.randbelow(16) + 1]} if self._obfuscated else {}

    def _event(self, kind: str, **content: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._events, **content}
        self._events += 1
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
