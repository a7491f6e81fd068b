"""A second stand-in: servers that speak Chat Completions in their own ways, each behind the name of a model.

The ways are those that public reports describe; every quirk says what must come of it.
"""

import asyncio
import json
import socket
import threading
from itertools import pairwise
from typing import Self

from aiohttp import web
from tests.servers.chat_charges import (
    CHARGES,
    DONE,
    REQUEST_ID,
    TEXT,
    TOO_LONG,
    Json,
    Quirk,
    blind,
    broken_by,
    chunk,
    data,
    ended,
    refused,
    too_long,
    usage,
)
from tests.servers.openai_shapes import refusal_of

ENDS: dict[str, Quirk] = {
    "ends-native-error": Quirk(ended("stop", "error"), code="provider_error"),
    "ends-native-safety": Quirk(ended("stop", "SAFETY"), code="content_refused"),
    "ends-native-length": Quirk(ended("stop", "MAX_TOKENS"), finish="length"),
    "ends-native-overload": Quirk(ended("stop", "overloaded_error"), code="provider_unavailable"),
    "ends-native-well": Quirk(ended("stop", "end_turn")),
    "ends-native-as-nobody-knows": Quirk(ended("stop", "tea_time")),
    "ends-native-alone": Quirk(ended(None, "stop")),
    "ends-in-another-name": Quirk(ended("stop").replace(b'"finish_reason": "stop"', b'"finishReason": "stop"')),
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
    "error-in-the-delta": Quirk(
        data(chunk("Tea is "), {"choices": [{"delta": {"error": {"code": 502}}, "finish_reason": "stop"}]}, usage()),
        code="provider_unavailable",
    ),
    "error-in-the-message": Quirk(
        json.dumps(
            {
                "choices": [{"message": {"content": "", "error": {"code": 502}}, "finish_reason": "stop"}],
                "usage": usage()["usage"],
            }
        ).encode(),
        code="provider_unavailable",
    ),
    "error-in-plain-words": Quirk(
        data(chunk("Tea is ")) + b"data: Error: Rate limit reached\n\n",
        code="provider_unavailable",
        usage=(0, 2),
        estimated=True,
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
        ("streams-as-baidu", data({"error_code": 336003, "error_msg": "no", "id": "as-1"}) + DONE, "provider_error"),
        (
            "streams-as-baidu-and-counts",
            data({"error_code": 336003, "error_msg": "no"}, usage(0, 0)) + DONE,
            "provider_error",
        ),
    ]
}
STREAMED_ERRORS |= {
    name: Quirk(said, code=code, usage=None)
    for name, said, code in [
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
        if next(each["role"] for each in body["messages"] if each["role"] != "system") != "user":
            self.malformed.append("as many models' templates say: the first turn must be the user's")
        quirk = QUIRKS[body["model"]]
        if quirk.images_only and "image_url" not in json.dumps(body["messages"]):
            quirk = QUIRKS["ordinary"]
        headers = {"x-request-id": REQUEST_ID, **quirk.headers}
        return web.Response(status=quirk.status, body=quirk.said, content_type=quirk.content_type, headers=headers)
