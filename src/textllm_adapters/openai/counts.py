"""Token counts out of whatever a provider states: never less than it surely says, or than was surely seen."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import Final, NamedTuple

from textllm_adapters.openai.decoding import object_in
from textllm_core.records.model import ModelCounted
from textllm_core.usage import Usage, estimated_tokens

_MOST: Final = 2**31  # no call has as many tokens; it is a sign of a fault
_MOST_COST: Final = 10_000  # USD; likewise
_MOST_CHARS_PER_TOKEN: Final = 16  # texts of any language and code have 2 to 6; no whole reply has more than this
_WRITTEN: Final = re.compile(r"([0-9]{1,10}|[0-9]{1,3}(,[0-9]{3}){1,3})(\.[0-9]{1,9})?")  # in a text
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")  # of a name as some gateways write it: promptTokens
# As OpenAI and Anthropic name them, Ollama, Gemini, and Bedrock.
_INPUT: Final = ("input_tokens", "prompt_tokens", "prompt_eval_count", "prompt_token_count", "input_token_count")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "eval_count", "candidates_token_count", "output_token_count")
_TOTAL: Final = ("total_tokens", "total_token_count")
_OF_WHOLE: Final = frozenset({*_INPUT, *_OUTPUT, *_TOTAL})
_CACHED: Final = ("prompt_cache_hit_tokens", "cached_content_token_count")
_REASONING: Final = ("reasoning_tokens", "thoughts_token_count")
# Where the counts are, if not beside them: of Cohere, and of gateways that wrap the reply up.
_WITHIN: Final = ("usage", "tokens", "billed_units")
_INPUT_DETAILS: Final = ("input_tokens_details", "prompt_tokens_details")
_OUTPUT_DETAILS: Final = ("output_tokens_details", "completion_tokens_details")
_READ_APART: Final = "cache_read_input_tokens"  # Anthropic's names: beside the input; many gateways hand them on
_WRITTEN_APART: Final = "cache_creation_input_tokens"
_WRITTEN_FOR: Final = "cache_creation"  # the same by how long it is kept


class Counted(NamedTuple):
    """What a reply is charged for; `is_estimate`: the provider's words do not account for all of it."""

    usage: Usage
    is_estimate: bool


def counted(stated: object, *, seen: int) -> Counted | None:
    """What was used by the provider's account, in the words of the Responses or of the Chat Completions API.

    Reasoning and cached tokens are parts of the output and the input, or stand beside them: a total decides, else
    whether they fit in. What a total has beyond its parts counts as output, the dearer kind. Details that cannot be
    true grant no discount, and spoil nothing else. No input at all cannot be: it stays 0, for the caller to estimate.
    Several statements in a list are those of parts, and add up; an estimate, for they may as well be of the whole.

    Args:
        stated: decoded JSON.
        seen: characters of the reply and of its reasoning that were received.
    Returns:
        None where it states nothing that can be a count, or nothing but zeros.
    """
    in_doubt = isinstance(stated, list) and _overlap(_each_named(stated))
    stated = _named(stated)
    if stated is None:
        return None
    given_input, given_output = _first(stated, _INPUT), _first(stated, _OUTPUT)
    total = _first(stated, _TOTAL) or 0
    if not (given_input or given_output or total):
        return None
    inputs, outputs = _details(stated, _INPUT_DETAILS), _details(stated, _OUTPUT_DETAILS)
    cached = _first(inputs, ("cached_tokens",)) or _first(stated, (*_CACHED, _READ_APART)) or 0
    written = _first(inputs, ("cache_write_tokens",)) or _first(stated, (_WRITTEN_APART,)) or 0
    reasoning = _first(outputs, ("reasoning_tokens",)) or _first(stated, _REASONING) or 0
    input_tokens, output_tokens, is_estimate = _totals(
        given_input, given_output, total, beside_input=cached + written, beside_output=reasoning, seen=seen
    )
    if apart := _apart(stated, total, input_tokens):
        # In Anthropic's own words that is how it is; in those of others, nobody knows what they have put where.
        input_tokens, is_estimate = input_tokens + apart, is_estimate or "input_tokens" not in stated
    fit = cached + written <= input_tokens
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached if fit else 0,
        cache_write_tokens=written if fit else min(written, input_tokens),  # it is no discount
        reasoning_tokens=min(reasoning, output_tokens),
    )
    return Counted(usage, is_estimate or in_doubt)


def fuller(one: object, other: object) -> object:
    """What two statements about the same reply say together: the later word on each count that it has one on.

    Of input, output and total the larger one: some count anew in the midst of a reply. The earlier one alone where it
    says more even so.
    """
    was, now = _named(one), _named(other)
    if was is None or now is None:
        return other if was is None else one
    together = dict(was)
    for name, value in now.items():
        is_less = name in _OF_WHOLE and (_count(was.get(name)) or 0) > (_count(value) or 0)
        if value is not None and _count(value) != 0 and not is_less:
            together[name] = value
    before, after = counted(was, seen=0), counted(together, seen=0)
    shrinks = after is None or (before is not None and before.usage.total_tokens > after.usage.total_tokens)
    return was if shrinks else together


def used_by_now(stated: object) -> list[ModelCounted]:
    """What a provider has stated in the midst of a reply; nothing where that is nothing."""
    so_far = counted(stated, seen=0)
    return [] if so_far is None else [ModelCounted(so_far.usage)]


def timed(timings: object) -> dict[str, object] | None:
    """The account in the words of llama.cpp's `timings`, where what was cached stands beside the input."""
    told = timings if isinstance(timings, dict) else {}
    prompt, cached, output = (_count(told.get(name)) for name in ("prompt_n", "cache_n", "predicted_n"))
    if prompt is None or output is None:
        return None
    cached = cached or 0
    details = {"cached_tokens": cached}
    return {"input_tokens": prompt + cached, "output_tokens": output, "input_tokens_details": details}


def _totals(
    given_input: int | None,
    given_output: int | None,
    total: int,
    *,
    beside_input: int,
    beside_output: int,
    seen: int,
) -> tuple[int, int, bool]:
    """Input and output tokens, and whether they are an estimate."""
    input_tokens, output_tokens = given_input or 0, given_output or 0
    is_estimate = input_tokens == 0 or given_output is None
    if not input_tokens and not output_tokens:  # nothing but a total
        output_tokens = min(total, estimated_tokens(characters=seen))
        input_tokens = total - output_tokens
    more = total - input_tokens - output_tokens
    if more > 0:
        if more in (beside_output, beside_input + beside_output) and beside_output:
            output_tokens, input_tokens = output_tokens + beside_output, input_tokens + more - beside_output
        elif more == beside_input or not input_tokens:
            input_tokens, is_estimate = input_tokens + more, given_output is None
        elif given_output is None and input_tokens:
            output_tokens, is_estimate = more, False
        else:
            output_tokens, is_estimate = output_tokens + more, True
    if beside_output > output_tokens:  # it cannot be a part of them
        output_tokens, is_estimate = output_tokens + beside_output, True
    if output_tokens * _MOST_CHARS_PER_TOKEN < seen:
        output_tokens, is_estimate = max(output_tokens, estimated_tokens(characters=seen)), True
    return input_tokens, output_tokens, is_estimate


def _named(stated: object) -> dict[str, object] | None:
    """A statement with its names as the APIs write them; None where it is none."""
    if isinstance(stated, str):  # as some write it: in a text
        stated = object_in(stated)
    if isinstance(stated, list):
        return _added(_each_named(stated))
    if not isinstance(stated, Mapping):
        return None
    named = {
        name if (name := str(given)).islower() else _HUMP.sub("_", name).lower(): value
        for given, value in stated.items()
    }
    if not any(_count(named.get(name)) for name in _OF_WHOLE):
        for name in _WITHIN:
            if isinstance(named.get(name), Mapping):
                return _named(named[name])
    if _WRITTEN_APART not in named and isinstance(by_time := named.get(_WRITTEN_FOR), Mapping):
        named[_WRITTEN_APART] = sum(_count(value) or 0 for value in by_time.values())
    return named


def _each_named(statements: Sequence[object]) -> Sequence[Mapping[str, object]]:
    return [named for stated in statements if (named := _named(stated)) is not None]


def _added(statements: Sequence[Mapping[str, object]]) -> dict[str, object] | None:
    """Parts of a statement as one: the counts of each name added up; None where there are none."""
    together: dict[str, object] = {}
    for stated in statements:
        for name, value in stated.items():
            known = together.get(name)
            if isinstance(known, Mapping) and isinstance(value, Mapping):
                together[name] = _added([known, value])
            elif (count := _count(value)) is not None and (before := _count(known)) is not None:
                together[name] = before + count
            elif _count(known) is None:
                together[name] = value
    return together if statements else None


def _overlap(statements: Sequence[Mapping[str, object]]) -> bool:
    """Whether more than one of them counts the same."""
    counted_by = [{name for name in _OF_WHOLE if _count(stated.get(name))} for stated in statements]
    return sum(map(len, counted_by)) > len(set().union(*counted_by))


def _apart(stated: Mapping[str, object], total: int, input_tokens: int) -> int:
    """Tokens of the cache that stand beside the input: by Anthropic's names, and in its form or too many for a part."""
    tokens = sum(_count(stated.get(name)) or 0 for name in (_READ_APART, _WRITTEN_APART))
    return tokens if tokens > input_tokens or (not total and "input_tokens" in stated) else 0


def _details(stated: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    for name in names:
        if (details := _named(stated.get(name))) is not None:
            return details
    return {}


def _first(stated: Mapping[str, object], names: tuple[str, ...]) -> int | None:
    """The largest count among the names; None where there is none."""
    counts = [count for name in names if (count := _count(stated.get(name))) is not None]
    return max(counts, default=None)


def _count(value: object) -> int | None:
    """A number of tokens, also where it is a float or a text; None for what cannot be one."""
    if type(value) is int:
        return value if 0 <= value < _MOST else None
    if isinstance(value, str):
        value = value.strip()
        value = float(value.replace(",", "")) if _WRITTEN.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return ceil(value) if 0 <= value < _MOST else None  # before it is rounded: it may have hundreds of digits


def stated_cost(stated: object) -> Decimal | None:
    """USD that a provider says a reply cost, as OpenRouter and LiteLLM do; None where it says none that can be."""
    cost = stated.get("cost") if isinstance(stated, dict) else None
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= _MOST_COST:
        return None
    return Decimal(str(cost))
