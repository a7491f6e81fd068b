"""YAML without surprises: its 1.2 core schema, and nothing that lets a small text grow large or mean two things."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import yaml
from msgspec import UNSET

MAX_DEPTH = 20

# `no` and `12:30` stay text. A fraction is a Decimal: 0.0025 is exactly that.
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}")  # int() refuses very long ones; more digits are beyond every bound
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,6})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _RefusedError(Exception):
    """YAML, but more than settings need."""


def parse_yaml(text: str, refuse: Callable[[str], object]) -> object:
    """The one document in `text`: None, bool, int, Decimal, str, list or dict; UNSET if it cannot be read to its end.

    Args:
        refuse: is told each fault: what was found and where, with nothing quoted. It may raise to end the reading.
    """
    try:
        return _Parser(text, refuse).document()
    except _RefusedError as error:
        fault = str(error)
    except yaml.MarkedYAMLError as error:  # its own words quote the text
        fault = _at("a syntax error", error.problem_mark or error.context_mark)
    except yaml.reader.ReaderError:
        fault = "a control character"
    refuse(fault)
    return UNSET


class _Parser:
    """Builds the value as the parser's events come, so that it reads no further than it has to."""

    def __init__(self, text: str, refuse: Callable[[str], object]) -> None:
        self._events = yaml.parse(text, Loader=yaml.BaseLoader)
        self._refuse = refuse

    def document(self) -> object:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events))
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise _RefusedError(_at("a second document", after.start_mark))
        return value

    def _value(self, event: yaml.Event, depth: int = 1) -> object:
        if depth > MAX_DEPTH:
            raise _RefusedError(_at(f"more than {MAX_DEPTH} levels", event.start_mark))
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:  # an alias has one, too
            raise _RefusedError(_at("an anchor or alias", event.start_mark))
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            self._refuse(_at("a tag", event.start_mark))
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else _plain(event.value)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(depth)
        items = []
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(item, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, object]:
        mapping: dict[str, object] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            self._value(key, depth + 1)  # a key is its text, but no more may be in it than in a value
            value = self._value(next(self._events), depth + 1)
            if not isinstance(key, yaml.ScalarEvent):
                self._refuse(_at("a key that is not text", key.start_mark))
            elif key.value in mapping:
                self._refuse(_at("a key for the second time", key.start_mark))
            else:
                mapping[key.value] = value
        return mapping


def _at(what: str, mark: Any) -> str:
    return f"{what} at line {mark.line + 1}, column {mark.column + 1}" if mark else what


def _plain(text: str) -> object:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        return Decimal(text.replace(".", ""))
    return Decimal(text) if _FRACTION.fullmatch(text) else text
