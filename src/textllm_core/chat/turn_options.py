"""What a turn may ask for beside what it says."""

import re
from typing import Final, get_args

from textllm_core.chat.tool_use import check_tools
from textllm_core.errors import InputTooLongError, InvalidRequestError
from textllm_core.metadata import check_metadata
from textllm_core.records.messages import TurnOptions
from textllm_core.records.sampling import Sampling, Verbosity
from textllm_core.texts import refuse_half_characters

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_MOST_STOPS: Final = 4  # as OpenAI has it
_LONGEST_STOP: Final = 1000  # characters; nobody waits for more


def check_options(options: TurnOptions, *, max_input_chars: int) -> None:
    """Refuse options that no model takes.

    Raises:
        InvalidRequestError, InputTooLongError
    """
    if options.model is not None and not _MODEL_NAME.fullmatch(options.model):
        raise InvalidRequestError.of("model", "must be a model's name: 1 to 200 letters, digits and . _ : / @ + -")
    if options.max_output_tokens is not None and options.max_output_tokens < 1:
        raise InvalidRequestError.of("max_output_tokens", "must be at least 1")
    if options.temperature is not None and not 0 <= options.temperature <= 2:
        raise InvalidRequestError.of("temperature", "must be from 0 to 2")
    if options.instructions is not None and len(options.instructions) > max_input_chars:
        raise InputTooLongError(length=len(options.instructions), limit=max_input_chars, what="system prompt")
    metadata = options.metadata or {}
    refuse_half_characters(instructions=options.instructions, metadata="".join(map("".join, metadata.items())))
    check_metadata(metadata)
    check_tools(options)
    if options.sampling is not None:
        _check_sampling(options.sampling)


def _check_sampling(sampling: Sampling) -> None:
    if sampling.verbosity is not None and sampling.verbosity not in get_args(Verbosity):
        raise InvalidRequestError.of("verbosity", f"must be one of {', '.join(get_args(Verbosity))}")
    if sampling.top_p is not None and not 0 <= sampling.top_p <= 1:
        raise InvalidRequestError.of("top_p", "must be from 0 to 1")
    for name in ("frequency_penalty", "presence_penalty"):
        penalty = getattr(sampling, name)
        if penalty is not None and not -2 <= penalty <= 2:
            raise InvalidRequestError.of(name, "must be from -2 to 2")
    if sampling.seed is not None and not -(2**63) <= sampling.seed < 2**63:
        raise InvalidRequestError.of("seed", "must be a whole number of 64 bits")
    stop = sampling.stop or ()
    if len(stop) > _MOST_STOPS or not all(0 < len(text) <= _LONGEST_STOP for text in stop):
        message = f"may be {_MOST_STOPS} texts at most, of 1 to {_LONGEST_STOP} characters each"
        raise InvalidRequestError.of("stop", message)
    refuse_half_characters(stop="".join(stop))
