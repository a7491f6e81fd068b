"""JSON from providers, read as widely as it can be: models cut their texts anywhere, also inside a character."""

import json
import re
from typing import Final, TypeVar

import msgspec

from textllm_core.texts import well_formed

T = TypeVar("T")

_anything: Final = msgspec.json.Decoder(object)
_WORD: Final = re.compile(r"[\x21-\x7e]{1,200}")


def decoded(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    """What `data` says, also where msgspec takes it for none: its texts may begin or end with half of a surrogate pair,
    or with some bytes of a character; and many write NaN where they have no number.

    Raises:
        msgspec.DecodeError, RecursionError: it is no JSON, or of another shape.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            said = json.loads(data.decode(errors="replace"), object_pairs_hook=_named)
            return msgspec.convert(said, decoder.type)
        except ValueError:
            raise msgspec.DecodeError("no JSON of the expected shape") from None


def _named(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; half of a pair in a name, which is none that anybody reads, spoils nothing else."""
    return {well_formed(name): value for name, value in pairs}


def anything(data: bytes) -> object:
    """What is of no known shape: decoded, or the plain text that it is."""
    try:
        return decoded(_anything, data)
    except msgspec.DecodeError:
        return data.decode(errors="replace")


def object_in(text: str) -> dict[str, object] | None:
    """The object that it is in strict JSON; None where it is none, or one that nobody reads, it is so deep."""
    try:
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def word(value: object, otherwise: str) -> str:
    """A name that a provider gives, where it is one that can be written down everywhere."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else otherwise
