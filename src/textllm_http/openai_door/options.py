"""What both of OpenAI's APIs ask of a reply in the same words."""

from collections.abc import Sequence
from typing import Final, TypeVar, get_args

from textllm_core.errors import InvalidRequestError
from textllm_core.records.sampling import Sampling, Verbosity
from textllm_core.records.tools import ReasoningEffort, ReasoningSummary, ToolMode

EFFORTS: Final[tuple[ReasoningEffort, ...]] = get_args(ReasoningEffort)
SUMMARIES: Final[tuple[ReasoningSummary, ...]] = get_args(ReasoningSummary)
VERBOSITIES: Final[tuple[Verbosity, ...]] = get_args(Verbosity)
MODES: Final[tuple[ToolMode, ...]] = get_args(ToolMode)
_NOTHING_CHOSEN: Final = Sampling()

_Word = TypeVar("_Word", bound=str)


def one_of(words: Sequence[_Word], said: str, field: str) -> _Word:
    """The word that was said.

    Raises:
        InvalidRequestError: it is none of these.
    """
    for word in words:
        if word == said:
            return word
    raise InvalidRequestError.of(field, f"must be one of {', '.join(words)}")


def sampling(
    *,
    top_p: float | None,
    frequency_penalty: float | None,
    presence_penalty: float | None,
    seed: int | None = None,
    stop: Sequence[str] | None = None,
    verbosity: Verbosity | None = None,
) -> Sampling | None:
    """How words are chosen; None, too, where all that is said is what is the case without it: some clients do so."""
    asked = Sampling(
        top_p=None if top_p == 1 else top_p,
        frequency_penalty=frequency_penalty or None,
        presence_penalty=presence_penalty or None,
        seed=seed,
        stop=stop or None,
        verbosity=None if verbosity == "medium" else verbosity,
    )
    return None if asked == _NOTHING_CHOSEN else asked
