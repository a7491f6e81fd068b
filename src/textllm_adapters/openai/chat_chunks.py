"""What the chunks of a chat completion say, in whatever shape a server writes them."""

from typing import Final

import msgspec
from msgspec import Struct

from textllm_adapters.openai.counts import counted, fuller, timed
from textllm_adapters.openai.decoding import anything, decoded
from textllm_adapters.openai.faults import fault_of, says_nothing
from textllm_adapters.openai.sse import ServerSentEvent


# Only what is read; compatible servers leave out or add what they like, in any shape.
class Delta(Struct):
    content: object = None
    refusal: object = None
    reasoning_content: object = None
    reasoning: object = None
    reasoning_text: object = None
    reasoning_details: object = None
    thinking: object = None  # of Ollama
    tool_calls: object = None
    usage: object = None
    error: object = None

    @property
    def reasons(self) -> bool:
        """It is about reasoning, even where it tells nothing of it: some send an empty one while the model reasons."""
        told = (self.reasoning_content, self.reasoning, self.reasoning_text, self.reasoning_details, self.thinking)
        return any(each is not None for each in told)

    @property
    def thoughts(self) -> dict[str, object]:
        """What it tells of its reasoning in words, by the names that these have in the API."""
        return {"reasoning_content": self.reasoning_content, "reasoning": self.reasoning}


class Choice(Struct):
    delta: Delta | None = None
    message: Delta | None = None  # of a server that does not stream, or that says it all again at the end
    text: object = None  # of one that answers as its completions of old did
    finish_reason: object = None
    native_finish_reason: object = None  # of a gateway: in the words of the server behind it
    other_finish_reason: object = msgspec.field(name="finishReason", default=None)  # as Gemini's endpoint has named it
    error: object = None
    usage: object = None

    @property
    def stated(self) -> object:
        """Its account of the usage; None where it has none."""
        stated = self.usage or None
        for place in (self.delta, self.message):
            if place is not None and place.usage:
                stated = fuller(stated, place.usage)
        return stated

    @property
    def failure(self) -> object:
        """The error that it tells; None where there is none."""
        for place in (self, self.delta, self.message):
            if place is not None and place.error is not None and not says_nothing(place.error):
                return place.error
        return None

    @property
    def said(self) -> Delta:
        """Where it says something; an empty delta may stand beside it."""
        delta = self.delta
        if delta is not None and (delta.content or (self.message is None and self.text is None)):
            return delta
        says = delta is not None and (delta.reasons or delta.tool_calls)
        return delta if delta is not None and says else self.message or Delta(content=self.text)


class Chunk(Struct):
    kind: object = msgspec.field(name="object", default=None)
    model: object = None
    choices: list[Choice] | None = None
    usage: object = None
    x_groq: object = None
    service_tier: object = None
    error: object = None
    # As Ollama's own API writes it, Gemini's, llama.cpp's server, Bedrock's, Cohere's, and gateways that wrap it up.
    message: object = None
    done: object = None
    done_reason: object = None
    prompt_eval_count: object = None
    eval_count: object = None
    usage_metadata: object = None
    gemini_usage: object = msgspec.field(name="usageMetadata", default=None)
    timings: object = None
    bedrock_usage: object = msgspec.field(name="amazon-bedrock-invocationMetrics", default=None)
    meta: object = None
    response: object = None

    @property
    def is_of_reply(self) -> bool:
        """It belongs to a reply; else it is a sign of life, or a failure in a shape that only its end tells."""
        return bool(self.choices) or self.kind == "chat.completion.chunk" or counted(self.stated, seen=0) is not None

    @property
    def stated(self) -> object:
        """Its account of the usage; None where it has none."""
        stated = self.usage or None
        if self.gemini_usage or self.usage_metadata:
            stated = fuller(fuller(stated, self.gemini_usage), self.usage_metadata)
        for choice in self.choices or ():
            if (of_choice := choice.stated) is not None:  # beside it, what stands elsewhere may be zeros
                stated = fuller(stated, of_choice)
        if isinstance(self.x_groq, dict):
            stated = fuller(stated, self.x_groq.get("usage"))
        for aside in (self.bedrock_usage, self.meta, self.response):
            if aside is not None and counted(aside, seen=0) is not None:
                stated = fuller(stated, aside)
        if self.prompt_eval_count is not None or self.eval_count is not None:
            of_ollama = {"prompt_eval_count": self.prompt_eval_count, "eval_count": self.eval_count}
            stated = fuller(stated, of_ollama)
        if self.timings is not None and counted(stated, seen=0) is None:
            return timed(self.timings) or stated
        return stated

    @property
    def failure(self) -> object:
        """The error that it tells; None where there is none."""
        if self.error is not None and not says_nothing(self.error):
            return self.error
        for choice in self.choices or ():
            if (failure := choice.failure) is not None:
                return failure
        return None


_chunk: Final = msgspec.json.Decoder(Chunk)


def chunk_of(event: ServerSentEvent) -> Chunk:
    """What an event of the stream says.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    if event.name == b"error":
        return Chunk(error=anything(event.data) or "error")
    begins = event.data.lstrip()[:1]
    if begins != b"{":  # a sign of life, if it tells of no failure
        said = anything(event.data) if begins else None
        return Chunk(error=said if fault_of(said).meaning() != "other" else None)
    chunk = _of_object(event.data)
    if chunk.kind == "error":
        chunk.error = anything(event.data)
    elif not chunk.choices and isinstance(chunk.message, dict):
        why = chunk.done_reason or ("stop" if chunk.done is True else None)
        chunk.choices = [msgspec.convert({"delta": chunk.message, "finish_reason": why}, Choice)]
    return chunk


def _of_object(data: bytes) -> Chunk:
    """What the chunk says; choices and deltas of a shape of their own say nothing.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    try:
        return decoded(_chunk, data)
    except msgspec.DecodeError:
        said = anything(data)
        if not isinstance(said, dict):
            raise
    choices = said.get("choices")
    listed = choices if isinstance(choices, list) else []
    return msgspec.convert(said | {"choices": [_shaped(each) for each in listed if isinstance(each, dict)]}, Chunk)


def _shaped(choice: dict[str, object]) -> dict[str, object]:
    return {
        name: value for name, value in choice.items() if name not in ("delta", "message") or isinstance(value, dict)
    }


def told(said: Delta) -> tuple[str, bool, str | None]:
    """The text of a delta, whether in it the model refuses, and what it tells of its reasoning in words.

    None where it is not about reasoning. Some servers tell the same under two names, some only in secret.
    """
    text, thought, is_refusal = said.content, None, False
    if said.reasons:
        details = _words_of(said.reasoning_details)
        names = (said.reasoning_content, said.reasoning, said.reasoning_text, said.thinking, details)
        thought = max((told for told in names if isinstance(told, str)), key=len, default="")
    if isinstance(text, list):  # in parts
        parts = [{"text": part} if isinstance(part, str) else part for part in text if isinstance(part, str | dict)]
        if any("thinking" in part for part in parts):
            thought = "".join(_words_of(part["thinking"]) for part in parts if "thinking" in part)
        text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    if not (isinstance(text, str) and text):
        text = said.refusal if isinstance(said.refusal, str) else ""
        is_refusal = bool(text)
    return text, is_refusal, thought


def _words_of(thinking: object) -> str:
    """What a part of the type `thinking`, or `reasoning_details` tell: a text, or a list of parts with texts."""
    if isinstance(thinking, list):
        parts = [part for part in thinking if isinstance(part, dict)]
        return "".join(_words_of(part.get("text") or part.get("summary")) for part in parts)
    return thinking if isinstance(thinking, str) else ""
