"""What the fields of a request must be, in words for whoever sends it."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import inspect

_STEPS: Final = re.compile(r"\.(\w+)|\[")


def is_inside_object(path: str) -> bool:
    """Whether a place, such as `[0].function.name`, is a field of an object inside."""
    return any(_STEPS.findall(path))


def text_fields(kind: type) -> frozenset[str]:
    """The names, on the wire, of the fields of a Struct that hold a text, or one of some words."""
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)

    def is_text(of: inspect.Type) -> bool:
        if isinstance(of, inspect.Metadata):
            return is_text(of.type)
        if isinstance(of, inspect.UnionType):
            return all(is_text(each) or isinstance(each, inspect.NoneType) for each in of.types)
        return isinstance(of, inspect.StrType | inspect.LiteralType)

    return frozenset(field.encode_name for field in shape.fields if is_text(field.type))


def fields_in_words(kind: type) -> Mapping[str, str]:
    """What each field of a Struct must be, by its name on the wire."""
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    return {field.encode_name: _in_words(field.type) for field in shape.fields}


def words_at(kind: type, path: str) -> str:
    """What must stand at a place inside a Struct, such as `.tools[0].function.name`."""
    found: list[inspect.Type] = [inspect.type_info(kind)]
    for name in _STEPS.findall(path):
        if name:
            structs = [each for each in found if isinstance(each, inspect.StructType)]
            tags = [f'"{each.tag}"' for each in structs if each.tag_field == name]
            if tags:
                return " or ".join(tags)
            fields = [field for each in structs for field in each.fields if field.encode_name == name]
            found = [member for field in fields for member in _members(field.type)]
        else:
            found = [
                member for each in found if isinstance(each, inspect.ListType) for member in _members(each.item_type)
            ]
    words = dict.fromkeys(_in_words(each) for each in found if not isinstance(each, inspect.NoneType))
    return (
        " or ".join(words) or "JSON, without numbers that are out of range"
    )  # which is inside of what may be anything


def _members(kind: inspect.Type) -> list[inspect.Type]:
    """The types that a type stands for."""
    match kind:
        case inspect.Metadata(type=bare):
            return _members(bare)
        case inspect.UnionType(types):
            return [member for each in types for member in _members(each)]
    return [kind]


def _in_words(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata(type=bare):
            return _in_words(bare)
        case inspect.UnionType(types):
            there = (each for each in types if not isinstance(each, inspect.NoneType))
            return " or ".join(dict.fromkeys(map(_in_words, there)))
        case inspect.LiteralType(values):
            return " or ".join(f'"{value}"' for value in values)
        case inspect.BoolType():
            return "true or false"
        case inspect.AnyType():
            return "any value"
        case inspect.IntType(ge=None, le=None):
            return "a whole number"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType():
            return "a number"
        case inspect.ListType(item_type=inspect.AnyType()):
            return "a list"
        case inspect.ListType(item_type=inspect.StructType() | inspect.DictType()):
            return "a list of objects"
        case inspect.ListType():
            return "a list of strings"
        case inspect.DictType(value_type=inspect.AnyType()) | inspect.StructType():
            return "an object"
        case inspect.DictType():
            return "an object whose values are strings"
        case inspect.StrType():
            return "a string"
    raise TypeError(f"there are no words yet for {kind}")
