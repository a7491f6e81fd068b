"""A second stand-in: servers that speak Chat Completions in their own ways, each behind the name of a model.

The ways are those that public reports describe; every quirk says what must come of it.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from aiohttp import web
from tests.servers.openai_shapes import refusal_of

Json = dict[str, Any]
TEXT = "Tea is ready."
THOUGHT = "Let me see, is there any tea? " * 20
TOO_LONG = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
DONE = b"data: [DONE]\n\n"
REQUEST_ID = "req_quirk_1"


@dataclass(frozen=True, slots=True)
class Quirk:
    """What a model answers, and what must come of it.

    Args:
        said: the body, on the wire; `status`, `content_type`, `headers`: of the answer.
        images_only: turns without images are answered in the ordinary way.
        code: of the error that is told; None for a reply.
        text: of the reply; `finish`: how it ended.
        usage: tokens charged: input, output, cached, written, reasoning; None for a turn that costs nothing. An input
            of 0 is one that the provider does not state.
        estimated: the charge is an estimate.
    """

    said: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    images_only: bool = False
    code: str | None = None
    text: str = TEXT
    finish: str = "stop"
    usage: tuple[int, ...] | None = (9, 4)
    estimated: bool = False


def data(*chunks: Json | list[Any] | str) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def chunk(content: object = None, finish: object = None, **more: Any) -> Json:
    delta = {} if content is None else {"content": content}
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    } | more


def thinking(text: str, name: str = "reasoning_content") -> Json:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", name: text}, "finish_reason": None}]}


def usage(prompt: object = 9, completion: object = 4, **more: object) -> Json:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion} | more}


def ended(finish: object, native: object = None) -> bytes:
    last = chunk(finish=finish)
    if native is not None:
        last["choices"][0]["native_finish_reason"] = native
    return data(chunk("Tea is "), chunk("ready."), last, usage()) + DONE


def lines(*chunks: Json) -> bytes:
    return b"".join(json.dumps(chunk).encode() + b"\n" for chunk in chunks)


def stating(stated: Json) -> bytes:
    return data(chunk(TEXT), chunk(finish="stop"), stated) + DONE


def broken_by(error: object) -> bytes:
    return data({"error": error}) + DONE


def refused(status: int, body: object, code: str, **more: Any) -> Quirk:
    """An answer of 4xx or 5xx."""
    said = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Quirk(said, status, "application/json", more.pop("headers", {}), code=code, usage=None, **more)


def too_long(status: int, body: object) -> Quirk:
    return refused(status, body, "context_too_long")


def blind(status: int, message: str) -> Quirk:
    """A model without eyes."""
    return refused(status, {"error": {"message": message}}, "unsupported_media_type", images_only=True)


WHOLE = {"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]} | {
    "usage": {"prompt_tokens": 9, "completion_tokens": 4}
}

CHARGES: dict[str, Quirk] = {
    "ordinary": Quirk(stating(usage())),
    "reasoning-beside-the-output": Quirk(
        stating(
            usage(10120, 1499, total_tokens=14428, completion_tokens_details={"reasoning_tokens": 2809}),
        ),
        usage=(10120, 4308, 0, 0, 2809),
    ),
    "total-beyond-its-parts": Quirk(stating(usage(20, 198, total_tokens=623)), usage=(20, 603), estimated=True),
    "zeros": Quirk(stating(usage(0, 0, total_tokens=0)), usage=(0, 4), estimated=True),
    "zeros-after-counts": Quirk(data(chunk(TEXT, "stop", usage=usage()["usage"]), usage(0, 0)) + DONE),
    "details-in-a-list": Quirk(stating(usage(prompt_tokens_details=[], completion_tokens_details=[{}]))),
    "details-as-floats": Quirk(
        stating(usage(9.0, 4.0, prompt_tokens_details={"cached_tokens": 8.0})), usage=(9, 4, 8)
    ),
    "cached-beyond-the-input": Quirk(stating(usage(prompt_tokens_details={"cached_tokens": 90}))),
    "usage-in-the-choice": Quirk(
        data(chunk(TEXT), {"choices": [{"delta": {}, "finish_reason": "stop", "usage": usage()["usage"]}]}) + DONE
    ),
    "usage-of-groq": Quirk(data(chunk(TEXT), chunk(finish="stop", x_groq={"id": "1", "usage": usage()["usage"]}))),
    "no-usage": Quirk(data(chunk(TEXT), chunk(finish="stop")) + DONE, usage=(0, 4), estimated=True),
    "no-usage-of-thoughts": Quirk(
        data(thinking(THOUGHT), thinking(THOUGHT, "reasoning"), chunk(TEXT), chunk(finish="stop")) + DONE,
        usage=(0, 304, 0, 0, 300),
        estimated=True,
    ),
    "empty-thoughts": Quirk(data(thinking(""), chunk(TEXT, "stop"), usage())),
    "secret-thoughts": Quirk(
        data(
            {"choices": [{"delta": {"content": "", "reasoning_details": [{"type": "reasoning.encrypted"}]}}]},
            chunk(TEXT, "stop", x_groq=7),
            usage(),
        )
    ),
    "usage-without-thoughts": Quirk(
        data(thinking(THOUGHT), chunk(TEXT), chunk(finish="stop"), usage()) + DONE, usage=(9, 154), estimated=True
    ),
    "not-streamed": Quirk(
        json.dumps(WHOLE).encode(), content_type="application/json"
    ),
    "streamed-as-json": Quirk(b"\n" + ended("stop"), content_type="application/json"),
    "usage-as-nan": Quirk(stating(usage(prompt_tokens_details={"cached_tokens": float("nan")}))),
    "usage-without-end": Quirk(stating(usage(prompt_tokens_details={"cached_tokens": 10**400}))),
    "spaces-around": Quirk(
        data(chunk(TEXT)).replace(b"data: ", b"data:  ") + data(chunk(finish="stop"), usage()) + b"data:  [DONE] \n\n"
    ),
    "no-last-blank-line": Quirk(data(chunk(TEXT), chunk(finish="stop"), usage()).rstrip()),
    "no-last-line-break-and-one-half": Quirk(
        data(chunk(TEXT), chunk(finish="stop"), usage()) + b'data: {"choices": [{"index": 0, "del'
    ),
    "byte-order-mark": Quirk(b"\xef\xbb\xbf" + stating(usage())),
    "choices-of-nothing": Quirk(
        data({"choices": [None]}, {"choices": {}}, {"choices": ""}) + ended("stop")
    ),
    "deltas-of-nothing": Quirk(
        data({"choices": [{"delta": ""}]}, {"choices": [{"delta": [], "message": 7}]}) + ended("stop")
    ),
    "usage-in-a-list": Quirk(stating({"choices": [], "usage": [usage()["usage"]]})),
    "usage-in-halves": Quirk(
        data(chunk(TEXT, usage=usage(9, 1)["usage"]), chunk(finish="stop", usage=usage(0, 4)["usage"])) + DONE
    ),
    "usage-of-anthropic": Quirk(
        stating({"choices": [], "usage": {"input_tokens": 9, "output_tokens": 4, "cache_read_input_tokens": 80}}),
        usage=(89, 4, 80),
    ),
    "usage-in-the-delta": Quirk(
        data(chunk(TEXT), {"choices": [{"delta": {"usage": usage()["usage"]}, "finish_reason": "stop"}]}) + DONE
    ),
    "usage-of-ollama": Quirk(data(chunk(TEXT), chunk(finish="stop", prompt_eval_count=9, eval_count=4)) + DONE),
    "usage-of-gemini": Quirk(
        stating({"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}})
    ),
    "whole-in-a-list": Quirk(json.dumps([WHOLE]).encode(), content_type="application/json"),
    "whole-in-spaces": Quirk(json.dumps(WHOLE, indent=1).encode(), content_type="application/json"),
    "chunks-in-a-list": Quirk(
        json.dumps([chunk("Tea is "), chunk("ready.", "stop"), usage()], indent=1).encode(),
        content_type="application/json",
    ),
    "chunks-in-a-list-in-an-event": Quirk(data([chunk("Tea is "), chunk("ready.", "stop"), usage()]) + DONE),
    "chunks-in-lines": Quirk(
        lines(chunk("Tea is "), chunk("ready."), chunk(finish="stop"), usage()), content_type="application/x-ndjson"
    ),
    "chunks-without-blank-lines": Quirk(
        data(chunk("Tea is "), chunk("ready.", "stop"), usage()).replace(b"\n\n", b"\n") + b"\n" + DONE
    ),
    "ollama-in-its-own-words": Quirk(
        lines(
            {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
            {"message": {"role": "assistant", "content": "Tea is "}, "done": False},
            {"message": {"role": "assistant", "content": "ready."}, "done": False},
            {"message": {"content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4},
        ),
        content_type="application/x-ndjson",
    ),
    "counts-as-it-goes-and-breaks": Quirk(
        data(chunk("Tea", usage=usage(9, 1)["usage"]), chunk(" is", usage=usage(9, 4)["usage"])) + b"data: {\n\n",
        code="provider_error",
        estimated=True,
    ),
    "text-again-at-the-end": Quirk(
        data(chunk("Tea is "), chunk("ready."), {"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]},
             usage()) + DONE
    ),
    "text-beside-an-empty-delta": Quirk(
        data({"choices": [{"delta": {}, "message": {"content": TEXT}, "finish_reason": "stop"}]}, usage()) + DONE
    ),
    "text-as-of-old-beside-a-delta": Quirk(
        data({"choices": [{"delta": {"content": None}, "text": TEXT, "finish_reason": "stop"}]}, usage()) + DONE
    ),
    "text-as-of-old": Quirk(data({"choices": [{"text": TEXT, "finish_reason": "stop"}]}, usage()) + DONE),
    "texts-in-a-list": Quirk(data(chunk(["Tea is ", None, "ready."], "stop"), usage()) + DONE),
    "text-in-parts": Quirk(
        data(chunk([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": TEXT}], "stop"), usage())
    ),
}  # fmt: skip

ENDS: dict[str, Quirk] = {
    "ends-native-error": Quirk(ended("stop", "error"), code="provider_error"),
    "ends-native-safety": Quirk(ended("stop", "SAFETY"), code="content_refused"),
    "ends-native-length": Quirk(ended("stop", "MAX_TOKENS"), finish="length"),
    "ends-native-overload": Quirk(ended("stop", "overloaded_error"), code="provider_unavailable"),
    "ends-native-well": Quirk(ended("stop", "end_turn")),
    "ends-native-as-nobody-knows": Quirk(ended("stop", "tea_time")),
    "ends-native-alone": Quirk(ended(None, "stop")),
    "ends-full-and-native-well": Quirk(ended("length", "STOP"), finish="length"),
    "ends-in-a-call-beside-the-text": Quirk(ended("tool_calls")),
    "ends-in-a-call-alone": Quirk(data(chunk(finish="tool_calls"), usage()) + DONE, code="provider_error"),
    "ends-eos": Quirk(ended("eos_token")),
    "ends-max-tokens": Quirk(ended("max_tokens"), finish="length"),
    "ends-model-length": Quirk(ended("model_length"), finish="length"),
    "ends-as-nobody-knows": Quirk(ended("tea_time"), finish="length"),
    "ends-in-spaces": Quirk(ended(" stop ")),
    "ends-null-before-it-stops": Quirk(
        data(chunk("Tea is ", "null"), chunk("ready.", "None"))
        + ended("stop")[len(data(chunk("Tea is "), chunk("ready."))) :]
    ),
    "ends-error-and-then-stops": Quirk(data(chunk("Tea is ", "error")) + ended("stop"), code="provider_error"),
    "ends-full-and-then-stops": Quirk(data(chunk("", "length")) + ended("stop"), finish="length"),
    "ends-failed": Quirk(ended("failed"), code="provider_error"),
    "ends-overloaded": Quirk(ended("engine_overloaded_error"), code="provider_unavailable"),
    "ends-in-no-word": Quirk(ended({"why": 1}), code="provider_error"),
    "ends-safety": Quirk(ended("SAFETY"), code="content_refused"),
    "ends-filtered-by-bedrock": Quirk(ended("guardrail_intervened"), code="content_refused"),
    "ends-filtered-by-zhipu": Quirk(ended("sensitive"), code="content_refused"),
    "ends-internal": Quirk(ended("internal_error"), code="provider_error"),
    "ends-error": Quirk(ended("error"), code="provider_error"),
    "ends-abort": Quirk(ended("abort"), code="provider_error"),
    "ends-insufficient": Quirk(ended("insufficient_system_resource"), code="provider_unavailable"),
    "error-in-the-choice": Quirk(
        data(
            chunk("Tea is "),
            {"choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}]},
            usage(),
        ),
        code="provider_unavailable",
    ),
    "no-text": Quirk(b": waiting\n\n" + DONE, code="provider_error", usage=(0, 0), estimated=True),
    "half-a-chunk": Quirk(
        data(chunk(TEXT)) + b'data: {"choices": [{"delta\n\n', code="provider_error", usage=(0, 4), estimated=True
    ),
    "no-end": Quirk(data(chunk(TEXT)) + DONE, code="provider_error", usage=(0, 4), estimated=True),
    "no-end-but-usage": Quirk(data(chunk(TEXT), usage()) + DONE, code="provider_error"),
}

CHARACTERS: dict[str, Quirk] = {
    "split-emoji": Quirk(
        data(chunk("\ud83d"), chunk("\ude00"), chunk(finish="stop"), usage(9, 1)), text="\U0001f600", usage=(9, 1)
    ),
    "half-an-emoji": Quirk(data(chunk("a"), chunk("\ud83d"), chunk("b", "stop"), usage(9, 3)), text="a\ufffdb",
                           usage=(9, 3)),
    "some-bytes-of-an-emoji": Quirk(
        data(chunk("a")).replace(b'"a"', b'"a\xf0\x9f"') + data(chunk("b", "stop"), usage(9, 2)), text="a\ufffdb",
        usage=(9, 2),
    ),
    "half-an-emoji-in-its-name": Quirk(data(chunk(TEXT, "stop", model="\ud83d"), usage())),
    "half-an-emoji-in-a-name": Quirk(data(chunk(TEXT, "stop", **{"\ud83d": {"a\ud83d": 1}}), usage())),
}  # fmt: skip

STREAMED_ERRORS: dict[str, Quirk] = {
    name: Quirk(said, code=code, usage=None)
    for name, (said, code) in {
        "streams-too-long": (broken_by({"code": 400, "message": TOO_LONG}), "context_too_long"),
        "streams-too-long-as-text": (broken_by(TOO_LONG), "context_too_long"),
        "streams-too-long-in-a-list": (data([{"error": {"code": 400, "message": TOO_LONG}}]), "context_too_long"),
        "streams-too-long-flat": (
            data({"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": 400}),
            "context_too_long",
        ),
        "streams-too-long-by-name": (
            b"event: error\n" + data({"error": {"message": "Trying to keep the first 9000 tokens when context the "
                                                           "overflows."}}),
            "context_too_long",
        ),
        "streams-too-long-of-another": (
            b"event: error\n" + data({"error": {"error": {"code": "context_length_exceeded"}}}),
            "context_too_long",
        ),
        "streams-too-long-in-words": (b"event: error\ndata: Context size has been exceeded.\n\n", "context_too_long"),
    }.items()
}  # fmt: skip
STREAMED_ERRORS |= {
    "streams-rate": Quirk(
        broken_by({"type": "rate_limit_error", "code": 429}), code="provider_unavailable", usage=None
    ),
    "streams-rate-later": Quirk(
        broken_by({"code": 429, "message": "Please try again in 20s."}), code="provider_unavailable", usage=None
    ),
    "streams-rate-in-minutes": Quirk(
        broken_by({"code": 429.0, "message": "Please try again in 1m30.5s."}), code="provider_unavailable", usage=None
    ),
    "streams-rate-as-a-number": Quirk(broken_by(429), code="provider_unavailable", usage=None),
    "streams-quota": Quirk(broken_by({"code": "insufficient_quota"}), code="provider_error", usage=None),
}
STREAMED_ERRORS |= {
    name: Quirk(broken_by(error), code=code, usage=(0, 0), estimated=True)
    for name, error, code in [
        ("streams-overload", {"code": "503", "message": "busy"}, "provider_unavailable"),
        ("streams-a-word", "out of tea", "provider_error"),
        ("streams-a-list", ["out of tea", 7], "provider_error"),
        ("streams-strange-types", {"code": {"a": 1}, "type": ["x"], "message": 7}, "provider_error"),
    ]
}
STREAMED_ERRORS |= {
    name: Quirk(said, code=code, usage=(0, 0), estimated=True)
    for name, said, code in [
        (
            "streams-overload-of-anthropic",
            b"event: error\n" + data({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            "provider_unavailable",
        ),
        ("streams-too-long-as-detail", data({"detail": TOO_LONG}), "context_too_long"),
        ("streams-too-long-aside", data({"type": "error", "message": TOO_LONG}) + DONE, "context_too_long"),
        ("streams-rate-beside-no-choices", data({"choices": [], "code": 429, "msg": "slow"}), "provider_unavailable"),
        (
            "streams-rate-beside-no-tokens",
            data({"choices": None, "usage": {"total_tokens": 0}, "base_resp": {"status_code": 429}}),
            "provider_unavailable",
        ),
        (
            "streams-rate-before-no-tokens",
            data({"code": 429}, {"choices": [], "usage": {"total_tokens": 0}}),
            "provider_unavailable",
        ),
        ("streams-rate-aside", data({"code": 429, "msg": "slow down"}) + DONE, "provider_unavailable"),
    ]
}
STREAMED_ERRORS["answers-200-with-an-error"] = Quirk(
    json.dumps({"error": {"message": TOO_LONG}}).encode(),
    content_type="application/json",
    code="context_too_long",
    usage=None,
)

_TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens"
_LM_STUDIO = (
    "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context "
    "length of only 4096 tokens, which is not enough."
)
_GEMINI = "The input token count (218152) exceeds the maximum number of tokens allowed (65536)."

REFUSALS: dict[str, Quirk] = {
    "vllm-too-long": too_long(
        400, {"object": "error", "message": TOO_LONG, "type": "BadRequestError", "param": None, "code": 400}
    ),
    "vllm-too-long-prompt": too_long(
        400,
        {"error": {"message": "The decoder prompt (length 9000) is longer than the maximum model length of 8192."}},
    ),
    "sglang-too-long": too_long(
        400,
        {
            "object": "error",
            "message": "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    "tgi-too-long": too_long(422, {"error": _TGI, "error_type": "validation"}),
    "together-too-long": too_long(422, {"error": {"message": _TGI, "type": "invalid_request_error", "param": None}}),
    "lm-studio-too-long": too_long(400, {"error": _LM_STUDIO}),
    "llama-cpp-too-long": too_long(
        400, {"error": {"code": 400, "message": "too much", "type": "exceed_context_size_error", "n_ctx": 8192}}
    ),
    "llama-cpp-too-long-later": too_long(
        500, {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}
    ),
    "gemini-too-long": too_long(
        400, [{"error": {"code": 400, "message": _GEMINI, "status": "INVALID_ARGUMENT"}}]
    ),
    "anthropic-too-long": too_long(
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 maximum"},
        },
    ),
    "ogx-too-long": too_long(400, {"detail": f"Error code: 400 - {{'message': \"{TOO_LONG}\"}}"}),
    "ogx-too-long-in-errors": too_long(400, {"error": {"detail": {"errors": [{"loc": ["body"], "msg": TOO_LONG}]}}}),
    "xai-too-long": too_long(
        400, {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072"}
    ),
    "groq-too-long": too_long(
        413,
        {"error": {"message": "Request too large for model `tea-1` on tokens per minute: Limit 6000, Requested 9000",
                   "type": "tokens", "code": "rate_limit_exceeded"}},
    ),
    "openai-too-long-for-a-minute": too_long(
        429,
        {"error": {"message": "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.",
                   "type": "tokens", "code": "rate_limit_exceeded"}},
    ),
    "openai-too-long-string": too_long(
        400, {"error": {"message": "string too long", "code": "string_above_max_length", "param": "input[0].content"}}
    ),
    "litellm-too-long": too_long(500, {"error": {"message": "litellm.ContextWindowExceededError: no", "code": "400"}}),
    "a-proxy-too-long": too_long(413, "<html><h1>413 Request Entity Too Large</h1></html>"),
    "deepseek-filtered": refused(400, {"error": {"message": "Content Exists Risk"}}, "content_refused"),
    "quota-of-dashscope": refused(400, {"error": {"code": "Arrearage", "message": "Access denied"}}, "provider_error"),
    "quota-of-openrouter": refused(403, {"error": {"message": "Key limit exceeded (total limit)"}}, "provider_error"),
    "rate-of-gemini": refused(
        429,
        [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED",
                    "details": [{"retryDelay": "34s"}]}}],
        "provider_unavailable",
    ),
    "rate-without-end": refused(429, {"error": {"message": "slow", "retry_after": 10**400}}, "provider_unavailable"),
    "rate-for-a-day": refused(429, {"error": "slow"}, "provider_unavailable", headers={"retry-after": "86400"}),
    "rate-for-ages": refused(
        429, {"error": "slow"}, "provider_unavailable", headers={"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}
    ),
    "quota-as-429": refused(429, {"error": {"type": "insufficient_quota", "code": None}}, "provider_error"),
    "quota-as-402": refused(402, {"error": {"message": "Insufficient Balance"}}, "provider_error"),
    "quota-as-400": refused(
        400, {"type": "error", "error": {"message": "Your credit balance is too low"}}, "provider_error"
    ),
    "says-what-was-sent": refused(
        400,
        {
            "error": {
                "message": "You sent canary-7f3a",
                "code": "canary-7f3a",
                "type": "a canary-7f3a",
                "param": "metadata.canary",
            }
        },
        "provider_error",
    ),
    "strange-types": refused(400, {"error": {"type": ["x"], "code": {"a": 1}, "param": 7, "message": {}}},
                             "provider_error"),
    "a-list": refused(400, [1, [2]], "provider_error"),
    "a-number": refused(400, 7, "provider_error"),
    "a-word": refused(400, "no", "provider_error"),
    "deep": refused(400, "[" * 100_000, "provider_error"),
    "filtered": refused(400, {"error": {"code": "data_inspection_failed"}}, "content_refused"),
}  # fmt: skip

WITHOUT_EYES: dict[str, Quirk] = {
    "llama-cpp-blind": blind(
        500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    ),
    "vllm-blind": blind(400, "At most 0 image(s) may be provided in one prompt."),
    "vllm-not-multimodal": blind(400, "tea-1 is not a multimodal model"),
    "openrouter-blind": blind(404, "No endpoints found that support image input"),
    "ollama-blind": blind(400, "this model does not support image input (ref: b8bd630e)"),
    "ollama-data-blind": blind(500, "this model is missing data required for image input"),
    "deepseek-blind": blind(400, "messages[0]: unknown variant `image_url`, expected `text`"),
    "groq-blind": blind(400, "'messages.0.content' must be a string"),
    "lm-studio-blind": blind(400, "Model does not support images. Please use a model that does."),
    "pydantic-blind": blind(422, "Input should be a valid string"),
    "text-alone-blind": blind(400, "This model only supports text."),
    "openai-blind": blind(400, "Invalid content type. image_url is only supported by certain models."),
}

QUIRKS = CHARGES | ENDS | CHARACTERS | STREAMED_ERRORS | REFUSALS | WITHOUT_EYES


class ChatQuirks:
    """The servers; a context manager that serves until its block ends. The model's name chooses among them.

    Attributes:
        base_url: what the SDK takes.
        bodies: of every request, in order of arrival.
        malformed: why OpenAI would refuse each that its description does not allow; one of them fails the test.
    """

    def __init__(self) -> None:
        self.bodies: list[Json] = []
        self.malformed: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.base_url = f"http://{self.host}/v1"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="chat quirks", daemon=True)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.malformed:
            raise AssertionError(f"OpenAI would refuse what was sent: {'; '.join(self.malformed)}")

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if (refusal := refusal_of("POST /chat/completions", body)) is not None:
            self.malformed.append(str(refusal))
        if any(one["role"] == next_one["role"] for one, next_one in pairwise(body["messages"])):
            self.malformed.append("as many models' templates say: roles must alternate")
        quirk = QUIRKS[body["model"]]
        if quirk.images_only and "image_url" not in json.dumps(body["messages"]):
            quirk = QUIRKS["ordinary"]
        headers = {"x-request-id": REQUEST_ID, **quirk.headers}
        return web.Response(status=quirk.status, body=quirk.said, content_type=quirk.content_type, headers=headers)
