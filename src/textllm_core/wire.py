"""The JSON that every door shows: records as they are, money as exact numbers, times as ISO 8601 with `Z`."""

from collections.abc import Iterator
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

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """So that `dict(record)` is the same as `to_dict`, and a FastAPI handler may return the record."""
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> dict[str, object]:
        """So that a FastAPI handler may say that it returns the record. Pydantic's schemas are plain dicts."""
        told = {"type": "function-plain", "function": cls.to_dict}
        return {"type": "is-instance", "cls": cls, "serialization": told}

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: object) -> dict[str, object]:
        return {"type": "object", "title": cls.__name__}
