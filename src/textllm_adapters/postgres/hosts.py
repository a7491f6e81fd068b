"""The hosts that an URL of PostgreSQL names, and which of them is wanted."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

Host: TypeAlias = Mapping[str, object]  # arguments of asyncpg's, beside the URL: they go before what it says

READ_WRITE: Final = "read-write"
_PORT: Final = 5432


def hosts_of(url: str) -> Sequence[Host]:
    """Each host of the URL, as libpq reads it; where it names no more than one, asyncpg finds it alone.

    Raises:
        ValueError: it cannot be read.
    """
    parts, said = urlsplit(url), parse_qs(urlsplit(url).query)
    named = parts.netloc.rpartition("@")[2]
    if named:
        places = [_place(place) for place in named.split(",")]
    else:
        hosts = said.get("host", [""])[-1].split(",")
        ports = said.get("port", [""])[-1].split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        places = list(zip(hosts, ports, strict=True))
    if len(places) == 1:
        return [{}]
    return [{"host": host, "port": int(port or _PORT)} for host, port in places]


def wanted_of(url: str) -> str:
    """What a server must be: `read-write`, unless the URL says `primary` or `any`."""
    return parse_qs(urlsplit(url).query).get("target_session_attrs", [READ_WRITE])[-1]


def _place(named: str) -> tuple[str, str]:
    """Host and port, of `host`, `host:port`, `[address]:port`, or a socket's folder with its slashes as `%2F`."""
    if named.startswith("["):
        host, _, port = named[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = named.partition(":")
    return unquote(host), port
