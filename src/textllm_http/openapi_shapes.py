"""What is said of an operation in the OpenAPI document, beside its handler: what cannot be derived from that."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from textllm_http.openapi_words import Schema

JSON: Final = "application/json"
LIMITED: Final = ("RateLimit", "RateLimit-Policy")
DOOR_LIMITED: Final = (
    "X-RateLimit-Limit-Requests",
    "X-RateLimit-Remaining-Requests",
    "X-RateLimit-Reset-Requests",
)
FILE: Final[Schema] = {"type": "string", "format": "binary", "description": "The file."}


class Form(Struct, frozen=True):
    """The shape of a form: a Struct whose fields it has, and files, each as a JSON schema, by their names."""

    fields: type[Struct]
    required: Sequence[str]
    files: Mapping[str, Schema]


class Content(Struct, frozen=True):
    """A body.

    Args:
        shape: a Struct, a form, or a JSON schema.
        examples: by their names.
    """

    shape: type[Struct] | Form | Schema
    examples: Mapping[str, Any] = {}


class Answer(Struct, frozen=True, kw_only=True):
    """A response that is no problem. `content` is by media type."""

    says: str
    content: Mapping[str, Content] = {}
    headers: Sequence[str] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """One operation, as the option `described` of its handler; several of them where one route is several.

    Args:
        path: as the document writes it, where the router writes it otherwise.
        summary: where it is not the first line of the handler's docstring.
        has_query: whether it takes the route's query parameters.
        headers: the names of those that are read.
        problems: the codes of its problems, beyond those that all of its kind have.
    """

    tag: Literal["Chat", "Conversations", "Usage", "Files", "Keys", "OpenAI", "Operations", "Documentation"]
    path: str | None = None
    summary: str | None = None
    says: str = ""
    has_query: bool = True
    headers: Sequence[str] = ()
    body: Mapping[str, Content] = {}
    needs_body: bool = True
    answers: Mapping[int, Answer]
    problems: Sequence[str] = ()


def json_answer(says: str, shape: type[Struct] | Schema, example: Any, *headers: str) -> Answer:
    """JSON of one shape."""
    return Answer(says=says, content={JSON: Content(shape, {"answer": example})}, headers=headers)


def form(fields: type[Struct], *, required: Sequence[str], **files: Schema) -> Mapping[str, Content]:
    """A form with the fields of a Struct, as strings, and with files."""
    return {"multipart/form-data": Content(Form(fields, required, files))}
