"""Column types that keep a value exactly, whichever database is behind them."""

# ruff: noqa: ARG002 - SQLAlchemy hands the dialect to every hook, and not every type asks for it

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from sqlalchemy import ARRAY, JSON, BigInteger, DateTime, Numeric, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from textllm_core.money import exact
from textllm_core.records.parts import ContentPart

_DECIMALS: Final = 10
_CONTENT: Final = msgspec.json.Decoder(tuple[ContentPart, ...])


class Money(TypeDecorator[Decimal]):
    """USD with ten decimals, exact in sums and comparisons too.

    SQLite has no decimal numbers and would take binary fractions instead: there it is a whole number of 1e-10 USD, less
    than 922 million USD a value.
    """

    impl = Numeric(20, _DECIMALS)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else Numeric(20, _DECIMALS))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Decimal | int | None:
        if value is None:
            return None
        return int(exact(value).scaleb(_DECIMALS)) if dialect.name == "sqlite" else exact(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None:
            return None
        return exact(Decimal(value).scaleb(-_DECIMALS) if dialect.name == "sqlite" else value)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with microseconds: aware in, aware UTC out. ValueError for a naive one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone is no moment")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Id(TypeDecorator[str]):
    """An id. One that no database could hold, with NUL or half a surrogate pair, is asked for as one that none has."""

    impl = String(255)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else askable(value)


class PlainText(TypeDecorator[str]):
    """Text without NUL, which PostgreSQL cannot hold: it is left out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class Name(TypeDecorator[str]):
    """Text without NUL as part of a key, which cannot be of any length: cut at 255 characters."""

    impl = String(255)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)[:255]


class Record(TypeDecorator[Any]):
    """A record of the core, or a list of them, as a line of JSON."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[Any]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value, type=self.kind)


class Labels(TypeDecorator[Mapping[str, str]]):
    """Pairs of strings as a JSON object; JSONB on PostgreSQL. NUL is left out."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON(none_as_null=True))
        from sqlalchemy.dialects.postgresql import JSONB  # whose module is loaded where that database is used

        return dialect.type_descriptor(JSONB(none_as_null=True))

    def process_bind_param(self, value: Mapping[str, str] | None, dialect: Dialect) -> dict[str, str] | None:
        return None if value is None else {storable(key): storable(text) for key, text in value.items()}


class Tags(TypeDecorator[tuple[str, ...]]):
    """A few words: TEXT[] on PostgreSQL, a JSON array elsewhere. NUL is left out."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else JSON())

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> list[str] | None:
        return None if value is None else [storable(tag) for tag in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...] | None:
        return None if value is None else tuple(value)


class Content(TypeDecorator[tuple[ContentPart, ...]]):
    """A message's parts as JSON text, not JSONB, which refuses NUL: what was said comes back to the character."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[ContentPart, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[ContentPart, ...] | None:
        return None if value is None else _CONTENT.decode(value)


class Words(TypeDecorator[str]):
    """Words with blanks between them: `tsvector` on PostgreSQL, which knows their places."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(Text())
        from sqlalchemy.dialects.postgresql import TSVECTOR  # as above

        return dialect.type_descriptor(TSVECTOR())


def askable(of_id: str) -> str:
    """An id as it can be asked for: one that no database could hold becomes one that none has."""
    return of_id if of_id.isascii() and "\0" not in of_id else _encodable(of_id).replace("\0", "\ufffd")


def storable(text: str) -> str:
    """Text as any database can hold it: without NUL, and without halves of characters."""
    return text if text.isascii() and "\0" not in text else _encodable(text).replace("\0", "")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
