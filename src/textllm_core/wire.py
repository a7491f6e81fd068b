"""The JSON that every door shows: records as they are, money as exact numbers, times as ISO 8601 with `Z`."""

from typing import Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def to_json(record: object) -> bytes:
    """One line of UTF-8 JSON."""
    return _ENCODER.encode(record)
