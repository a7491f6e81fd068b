"""What an operation of the OpenAPI document is made of, and the shapes that have no Struct elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from textllm_core.file_links import FileView
from textllm_core.records.sessions import Session
from textllm_http.openapi_words import Schema


class Content(Struct, frozen=True):
    """A body.

    Args:
        shape: a Struct, or a JSON schema.
        examples: by their names.
    """

    shape: type[Struct] | Schema
    examples: Mapping[str, Any] = {}


class Answer(Struct, frozen=True, kw_only=True):
    """A response that is no problem. `content` is by media type."""

    says: str
    content: Mapping[str, Content] = {}
    headers: Sequence[str] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """One operation.

    Args:
        route: how the router writes its address, where that differs: one of its routes may be several operations.
        problems: the codes of its problems, beyond those that all of its kind have.
    """

    tag: Literal["Chat", "Conversations", "Usage", "Files", "Keys", "Operations", "Documentation"]
    summary: str
    says: str = ""
    route: str | None = None
    query: type[Struct] | None = None
    headers: Sequence[str] = ()
    body: Mapping[str, Content] = {}
    needs_body: bool = True
    answers: Mapping[int, Answer]
    problems: Sequence[str] = ()


class FileList(Struct, frozen=True):
    """Files of a folder."""

    data: Sequence[FileView]
    has_more: bool


class SessionList(Struct, frozen=True):
    """Sessions of a user."""

    data: Sequence[Session]


class FileDeletion(Struct, frozen=True):
    """A file that is deleted."""

    success: Literal[True]
    key: str


class KeyRevocation(Struct, frozen=True):
    """A key that is revoked."""

    id: str
    deleted: Literal[True]


class Health(Struct, frozen=True):
    """How the service does."""

    status: str
    checks: Mapping[str, Mapping[str, Any]] | UnsetType = UNSET


class ConfigInForce(Struct, frozen=True):
    """The operator's settings."""

    config: Mapping[str, Any]
