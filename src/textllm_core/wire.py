"""The JSON that every door shows: records as they are, money as exact numbers, times as ISO 8601 with `Z`."""

from typing import Final

import msgspec
from msgspec import Struct

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def to_json(record: object) -> bytes:
    """One line of UTF-8 JSON."""
    return _ENCODER.encode(record)


class Record(Struct, frozen=True):
    """What users of the library are given, and give."""

    def to_dict(self) -> dict[str, object]:
        """The same as plain dicts, lists, texts and numbers, by its names on the wire: for any JSON encoder."""
        return msgspec.json.decode(to_json(self), type=dict[str, object])
