"""From what a source holds to typed values, told by the annotations of a Struct alone.

A setting is `Annotated[type, Rule]` or a `Literal`; a tuple or dict of those; or a section, which is a Struct of its
own. Any of them may be None where its type says so.
"""

import functools
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from msgspec import UNSET, UnsetType

from textllm_adapters.settings.kinds import Secret
from textllm_adapters.settings.problems import Place

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Field(NamedTuple):
    """One setting: its type, and whether it may be None or left out."""

    kind: Any
    is_optional: bool = False
    is_required: bool = True

    @property
    def is_section(self) -> bool:
        return isinstance(self.kind, type) and issubclass(self.kind, msgspec.Struct)

    @property
    def is_text(self) -> bool:
        return get_origin(self.kind) is Literal or get_args(self.kind)[:1] in {(str,), (Path,), (Secret,)}

    @property
    def is_secret(self) -> bool:
        return get_args(self.kind)[:1] == (Secret,)

    @property
    def expected(self) -> str:
        if get_origin(self.kind) is Annotated:
            return str(self.kind.__metadata__[0].expected)
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(get_args(self.kind))
        return "a list" if get_origin(self.kind) is tuple else "a mapping"


@functools.cache
def fields_of(section: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The fields of a Struct by name."""
    fields = {}
    for field in msgspec.structs.fields(section):
        is_optional = NoneType in get_args(field.type)  # as in `X | None`
        kind = get_args(field.type)[0] if is_optional else field.type
        fields[field.name] = Field(kind, is_optional, field.required)
    return fields


def read(field: Field, value: object, place: Place) -> object:
    """The value typed, or UNSET after a complaint. A section is a dict of what is right in it: more may follow."""
    if value is None and field.is_optional:
        return None
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    origin, inner = get_origin(field.kind), get_args(field.kind)
    if origin in {Annotated, Literal}:
        with suppress(ValueError, RuntimeError):  # the latter of `~` of a user there is not
            return _read_one(field.kind, value)
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(read(Field(inner[0]), item, place.item(n)) for n, item in enumerate(value))
    elif origin is dict and isinstance(value, Mapping):
        return _read_named(Field(inner[0]), Field(inner[1]), value, place)
    elif field.is_section and isinstance(value, Mapping):
        return read_section(fields_of(field.kind), value, place)
    return place.refuse(kind_of(value), field.expected)


def _read_one(kind: Any, value: object) -> object:
    """A single value; a ValueError if it is not what `kind` asks for."""
    if get_origin(kind) is Literal:
        names = get_args(kind)
        return names[names.index(value if value in names else str(value).upper())]  # `info` is INFO
    type_, rule = get_args(kind)
    typed = _typed(type_, value)
    if typed is None or not rule.is_right(typed):
        raise ValueError
    return typed


def _typed(type_: type, value: object) -> object:
    """`value` as one of the types that settings have; None if it is no such thing."""
    if type_ in {bool, int, str}:
        return value if type(value) is type_ else None
    if type_ is Secret:
        return Secret(value) if isinstance(value, str) else value if isinstance(value, Secret) else None
    if type_ is Path:
        text = str(value) if isinstance(value, str | Path) else ""
        return Path(text).expanduser() if text and text.isprintable() and text == text.strip() else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = Decimal(str(value))  # of a float, its shortest notation: 0.3 is exactly that
    return type_(number or 0) if number.is_finite() else None  # -0 is 0


def read_section(fields: Mapping[str, Field], given: Mapping[str, object], place: Place) -> dict[str, object]:
    """What is `given` for some of these fields; UNSET for those it is wrong for."""
    values: dict[str, object] = {}
    for name, value in ((str(name), value) for name, value in given.items()):
        if name in fields:
            values[name] = read(fields[name], value, place.known(name))
        else:
            place.child(name).refuse_name(name, fields, "one of " + ", ".join(fields))
    return values


def _read_named(name_field: Field, field: Field, given: Mapping[str, object], place: Place) -> dict[object, object]:
    """A mapping from names of the operator's choice. A section in it is built at once: it stands in one source."""
    values: dict[object, object] = {}
    for name, item in given.items():
        inner = place.child(str(name))
        key, value = read(name_field, name, inner), read(field, item, inner)
        if field.is_section and isinstance(value, dict):
            value = build(field.kind, value, inner)
        if key is not UNSET and value is not UNSET:  # what was refused is looked at no more
            values[key] = value
    return values


def build(section: type[StructT], values: Mapping[str, object], place: Place) -> StructT | UnsetType:
    """The Struct, with the sections in it; UNSET if a required field was refused, or is missing and now reported."""
    fields, given = fields_of(section), {}
    for name, field in fields.items():
        value = values.get(name, UNSET)
        if name not in values and field.is_required:
            place.child(name).refuse("nothing", field.expected)
        if field.is_section and isinstance(value, dict):
            value = build(field.kind, value, place.child(name))
        if value is not UNSET:
            given[name] = value
    return UNSET if any(field.is_required and name not in given for name, field in fields.items()) else section(**given)


_KINDS = {NoneType: "null", bool: "a boolean", int: "an integer", float: "a number", Decimal: "a number", str: "text"}
_KINDS |= {list: "a list", tuple: "a list", dict: "a mapping"}


def kind_of(value: object) -> str:
    """What a value is, without a word of what it says."""
    return "empty text" if value == "" else _KINDS.get(type(value)) or f"a {type(value).__name__}"
