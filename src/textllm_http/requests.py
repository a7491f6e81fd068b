"""Reads what clients send, and says of each field what is wrong with it, in our words and never in theirs."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.routes import BaseRoute
from msgspec import UNSET, Struct, UnsetType

from textllm_core.chat.deadline import Deadline
from textllm_core.errors import InvalidRequestError, NotFoundError, UnsupportedMediaTypeError
from textllm_http.field_words import fields_in_words, is_inside_object, text_fields, words_at
from textllm_http.services import services_of

MAX_PIECES: Final = 20_000  # each costs some work, however small it is
_SANE_NAME: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
# Messages of msgspec. They may quote the request, so each pattern is tied to the end that the request cannot write.
_FAULTY_NAME: Final = re.compile(
    r"\AObject (?P<what>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL
)
_FAULTY_PATH: Final = re.compile(r" - at `\$\.(?P<field>\w+)(?P<inside>(?:\[(?:\.\.\.|\d+)\]|\.\w+)*)`\Z")
_DEEPEST: Final = 64  # more than any schema of a function has, and less than any recursion of ours can bear
_NUL: Final = "must not contain the character NUL"
_NOT_JSON: Final = "The body is not valid JSON in UTF-8."
_TOO_DEEP: Final = f"must not be nested deeper than {_DEEPEST} levels"

# Objects are read as tuples of pairs, so that a name which comes twice is seen twice.
_PAIRS: Final = json.JSONDecoder(object_pairs_hook=tuple)

T = TypeVar("T")


class JsonBody(Generic[T]):
    """Bodies of one shape: a JSON object in UTF-8, each name once, no NUL in any text.

    Args:
        kind: a Struct that forbids unknown fields.
    """

    def __init__(self, kind: type[T]) -> None:
        self._decoder, self._kind = msgspec.json.Decoder(kind), kind
        self._must_be = fields_in_words(kind)
        self._texts = text_fields(kind)

    async def read(self, request: Request[Any, Any, Any], *, max_bytes: int) -> T:
        """
        Raises:
            InvalidRequestError: malformed, of another shape, or not complete in time.
            RequestEntityTooLarge: more than `max_bytes`.
            UnsupportedMediaTypeError: not declared as JSON in UTF-8.
        """
        return self.decode(await json_of(request, max_bytes=max_bytes))

    async def read_if_any(self, request: Request[Any, Any, Any], *, max_bytes: int) -> T:
        """The same; without a body, whatever it is declared as, what `{}` stands for. Raises what `read` does."""
        _check_length(request, max_bytes=max_bytes)
        body = await _bytes_of(request, max_bytes=max_bytes)
        if body:
            check_json_type(request)
        return self.decode(body or b"{}")

    def decode(self, body: bytes) -> T:
        """
        Raises:
            InvalidRequestError: malformed, or of another shape.
        """
        value = self.shaped(body)
        try:
            pairs = _PAIRS.decode(body.decode())
        except RecursionError as error:
            raise InvalidRequestError(f"The body {_TOO_DEEP}.") from error
        _check_texts_and_names("", pairs)
        return value

    def shaped(self, body: bytes) -> T:
        """The same, without a look at names that come twice, and at NUL.

        Raises:
            InvalidRequestError: as `decode`.
        """
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._fault(str(error), body) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError(_NOT_JSON) from error

    def decode_texts(self, fields: Mapping[str, str]) -> T:
        """The same from the fields of a form: texts are as they stand there, all else is written as in JSON.

        Raises:
            InvalidRequestError: of another shape.
        """
        members = (
            _as_json(name) + b":" + (_as_json(value) if name in self._texts or not _is_json(value) else value.encode())
            for name, value in fields.items()
        )
        return self.decode(b"{" + b",".join(members) + b"}")

    def _fault(self, theirs: str, body: bytes) -> InvalidRequestError:
        named, place = _FAULTY_NAME.search(theirs), _FAULTY_PATH.search(theirs)
        if place is not None and place["field"] in self._must_be:
            field, inside = place["field"], place["inside"]
            is_nested = is_inside_object(inside)
            if named is not None:
                says = "is required" if "missing" in named["what"] else "is no field of this object"
                return refusal(f"{field}{inside}.{named['name'].partition('`')[0]}", says)
            if inside and not is_nested and (key := _key_of_no_string(body, field)) is not None:
                return refusal(_inside(field, key), "must be a string")
            if not is_nested:
                return refusal(field, f"must be {self._must_be[field]}")
            return refusal(f"{field}{inside}", f"must be {words_at(self._kind, f'.{field}{inside}')}")
        if named is not None:
            name = named["name"]
            return refusal(name, "is required") if name in self._must_be else unknown_field(name, self._must_be)
        return InvalidRequestError("The body must be a JSON object.")


async def json_of(request: Request[Any, Any, Any], *, max_bytes: int, more_time_s: float = 0.0) -> bytes:
    """A body that is declared as JSON, as it came.

    Args:
        more_time_s: it may take longer than others, by as much.
    Raises:
        InvalidRequestError, RequestEntityTooLarge, UnsupportedMediaTypeError: as `JsonBody.read`, but for its shape.
    """
    _check_length(request, max_bytes=max_bytes)
    check_json_type(request)
    return await _bytes_of(request, max_bytes=max_bytes, more_time_s=more_time_s)


class QueryString(Generic[T]):
    """Query parameters of one shape, each name at most once.

    The application lets no route have any (`refuse_query`); one that takes some says `before_request=QUERY.check`.

    Args:
        kind: a Struct whose fields all have defaults.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self.must_be = fields_in_words(kind)

    async def check(self, request: Request[Any, Any, Any]) -> None:
        """
        Raises:
            NotFoundError: the address ends where an id is to follow.
            InvalidRequestError: as `read`.
        """
        _refuse_empty_id(request)
        self.read(request)

    def read(self, request: Request[Any, Any, Any]) -> T:
        """
        Raises:
            InvalidRequestError: an unknown name, one that comes twice, or a value that is empty, has NUL or
                another type.
        """
        values: dict[str, str] = {}
        for name, value in parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name not in self.must_be:
                raise refusal(name, "is no query parameter of this address")
            if name in values:
                raise refusal(name, "is there more than once")
            if "\0" in value:
                raise refusal(name, _NUL)
            if not value:  # a client whose variable is empty means something else than all there is
                raise refusal(name, "must not be empty; leave it out instead")
            values[name] = value
        return self.converted(values)

    def converted(self, values: Mapping[str, object]) -> T:
        """The parameters out of the texts that came.

        Raises:
            InvalidRequestError: one has another type.
        """
        try:
            return msgspec.convert(values, self.kind, strict=False)
        except msgspec.ValidationError as error:
            place = _FAULTY_PATH.search(str(error))
            assert place is not None
            raise refusal(place["field"], f"must be {self.must_be[place['field']]}") from error


def given(value: str | UnsetType) -> str | None:
    """The value of a query parameter; None where it was left out."""
    return None if value is UNSET else value


class _NoParameters(Struct):
    pass


async def refuse_query(request: Request[Any, Any, Any]) -> None:
    """Take no query parameters; but whoever asks what may be sent to an address may ask with those that he will send.

    Raises:
        NotFoundError: the address ends where an id is to follow.
        InvalidRequestError: there are some.
    """
    _refuse_empty_id(request)
    if request.scope["query_string"] and request.method != "OPTIONS":
        QueryString(_NoParameters).read(request)


def _refuse_empty_id(request: Request[Any, Any, Any]) -> None:
    """A client whose id is empty means neither all there is nor a new one, as which the framework would take it."""
    path = request.scope["raw_path"].partition(b"?")[0].decode("latin-1")  # the other one has lost its last slash
    if path.endswith("/") and request.method in ("GET", "HEAD", "POST"):
        with_any_id = re.sub("/+", "/", f"{path}/_").split("/")
        reads = request.method != "POST"  # and may so show what only something else is done to, one by one
        if any(_leads_to_one(it, with_any_id) and (reads or "POST" in it.methods) for it in request.app.routes):
            raise NotFoundError("There is nothing at this address; the id behind its last / is missing.")


def _leads_to_one(route: BaseRoute, names: Sequence[str]) -> bool:
    """Whether a path of these names is one of the route's, and the last of them an id."""
    known = route.path_format.split("/")
    return (
        len(known) == len(names)
        and known[-1].startswith("{")
        and all(each == name or each.startswith("{") for each, name in zip(known, names, strict=True))
    )


async def _bytes_of(request: Request[Any, Any, Any], *, max_bytes: int, more_time_s: float = 0.0) -> bytes:
    body, timeout_s = bytearray(), services_of(request).body_timeout_s + more_time_s
    try:
        with Deadline(asyncio.get_running_loop().time() + timeout_s):
            for _ in range(MAX_PIECES):
                event = await request.receive()
                if event["type"] != "http.request":
                    raise InvalidRequestError("The request ended before its body did.")
                body += event.get("body", b"")
                if len(body) > max_bytes:
                    raise RequestEntityTooLarge
                if not event.get("more_body", False):
                    return bytes(body)
            raise InvalidRequestError(f"The body came in more than {MAX_PIECES} pieces.")
    except TimeoutError as error:
        raise InvalidRequestError(f"The body was not complete after {timeout_s:g} s.") from error


def _check_length(request: Request[Any, Any, Any], *, max_bytes: int) -> None:
    if content_length_of(request) > max_bytes:
        raise RequestEntityTooLarge


def check_json_type(request: Request[Any, Any, Any]) -> None:
    if not _is_json_in_utf8(content_type_of(request)):
        raise UnsupportedMediaTypeError(
            "The body must be JSON in UTF-8, and the header must say so: Content-Type: application/json"
        )


def content_type_of(request: Request[Any, Any, Any]) -> str:
    """What the body is said to be.

    Raises:
        UnsupportedMediaTypeError: nothing is said, or it is said twice, or the body is compressed.
    """
    content_types = []
    for name, value in request.scope["headers"]:
        match name:
            case b"content-type":
                content_types.append(value.decode("latin-1"))
            case b"content-encoding" if value.strip().lower() != b"identity":
                raise UnsupportedMediaTypeError("The body must not be compressed.")
    if len(content_types) != 1:
        raise UnsupportedMediaTypeError("The request must have exactly one Content-Type.")
    return content_types[0]


def content_length_of(request: Request[Any, Any, Any]) -> int:
    """How many bytes the body is said to have, 0 where nothing is said.

    Raises:
        InvalidRequestError: it is no number.
    """
    length = 0
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise InvalidRequestError("The Content-Length is no number.")
            length = max(length, int(value[:19]))
    return length


def has_body(request: Request[Any, Any, Any]) -> bool:
    """Whether a body is announced, of whatever length."""
    return any(name in (b"transfer-encoding", b"content-type") for name, _ in request.scope["headers"])


def _is_json_in_utf8(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [value.strip('"') for name, _, value in (p.partition("=") for p in parameters) if name == "charset"]
    return media_type == "application/json" and all(charset in ("utf-8", "utf8") for charset in charsets)


def _check_texts_and_names(path: str, value: object, depth: int = 0) -> None:
    """Refuse what the decoder lets pass."""
    if depth > _DEEPEST:
        raise refusal(path.partition(".")[0], _TOO_DEEP)
    match value:
        case str():
            if "\0" in value:
                raise refusal(path, _NUL)
        case list():
            for child in value:
                _check_texts_and_names(path, child, depth + 1)
        case tuple():
            names = set()
            for name, child in value:
                if name in names:
                    raise refusal(_inside(path, name), "is there more than once")
                if "\0" in name:
                    raise refusal(name, _NUL)
                if not isinstance(child, str) or "\0" in child:
                    _check_texts_and_names(_inside(path, name), child, depth + 1)
                names.add(name)


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _key_of_no_string(body: bytes, field: str) -> str | None:
    """The first key of the object `field` whose value is no string; None where it is none, or the rest malformed."""
    try:
        values: object = msgspec.json.decode(body, type=dict[str, object])[field]
        pairs = values.items() if isinstance(values, dict) else ()
        return next(str(key) for key, value in pairs if not isinstance(value, str))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, StopIteration):
        return None


def unknown_field(name: str, known: Iterable[str]) -> InvalidRequestError:
    """A field that the request does not have, and those that it has."""
    return refusal(name, f"is no field of this request; it has {', '.join(known)}")


def refusal(field: str, message: str) -> InvalidRequestError:
    """A wrong field. One whose name is no plain word is not repeated."""
    return InvalidRequestError.of(field if _SANE_NAME.fullmatch(field) else "?", message)


def _as_json(text: str) -> bytes:
    return msgspec.json.encode(text)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
