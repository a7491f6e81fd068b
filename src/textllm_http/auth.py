"""Who sends a request. One of the guards below hangs on every handler."""

import re
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Guard

from textllm_core.application import TextLLM
from textllm_core.errors import UnauthenticatedError
from textllm_core.tenancy import Caller, Role

_BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)

Connection = ASGIConnection[Any, Any, Any, Any]


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """Whom the guard of the handler has let in."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def open_to_all(_connection: Connection, _handler: BaseRouteHandler) -> None:
    """Ask for no key; such a handler knows no caller."""


def _at_least(role: Role) -> Guard:
    async def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        caller = await _authenticated(connection)
        caller.must_be(role)
        connection.scope["state"]["caller"] = caller

    return guard


any_caller: Final = _at_least("user")
service_caller: Final = _at_least("service")
admin_caller: Final = _at_least("admin")


async def any_caller_or_link(connection: Connection, handler: BaseRouteHandler) -> None:
    """As `any_caller`; but an address that is signed needs no key: the handler checks the signature, or refuses."""
    if b"signature=" not in connection.scope["query_string"]:
        await any_caller(connection, handler)  # type: ignore[misc]  # a guard may be async


async def _authenticated(connection: Connection) -> Caller:
    """
    Raises:
        UnauthenticatedError: keys are required, and there is none in force in the one `Authorization` header.
        StorageUnavailableError: nobody can say now.
    """
    if not connection.app.state.requires_keys:
        return Caller()
    textllm: TextLLM = connection.app.state.textllm
    given = [value for name, value in connection.scope["headers"] if name == b"authorization"]
    bearer = _BEARER.fullmatch(given[0].decode("latin-1")) if len(given) == 1 else None
    if bearer is None:
        raise UnauthenticatedError
    return await textllm.books.authenticate(bearer[1])
