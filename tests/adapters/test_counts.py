"""What is charged by any account of the usage that a provider was ever seen, or may be thought, to give."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textllm_adapters.openai.counts import Counted, counted, fuller
from textllm_core.usage import Usage

Json = dict[str, Any]
LETTER, BOOK = 40, 40_000  # characters that were seen of a reply: about 10 tokens, about 10,000


def chat(prompt: object = None, completion: object = None, total: object = None, **details: object) -> Json:
    """As the Chat Completions API words it; without what is None."""
    return _without_none(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        prompt_tokens_details=_details(details, "cached_tokens", "cache_write_tokens"),
        completion_tokens_details=_details(details, "reasoning_tokens"),
    )


def responses(prompt: object = None, completion: object = None, total: object = None, **details: object) -> Json:
    """The same as the Responses API words it."""
    worded = chat(prompt, completion, total, **details)
    return {name.replace("prompt", "input").replace("completion", "output"): value for name, value in worded.items()}


def _details(details: dict[str, object], *names: str) -> object:
    return {name: details[name] for name in names if name in details} or None


def _without_none(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


EXACT, ESTIMATE = False, True
# How much is stated, how much was seen, and what is charged: input, output, cached, written, reasoning.
FORMS: list[tuple[tuple[object, ...], Json, int, tuple[int, ...], bool]] = [
    # As it should be
    ((5, 1, 6), {}, 3, (5, 1), EXACT),
    ((5, 1), {}, 3, (5, 1), EXACT),
    ((5, 0, 5), {}, 0, (5, 0), EXACT),
    ((5, 1, 6), {"cached_tokens": None, "reasoning_tokens": None}, 3, (5, 1), EXACT),
    ((2000, 70, 2070), {"cached_tokens": 1024, "reasoning_tokens": 64}, 20, (2000, 70, 1024, 0, 64), EXACT),
    (
        (2000, 70, 2070),
        {"cached_tokens": 1024, "cache_write_tokens": 512, "reasoning_tokens": 64},
        20,
        (2000, 70, 1024, 512, 64),
        EXACT,
    ),
    ((5, 640, 645), {}, 10_240, (5, 640), EXACT),  # sixteen characters a token, all of them blanks
    # Reasoning beside the output
    ((10120, 1499, 14428), {"reasoning_tokens": 2809}, LETTER, (10120, 4308, 0, 0, 2809), EXACT),
    ((10120, 1499), {"reasoning_tokens": 2809}, LETTER, (10120, 4308, 0, 0, 2809), ESTIMATE),
    ((10120, 1499, 11619), {"reasoning_tokens": 2809}, LETTER, (10120, 4308, 0, 0, 2809), ESTIMATE),
    ((20, 198, 623), {"reasoning_tokens": 405}, LETTER, (20, 603, 0, 0, 405), EXACT),
    ((20, 500, 620), {"reasoning_tokens": 100}, LETTER, (20, 600, 0, 0, 100), EXACT),
    ((20, 0, 120), {"reasoning_tokens": 100}, 0, (20, 100, 0, 0, 100), EXACT),
    ((20, 0, 20), {"reasoning_tokens": 100}, 0, (20, 100, 0, 0, 100), ESTIMATE),
    ((5, 1, 6), {"reasoning_tokens": 2}, 3, (5, 3, 0, 0, 2), ESTIMATE),
    # A total that is larger than its parts
    ((20, 198, 623), {}, LETTER, (20, 603), ESTIMATE),
    ((700, 500, 1220), {}, LETTER, (700, 520), ESTIMATE),
    ((700, 500, 1220), {"reasoning_tokens": 15}, LETTER, (700, 520, 0, 0, 15), ESTIMATE),
    # Cached tokens beside the input
    ((100, 10, 1110), {"cached_tokens": 1000}, LETTER, (1100, 10, 1000), EXACT),
    ((100, 10, 1310), {"cached_tokens": 1000, "cache_write_tokens": 200}, LETTER, (1300, 10, 1000, 200), EXACT),
    ((100, 10, 1410), {"cached_tokens": 1000, "reasoning_tokens": 300}, LETTER, (1100, 310, 1000, 0, 300), EXACT),
    # A total that is smaller than its parts, or is none
    ((5, 1, 0), {}, 3, (5, 1), EXACT),
    ((5, 1, 5), {}, 3, (5, 1), EXACT),
    ((5, 1, -6), {}, 3, (5, 1), EXACT),
    ((5, 1, 10**30), {}, 3, (5, 1), EXACT),
    ((5, 1, "six"), {}, 3, (5, 1), EXACT),
    # Details that cannot be true grant nothing, and spoil nothing
    ((5, 1, 6), {"cached_tokens": 6}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"cached_tokens": -1}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"cached_tokens": "all"}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"cached_tokens": True}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"cached_tokens": {}}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"cached_tokens": 10**30}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"cached_tokens": 3, "cache_write_tokens": 3}, 3, (5, 1, 0, 3), EXACT),
    ((5, 1, 6), {"cache_write_tokens": 9}, 3, (5, 1, 0, 5), EXACT),
    ((5, 1, 6), {"cached_tokens": 3.0, "reasoning_tokens": 1.0}, 3, (5, 1, 3, 0, 1), EXACT),
    ((5, 1, 6), {"reasoning_tokens": "much"}, 3, (5, 1), EXACT),
    ((5, 1, 6), {"reasoning_tokens": -1}, 3, (5, 1), EXACT),
    # Numbers in other clothes
    ((5.0, 1.0, 6.0), {}, 3, (5, 1), EXACT),
    ((5.2, 0.7), {}, 3, (6, 1), EXACT),
    (("31", "1", "32"), {}, 3, (31, 1), EXACT),
    (("5000.0", "1,900.5"), {}, 3, (5000, 1901), EXACT),
    (("5,00", "1"), {}, 3, (0, 1), ESTIMATE),
    # A part that is missing, or cannot be
    ((5,), {}, LETTER, (5, 10), ESTIMATE),
    ((5, None, 25), {}, LETTER, (5, 20), EXACT),
    ((None, 7), {}, 3, (0, 7), ESTIMATE),
    ((None, 7, 12), {}, 3, (5, 7), EXACT),
    ((0, 7, 7), {}, 3, (0, 7), ESTIMATE),
    ((0, 7, 12), {}, 3, (5, 7), EXACT),
    ((None, None, 100), {}, LETTER, (90, 10), ESTIMATE),
    ((0, 0, 100), {}, LETTER, (90, 10), ESTIMATE),
    ((None, None, 5), {}, LETTER, (0, 5), ESTIMATE),
    ((-1, 1), {}, 3, (0, 1), ESTIMATE),
    ((5, -1), {}, LETTER, (5, 10), ESTIMATE),
    ((10**30, 1), {}, 3, (0, 1), ESTIMATE),
    ((5, 10**30), {}, LETTER, (5, 10), ESTIMATE),
    ((float("nan"), 1), {}, 3, (0, 1), ESTIMATE),
    ((5, float("inf")), {}, LETTER, (5, 10), ESTIMATE),
    ((True, 1), {}, 3, (0, 1), ESTIMATE),
    (("five", 1), {}, 3, (0, 1), ESTIMATE),
    (([5], 1), {}, 3, (0, 1), ESTIMATE),
    # Less than was seen
    ((5, 0, 5), {}, LETTER, (5, 10), ESTIMATE),
    ((5, 1, 6), {}, LETTER, (5, 10), ESTIMATE),
    ((5, 14, 19), {}, BOOK, (5, 10_000), ESTIMATE),
    ((5, 14, 19), {"reasoning_tokens": 9}, BOOK, (5, 10_000, 0, 0, 9), ESTIMATE),
]


@pytest.mark.parametrize("api", [chat, responses])
@pytest.mark.parametrize("form", FORMS, ids=[f"{stated} {details} {seen}" for stated, details, seen, *_ in FORMS])
def test_what_is_charged_is_never_less_than_what_is_surely_stated_or_seen(api: Any, form: Any) -> None:
    stated, details, seen, charged, is_estimate = form
    assert counted(api(*stated, **details), seen=seen) == Counted(Usage(*charged), is_estimate)


OTHERS: dict[str, tuple[object, Counted | None]] = {
    "both APIs' names": (chat(5, 1) | responses(6, 2), Counted(Usage(6, 2), EXACT)),
    "numbers that no float holds": (
        chat(5, 1, 10**400, cached_tokens=10**400, reasoning_tokens=-(10**400)),
        Counted(Usage(5, 1), EXACT),
    ),
    "details in a list": (
        chat(50, 2) | {"prompt_tokens_details": [{"cached_tokens": 30}], "completion_tokens_details": []},
        Counted(Usage(50, 2, 30), EXACT),
    ),
    "details as a number": (chat(50, 2) | {"prompt_tokens_details": 7}, Counted(Usage(50, 2), EXACT)),
    "DeepSeek's cache": (
        chat(50, 2, 52) | {"prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 20},
        Counted(Usage(50, 2, 30), EXACT),
    ),
    "reasoning beside the details": (chat(50, 9) | {"reasoning_tokens": 5}, Counted(Usage(50, 9, 0, 0, 5), EXACT)),
    "more than is read": (
        chat(5, 1) | {"cost": 0.1, "prompt_time": 0.2, "num_sources": 3},
        Counted(Usage(5, 1), EXACT),
    ),
    "nothing": (None, None),
    "an empty object": ({}, None),
    "zeros": (chat(0, 0, 0), None),
    "zeros beside reasoning": (chat(0, 0, 0, reasoning_tokens=0), None),
    "a text": ("many", None),
    "a number": (12, None),
    "a list of one": ([chat(5, 1)], Counted(Usage(5, 1), EXACT)),
    "a list of parts": (
        [chat(5, 1, cached_tokens=2), chat(50, 20, cached_tokens=3)],
        Counted(Usage(55, 21, 5), ESTIMATE),
    ),
    "a list of one part each": ([chat(5), "and", chat(None, 1)], Counted(Usage(5, 1), EXACT)),
    "a list that begins with zeros": ([chat(0, 0, 0), chat(5, 1, 6)], Counted(Usage(5, 1), EXACT)),
    "an object in a text": ('{"prompt_tokens": 5, "completion_tokens": 1}', Counted(Usage(5, 1), EXACT)),
    "numbers among spaces": (chat(" 31 ", "1\n"), Counted(Usage(31, 1), EXACT)),
    "counts beside an object that has none": (chat(5, 1) | {"tokens": {"cached": 1}}, Counted(Usage(5, 1), EXACT)),
    "Anthropic's cache by how long it is kept": (
        responses(9, 4) | {"cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40}},
        Counted(Usage(109, 4, 0, 100), EXACT),
    ),
    "an empty list": ([], None),
    "a list of numbers": ([5, 1], None),
    "humps in the names": (
        {"promptTokens": 50, "completionTokens": 2, "totalTokens": 52, "promptTokensDetails": {"cachedTokens": 30}},
        Counted(Usage(50, 2, 30), EXACT),
    ),
    "Anthropic's cache, which is no part of its input": (
        responses(9, 4) | {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100},
        Counted(Usage(1109, 4, 1000, 100), EXACT),
    ),
    "Anthropic's cache, small beside its input": (
        responses(900, 4) | {"cache_read_input_tokens": 10, "cache_creation_input_tokens": 0},
        Counted(Usage(910, 4, 10), EXACT),
    ),
    "Anthropic's cache in a gateway that counts it in": (
        chat(1109, 4, 1113) | {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100},
        Counted(Usage(1109, 4, 1000, 100), EXACT),
    ),
    "Anthropic's cache in a gateway that has forgotten it in its total": (
        chat(9, 4, 13) | {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100},
        Counted(Usage(1109, 4, 1000, 100), ESTIMATE),
    ),
    "Ollama's names": ({"prompt_eval_count": 26, "eval_count": 298}, Counted(Usage(26, 298), EXACT)),
    "Gemini's names": (
        {
            "promptTokenCount": 50,
            "candidatesTokenCount": 2,
            "thoughtsTokenCount": 9,
            "cachedContentTokenCount": 30,
            "totalTokenCount": 61,
        },
        Counted(Usage(50, 11, 30, 0, 9), EXACT),
    ),
    "Cohere's two accounts": (
        {"billed_units": {"input_tokens": 5, "output_tokens": 1}, "tokens": responses(70, 1)},
        Counted(Usage(70, 1), EXACT),
    ),
    "other names": ({"tokens": 12}, None),
}


@pytest.mark.parametrize("form", OTHERS)
def test_an_account_in_another_shape_is_read_as_far_as_it_goes(form: str) -> None:
    stated, charged = OTHERS[form]
    assert counted(stated, seen=3) == charged


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (None, chat(5, 1), chat(5, 1)),
        (chat(5, 1), None, chat(5, 1)),
        (chat(5, 1), chat(5, 2), chat(5, 2)),
        (chat(5, 2), chat(5, 1), chat(5, 2)),
        (chat(5, 2), chat(0, 0), chat(5, 2)),
        (chat(5, 2), chat(5, 2, cached_tokens=1), chat(5, 2, cached_tokens=1)),
        (chat(5, 2), "many", chat(5, 2)),
        (chat(100, 50, 150), chat(10, 200, 210), chat(100, 200, 210)),  # the input as of what came since
        (chat(100, 0), [chat(10, 5), chat(10, 7)], chat(100, 12)),
        (chat(25, 1), chat(0, 15), chat(25, 15)),  # as Anthropic counts: the input first, the output at the end
        (chat(25, 1), chat(None, 15), chat(25, 15)),
        ("many", chat(5, 1), chat(5, 1)),
    ],
)
def test_two_accounts_of_a_reply_are_read_together(one: object, other: object, together: object) -> None:
    assert fuller(one, other) == together


NUMBERS = st.one_of(st.none(), st.integers(-5, 2**33), st.floats(), st.text(max_size=3), st.booleans())
STATED = st.dictionaries(
    st.sampled_from(["input_tokens", "completion_tokens", "output_tokens", "prompt_tokens", "total_tokens"]), NUMBERS
)
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens"]), NUMBERS)


@settings(max_examples=300, deadline=None)
@given(STATED, DETAILS, DETAILS, st.integers(0, 10**6))
def test_whatever_is_stated_the_charge_covers_it_and_its_parts_fit(
    stated: Json, inputs: Json, outputs: Json, seen: int
) -> None:
    charged = counted(stated | {"input_tokens_details": inputs, "completion_tokens_details": outputs}, seen=seen)
    if charged is None:
        return
    usage = charged.usage
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.reasoning_tokens <= usage.output_tokens
    assert usage.output_tokens * 16 >= seen
    for name, covered in {
        "prompt_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }.items():
        number = stated.get(name)
        if type(number) is int and number < 2**31:
            assert covered >= number
