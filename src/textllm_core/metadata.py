"""Metadata: pairs of strings that callers hang on turns and conversations, within OpenAI's limits."""

from collections.abc import Mapping
from typing import Final

from textllm_core.errors import InvalidRequestError

MAX_PAIRS: Final = 16
MAX_KEY_CHARS: Final = 64
MAX_VALUE_CHARS: Final = 512


def check_metadata(metadata: Mapping[str, str]) -> None:
    """
    Raises:
        InvalidRequestError: too many pairs, or one of them too long.
    """
    is_long = any(len(key) > MAX_KEY_CHARS or len(value) > MAX_VALUE_CHARS for key, value in metadata.items())
    if len(metadata) > MAX_PAIRS or is_long:
        raise InvalidRequestError.of(
            "metadata", "may have 16 pairs at most, keys of 64 and values of 512 characters at most"
        )
