"""Who is charged for what comes through the door of OpenAI's API."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from litestar import Request
from litestar.handlers import BaseRouteHandler

from textllm_core.chat.response_places import is_anothers
from textllm_core.errors import (
    ConversationNotFoundError,
    InvalidRequestError,
    NotFoundError,
    StoredFileNotFoundError,
)
from textllm_core.file_names import key_of
from textllm_core.ids import USER_ID
from textllm_core.records.messages import Idempotency
from textllm_core.stored_responses import no_such_response
from textllm_core.tenancy import Caller
from textllm_http.admission import has_key, idempotency_of
from textllm_http.auth import Connection, any_caller, caller_of
from textllm_http.openai_door.bodies import DoorBody
from textllm_http.services import services_of

_Request = Request[Any, Any, Any]
_USER_ID: Final = re.compile(USER_ID)
NAMES_USER: Final = "X-User-ID"  # for clients that can add headers, and no fields: Open WebUI is one


def user_in_header(request: Connection) -> str | None:
    """The user that the header `X-User-ID` names, as one that a body names.

    Raises:
        InvalidRequestError: it is there twice, as where a proxy adds it behind the one of a client.
    """
    named = [value for name, value in request.scope["headers"] if name == b"x-user-id"]
    if len(named) > 1:
        raise InvalidRequestError.of(NAMES_USER, "must be there once; a proxy that sets it must replace the client's")
    return named[0].decode(errors="surrogateescape") if named else None


def named_user(
    caller: Caller, *, safety_identifier: str | None, user: str | None, in_header: str | None = None
) -> str | None:
    """The user that a request names: the key's, else `safety_identifier`, else `user`, else `in_header`.

    OpenAI takes any text there. One that cannot be the id of a user here stands for a user all the same: it becomes
    `id_` and a digest of it, always the same one. An empty one is refused: it would be as if nobody were named, for
    whom the key finds what is of any user.

    Returns:
        None: it names nobody.
    Raises:
        InvalidRequestError: one of them is empty.
    """
    if caller.user_id is not None:
        return caller.user_id
    named = None
    for field, value in (("safety_identifier", safety_identifier), ("user", user), (NAMES_USER, in_header)):
        if value == "":
            raise InvalidRequestError.of(field, "must not be empty; leave it out to name nobody")
        if named is None:
            named = value
    if named is None or _USER_ID.fullmatch(named):
        return named
    return f"id_{sha256(named.encode(errors='surrogatepass')).hexdigest()[:32]}"


def charged_user(
    caller: Caller, *, safety_identifier: str | None, user: str | None, in_header: str | None = None
) -> str:
    """Who is charged for a turn of no conversation: the user that it names, else the key itself as a user.

    Raises:
        InvalidRequestError: as `named_user`.
    """
    named = named_user(caller, safety_identifier=safety_identifier, user=user, in_header=in_header)
    return named or caller.id


async def caller_at_door(connection: Connection, handler: BaseRouteHandler) -> None:
    """As `any_caller`, and to nothing of another user than whom the header names; what is of no user is anyone's.

    Raises:
        InvalidRequestError: as `user_in_header`, and where it names an empty user.
        NotFoundError: it is of another user, or not there.
    """
    await any_caller(connection, handler)  # type: ignore[misc]  # a guard may be async
    scope: Mapping[str, object] = connection.scope
    named_there = scope.get("path_params")
    if named_there is None:  # the short way, whose paths name nothing, and whose handlers read the header themselves
        return
    in_header, caller, textllm = user_in_header(connection), caller_of(connection), services_of(connection).textllm
    if in_header is None or caller.user_id is not None:
        return
    named = named_user(caller, safety_identifier=None, user=None, in_header=in_header)
    error: NotFoundError
    match named_there:
        case {"conversation_id": str(of)}:
            owner, error = (await textllm.conversations.get(caller, of)).user_id, ConversationNotFoundError()
        case {"response_id": str(of)}:
            owner, error = (await textllm.responses.get(caller, of)).stored.user_id, no_such_response()
        case {"file_id": str(of)}:
            owner, error = (await textllm.files.get(caller, file_key(of))).user_id, StoredFileNotFoundError()
        case _:
            return
    if is_anothers(caller, named, owner):
        raise error


def file_key(file_id: str) -> str:
    """
    Raises:
        StoredFileNotFoundError: no file could have this id.
    """
    key = key_of(file_id)
    if key is None:
        raise StoredFileNotFoundError
    return key


def idempotency_at_door(request: _Request, body: DoorBody) -> Idempotency | None:
    """`idempotency_of`, to which a request for another user is another one, also where a header names the user.

    Raises:
        InvalidRequestError: as `idempotency_of`.
    """
    if not has_key(request):
        return None
    named = (user_in_header(request) or "").encode(errors="surrogateescape")
    return idempotency_of(request, body.canonical + named)
