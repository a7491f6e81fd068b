"""What is settled before a route is looked for: how a request is framed, where it comes from, whom it is for."""

import ipaddress
import re
from collections.abc import Awaitable, Collection, Iterable
from typing import Final, TypeAlias

from litestar.types import ASGIApp, Receive, Scope, Send

from textllm_core.errors import InvalidRequestError
from textllm_http.refusals import refusal_of

_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,255}|\[[0-9a-fA-F:.]{2,45}\])(:[0-9]{1,5})?")
_HOP: Final = re.compile(r"\[?(?P<address>[0-9a-fA-F.]+|[0-9a-fA-F:.]+(?=\]|\Z))\]?(:[0-9]{1,5})?")
_PROBES: Final = frozenset({"/health/live", "/health/ready"})  # asked for by address, by whoever runs the process

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Entrance:
    """An application behind its proxies. A request that gets in has one host, and a sane one.

    Trusted proxies are believed their `X-Forwarded-For`, `-Proto` and `-Host`, nobody else is. `Forwarded` counts for
    nothing: a proxy that writes the one kind lets the other pass as the client sent it.

    Args:
        trusted_proxies: addresses and networks, e.g. "10.0.0.0/8".
        allowed_hosts: the names, in lower case, that requests may be for; none: any.
    """

    def __init__(self, app: ASGIApp, *, trusted_proxies: Iterable[str], allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._trusted = [ipaddress.ip_network(proxy) for proxy in trusted_proxies]
        self._allowed = frozenset(allowed_hosts)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What is to be awaited; nothing of the entrance is left behind it."""
        try:
            self._believe_proxies(scope)
            self._check_host(scope)
            _check_encodings(scope)
        except InvalidRequestError as error:
            return refusal_of(scope, error)(scope, receive, send)
        return self._app(scope, receive, send)

    def _believe_proxies(self, scope: Scope) -> None:
        peer = scope["client"]
        if not self._trusted or peer is None or (sender := _address(peer[0])) is None or not self._is_trusted(sender):
            return
        for hop in reversed(_values(scope, b"x-forwarded-for")):  # each proxy appends whom it heard
            if (sender := _address(hop)) is None:
                break
            scope["client"] = (str(sender), 0)
            if not self._is_trusted(sender):
                break
        if (scheme := _last(scope, b"x-forwarded-proto").lower()) in ("http", "https"):
            scope["scheme"] = scheme
        if host := _last(scope, b"x-forwarded-host"):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", host.encode("latin-1")), *others]

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)

    def _check_host(self, scope: Scope) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            raise InvalidRequestError(
                "The request must have one Host header: a name or an address, and perhaps a port."
            )
        if self._allowed and host["name"].lower() not in self._allowed and scope["path"] not in _PROBES:
            raise InvalidRequestError(
                "The service does not answer to this Host; the setting allowed_hosts says to which."
            )


def _check_encodings(scope: Scope) -> None:
    """Refuse a compressed transfer, which the server would hand on as if it were the body."""
    if any(coding.lower() != "chunked" for coding in _values(scope, b"transfer-encoding")):
        raise InvalidRequestError("The Transfer-Encoding must be chunked, and nothing else.")


def _values(scope: Scope, name: bytes) -> list[str]:
    """The elements of a list that may be spread over several headers."""
    lines = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return [element for line in lines for part in line.split(",") if (element := part.strip())]


def _last(scope: Scope, name: bytes) -> str:
    """What the nearest proxy said; "" where none did."""
    return next(reversed(_values(scope, name)), "")


def _address(text: str) -> _Address | None:
    """An address, which may have a port; None where it is none."""
    hop = _HOP.fullmatch(text)
    try:
        address = ipaddress.ip_address(hop["address"] if hop else "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
