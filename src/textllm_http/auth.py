"""Who sends a request. One of the guards below hangs on every handler."""

import re
from contextlib import suppress
from hmac import compare_digest
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Guard

from textllm_core.api_keys import digest_of, is_secret
from textllm_core.errors import ForbiddenError, StorageUnavailableError, UnauthenticatedError
from textllm_core.tenancy import Caller, Role
from textllm_http.services import services_of
from textllm_http.unknown_keys import network_of

_BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)

Connection = ASGIConnection[Any, Any, Any, Any]


def caller_of(request: Connection) -> Caller:
    """Whom the guard of the handler has let in."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def refuse_if_revoked(request: Request[Any, Any, Any]) -> None:
    """See whether the key that let the request in is still in force; where nobody can say now, it is.

    Raises:
        UnauthenticatedError: it was revoked meanwhile.
    """
    services = services_of(request)
    if services.requires_keys and (secret := _bearer(request)) is not None:
        with suppress(StorageUnavailableError):
            await services.textllm.administration.authenticate(secret)


async def open_to_all(_connection: Connection, _handler: BaseRouteHandler) -> None:
    """Ask for no key; such a handler knows no caller."""


def _at_least(role: Role) -> Guard:
    async def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        caller = await _authenticated(connection)
        caller.must_be(role)
        connection.scope["state"]["caller"] = caller

    return guard


any_caller: Final = _at_least("user")
admin_caller: Final = _at_least("admin")


async def any_caller_or_link(connection: Connection, handler: BaseRouteHandler) -> None:
    """As `any_caller`; but an address that is signed needs no key: the handler checks the signature, or refuses."""
    if b"signature=" not in connection.scope["query_string"]:
        await any_caller(connection, handler)  # type: ignore[misc]  # a guard may be async


async def operator(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Let in whoever runs the service, by a token that is no tenant's key; anyone where none is set and no keys are."""
    services = services_of(connection)
    token = services.operator_token
    given = _bearer(connection)
    if token is not None and given is not None and compare_digest(given.encode(), token):
        return
    if token is None and not services.requires_keys:
        return
    if services.requires_keys:
        with suppress(UnauthenticatedError):
            await _authenticated(connection)
            raise ForbiddenError.of_operator()
    raise UnauthenticatedError.of_operator()


def _bearer(connection: Connection) -> str | None:
    """What the one `Authorization` header brings."""
    given = [value for name, value in connection.scope["headers"] if name == b"authorization"]
    bearer = _BEARER.fullmatch(given[0].decode("latin-1")) if len(given) == 1 else None
    return None if bearer is None else bearer[1]


def _address_of(connection: Connection) -> str:
    client = connection.scope["client"]
    return "" if client is None else client[0]


async def _authenticated(connection: Connection) -> Caller:
    """
    Raises:
        UnauthenticatedError: keys are required, and there is none in force in the one `Authorization` header.
        UnknownKeysError: the address has brought too many that are not.
        StorageUnavailableError: nobody can say now.
    """
    services = services_of(connection)
    if not services.requires_keys:
        return Caller(id=f"address:{network_of(_address_of(connection))}")
    secret = _bearer(connection)
    if secret is None:
        raise UnauthenticatedError
    if not is_secret(secret):
        raise UnauthenticatedError.of_malformed()
    address, digest = _address_of(connection), digest_of(secret)
    services.unknown_keys.admit(address, digest)
    try:
        caller = await services.textllm.administration.authenticate(secret)
    except UnauthenticatedError:
        services.unknown_keys.forget(digest)
        raise
    services.unknown_keys.know(address, digest)
    return caller
