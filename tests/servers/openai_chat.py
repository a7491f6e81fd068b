"""Chat Completions, as OpenAI-compatible servers speak it: the same model, another form."""

import json
import time
from collections.abc import Iterable
from typing import Any

from tests.servers.openai_items import new_id
from tests.servers.openai_responses import snapshot_of
from tests.servers.openai_runs import Outcome
from tests.servers.openai_script import ApiError, Json, Usage

THINKING_MODELS = ("deepseek", "kimi")  # which are told again what they thought before a call


def check_thoughts(body: Json) -> None:
    """What such models ask for comes back with what they thought, if need be with nothing."""
    calling = [message for message in body["messages"] if message.get("tool_calls")]
    if body["model"].startswith(THINKING_MODELS) and any("reasoning_content" not in each for each in calling):
        raise ApiError(400, "The `reasoning_content` in the thinking mode must be passed back to the API.")


def items_of(body: Json) -> list[Json]:
    """The messages of a chat request as input items, unchecked."""
    return [item for message in body["messages"] for item in _items_of(message)]


def _items_of(message: Json) -> Iterable[Json]:
    if message["role"] == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
        return
    calls = message.get("tool_calls") or []
    if message.get("content") is not None or not calls:
        yield {"role": message["role"], "content": _content(message)}
    for call in calls:
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _content(message: Json) -> Any:
    content = message.get("content")
    if not isinstance(content, list):
        return content
    return [_part(part, message.get("role")) for part in content]


def _part(part: Any, role: Any) -> Any:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url, **more}}:
            return {"type": "input_image", "image_url": url, **more}
        case _:
            return part


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class ChatWire:
    """A chat completion as an object, and its chunks."""

    def __init__(self, body: Json, *, service_tier: str | None, refuses: bool) -> None:
        self.id = new_id("chatcmpl")
        self.model = snapshot_of(body["model"])
        self.service_tier: str = service_tier or "default"
        self.output: list[Json] = []
        self.completion: Json = {}
        self._include_usage = (body.get("stream_options") or {}).get("include_usage", False)
        self._created = int(time.time())
        self._field = "refusal" if refuses else "content"
        self._said: list[str] = []

    def begin(self) -> Iterable[bytes]:
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def think(self, text: str, /) -> Iterable[bytes]:
        """Some models tell it; else it shows in the usage alone."""
        if self.model.startswith(THINKING_MODELS):
            for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield self._chunk({"reasoning_content": piece})

    def begin_tool(self, item: Json, /) -> Iterable[bytes]:
        """This API has no such tools."""
        raise AssertionError(f"{item['type']} was scripted for a chat completion")

    end_tool = begin_tool

    def speak(self, delta: str) -> Iterable[bytes]:
        self._said.append(delta)
        yield self._chunk({self._field: delta})

    def finish(self, outcome: Outcome) -> Iterable[bytes]:
        if outcome.usage is None or outcome.status == "failed":
            error = {"type": "server_error", "code": outcome.detail, "message": "The model failed.", "param": None}
            yield _data({"error": error})
            return
        reasons = {None: "stop", "max_output_tokens": "length", "content_filter": "content_filter"}
        reason = "tool_calls" if outcome.calls else reasons[outcome.detail]
        message: Json = {"role": "assistant", "content": None, "refusal": None, self._field: "".join(self._said)}
        if outcome.calls:
            calls: list[Json] = [
                {"id": new_id("call")[:29], "type": "function", "function": {"name": name, "arguments": arguments}}
                for name, arguments in outcome.calls
            ]
            message["tool_calls"] = calls
            for index, call in enumerate(calls):
                whole = call["function"]["arguments"]
                head = {**call, "function": {**call["function"], "arguments": ""}}
                yield self._chunk({"tool_calls": [{"index": index, **head}]})
                for piece in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                    yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        usage = _usage(outcome.usage)
        self.completion = {**self._head("chat.completion"), "choices": [choice], "usage": usage}
        yield self._chunk({}, reason)
        if self._include_usage:
            yield _data({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self.model,
            "service_tier": self.service_tier,
            "system_fingerprint": None,
        }

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return _data({**self._head("chat.completion.chunk"), "choices": [choice], **usage})


def _data(content: Json) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
