"""How servers that speak Chat Completions write their answers, and in which words they state what was used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from textllm_core.usage import Usage

Json = dict[str, Any]
TEXT = "Tea is ready."
THOUGHT = "Let me see, is there any tea? " * 20
TOO_LONG = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
DONE = b"data: [DONE]\n\n"
REQUEST_ID = "req_quirk_1"
_COUNTS: Final = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


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

    @property
    def charged(self) -> Usage:
        """The tokens charged."""
        return replace(Usage(), **dict(zip(_COUNTS, self.usage or (), strict=False)))


def data(*chunks: Json | list[Any] | str) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def chunk(content: object = None, finish: object = None, **more: Any) -> Json:
    delta = {} if content is None else {"content": content}
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    } | more


def thinking(text: object, name: str = "reasoning_content") -> Json:
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
    "usage-of-bedrock": Quirk(
        data(
            chunk(TEXT),
            chunk(finish="stop", **{"amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 4}}),
        )
        + DONE
    ),
    "usage-of-cohere": Quirk(
        stating({"choices": [], "meta": {"billed_units": {"input_tokens": 9, "output_tokens": 4}}})
    ),
    "usage-in-the-response": Quirk(data(chunk(TEXT), chunk(finish="stop", response=usage())) + DONE),
    "neither-in-meta-nor-in-response": Quirk(
        data(chunk(TEXT, meta={"id": "1"}), chunk(finish="stop", response="r"), usage()) + DONE
    ),
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
    "usage-beside-zeros": Quirk(
        data(chunk(TEXT), {"choices": [{"delta": {}, "finish_reason": "stop", "usage": usage()["usage"]}]}
             | {"usage": usage(0, 0)["usage"]}) + DONE
    ),
    "usage-of-ollama-beside-zeros": Quirk(
        data(chunk(TEXT), chunk(finish="stop", usage=usage(0, 0)["usage"], prompt_eval_count=9, eval_count=4)) + DONE
    ),
    "usage-of-llama-cpp-beside-zeros": Quirk(
        data(chunk(TEXT), chunk(finish="stop", timings={"prompt_n": 9, "predicted_n": 4}) | {"usage": {"x": 0}}) + DONE
    ),
    "usage-of-two-parts": Quirk(
        stating({"choices": [], "usage": [usage()["usage"], usage(20, 8)["usage"]]}), usage=(29, 12), estimated=True
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
    "usage-beside-the-choices": Quirk(stating({"usage_metadata": {"input_tokens": 9, "output_tokens": 4}})),
    "usage-of-llama-cpp": Quirk(
        data(chunk(TEXT), chunk(finish="stop", timings={"prompt_n": 2, "cache_n": 7, "predicted_n": 4})) + DONE,
        usage=(9, 4, 7),
    ),
    "usage-after-the-end": Quirk(data(chunk(TEXT, "stop")) + DONE + data(usage())),
    "signs-of-life": Quirk(
        data(chunk("Tea is ")) + b"data:\n\ndata: ping\n\ndata: [HEARTBEAT]\n\n"
        + data(chunk("ready.", "stop"), usage()) + b"data: DONE\n\n"
    ),
    "errors-of-nothing": Quirk(
        data(chunk("Tea is ", error={"code": 0, "message": ""}), chunk("ready.", "stop", error={"message": None}),
             usage(), {"choices": [{"delta": {"error": "none"}, "error": {"code": "", "details": []}}]}) + DONE
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
    "thoughts-in-parts-of-parts": Quirk(
        data(*[chunk([{"type": "thinking", "thinking": [{"type": "text", "text": " tea"}]}])] * 8)
        + data(chunk([{"type": "text", "text": TEXT}], "stop"), usage(9, 12)),
        usage=(9, 12),
    ),
    "thoughts-in-details-alone": Quirk(
        data(thinking([{"type": "reasoning.text", "text": THOUGHT}], "reasoning_details"), chunk(TEXT, "stop"),
             usage()) + DONE,
        usage=(9, 154), estimated=True,
    ),
    "text-in-parts": Quirk(
        data(chunk([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": TEXT}], "stop"), usage())
    ),
}  # fmt: skip
