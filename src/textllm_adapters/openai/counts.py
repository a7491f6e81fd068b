"""Token counts as the provider states them, on the one condition that they can be true."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from textllm_core.usage import Usage

_Count = Annotated[int, Meta(ge=0, lt=2**31)]


class _InputDetails(Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(Struct):
    reasoning_tokens: _Count | None = None


class _ResponsesUsage(Struct):
    input_tokens: _Count
    output_tokens: _Count
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _ChatUsage(Struct):
    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


def responses_usage(stated: msgspec.Raw) -> Usage | None:
    """The `usage` of the Responses API; None for none, or for counts that contradict each other."""
    try:
        usage = msgspec.json.decode(stated, type=_ResponsesUsage)
    except msgspec.DecodeError:
        return None
    return _consistent(usage.input_tokens, usage.output_tokens, usage.input_tokens_details, usage.output_tokens_details)


def chat_usage(stated: msgspec.Raw) -> Usage | None:
    """The `usage` of the Chat Completions API; None as above."""
    try:
        usage = msgspec.json.decode(stated, type=_ChatUsage)
    except msgspec.DecodeError:
        return None
    return _consistent(
        usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details, usage.completion_tokens_details
    )


def _consistent(
    input_tokens: int, output_tokens: int, inputs: _InputDetails | None, outputs: _OutputDetails | None
) -> Usage | None:
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=(inputs and inputs.cached_tokens) or 0,
        cache_write_tokens=(inputs and inputs.cache_write_tokens) or 0,
        reasoning_tokens=(outputs and outputs.reasoning_tokens) or 0,
    )
    parts_fit = (
        usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
        and usage.reasoning_tokens <= usage.output_tokens
    )
    return usage if parts_fit else None
