"""The rules that single values keep."""

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs, urlsplit

from textllm_core.ids import USER_ID


class Secret:
    """A text that shows itself only to `reveal()`.

    Neither a `str` nor a `Struct`: formatting cannot print it, and msgspec refuses to encode it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)


class Rule(NamedTuple):
    """What a value of the type beside it must be: true of `is_right`, which may also refuse it by a ValueError."""

    expected: str
    is_right: Callable[[Any], object] = lambda _: True


def whole(low: int, high: int) -> Rule:
    return Rule(f"an integer from {low} to {high}", lambda number: low <= number <= high)


def seconds(low: int, high: int) -> Rule:
    return Rule(f"a number of seconds from {low} to {high}", lambda number: low <= number <= high)


def matching(expected: str, pattern: str) -> Rule:
    return Rule(expected, re.compile(pattern).fullmatch)


def _is_prompt(text: str) -> bool:
    text.encode()  # a lone surrogate, which YAML can escape, is a ValueError here and would be one at the provider
    return 1 <= len(text.strip()) <= len(text) <= 100_000 and "\0" not in text


def _is_web_url(text: str) -> bool:
    parts = urlsplit(text)
    is_http = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    return is_http and text.isprintable() and not re.search(r"[\s@?#\\]", text)


def _is_origin(text: str) -> bool:
    is_exact = re.fullmatch(r"https?://([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", text)
    return is_exact is not None and urlsplit(text).port != 0  # `.port` itself is a ValueError beyond 65535


def _is_network(text: str) -> bool:
    return "%" not in text and bool(ipaddress.ip_network(text))  # which is a ValueError where it is none


def _is_token(secret: Secret) -> bool:
    return re.fullmatch(r"[!-~]{1,4096}", secret.reveal()) is not None


def _is_long_token(secret: Secret) -> bool:
    return _is_token(secret) and len(secret.reveal()) >= 16  # too many to be guessed


def _is_database_url(secret: Secret) -> bool:
    url = secret.reveal()
    parts = urlsplit(url)
    if not _is_token(secret) or parts.fragment:
        return False
    if parts.scheme == "sqlite":
        is_file = url.startswith("sqlite:///") and parts.path not in {"/", "/:memory:"}
        return is_file and "?" not in url and "%00" not in url
    is_postgres = parts.scheme in {"postgres", "postgresql", "postgresql+asyncpg"}
    hosts = parts.netloc.rpartition("@")[2]
    are_hosts = not hosts or all(_is_host(host) for host in hosts.split(","))
    wanted = parse_qs(parts.query).get("target_session_attrs", ["read-write"])
    is_writable = wanted[-1] in {"read-write", "primary", "any"}
    return is_postgres and parts.netloc.count("@") <= 1 and are_hosts and is_writable and len(parts.path) > 1


def _is_host(text: str) -> bool:
    """Of the hosts of a database's URL one, with its port or without."""
    found = re.fullmatch(r"(?:[^\[\]:]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", text)
    return found is not None and 0 < int(found[1] or 5432) < 65536


_DOLLARS = "a number of US dollars from 0 to 1000000 with at most 10 decimals"
_DATABASE_URL = (
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:///PATH: special characters percent-encoded, "
    "several hosts as HOST:PORT,HOST:PORT, target_session_attrs read-write, primary or any"
)
_WEB_URL = "an http or https URL (http://… or https://…), without credentials, query or fragment"
_ORIGIN = "an exact origin such as https://app.example: no *, no path, lower case"
_NETWORK = "an address or a network such as 10.0.0.0/8"
_HOST = "a host name or address such as api.example.org: no *, no port, lower case"
_MODEL = "a model name of 1 to 200 letters, digits and . _ : / @ -"

Switch: TypeAlias = Annotated[bool, Rule("true or false")]
Dollars: TypeAlias = Annotated[Decimal, Rule(_DOLLARS, lambda usd: 0 <= usd <= 1_000_000 and usd == round(usd, 10))]
FilePath: TypeAlias = Annotated[Path, Rule("a path")]
Token: TypeAlias = Annotated[Secret, Rule("1 to 4096 ASCII characters without spaces", _is_token)]
OperatorToken: TypeAlias = Annotated[Secret, Rule("16 to 4096 ASCII characters without spaces", _is_long_token)]
DatabaseUrl: TypeAlias = Annotated[Secret, Rule(_DATABASE_URL, _is_database_url)]
WebUrl: TypeAlias = Annotated[str, Rule(_WEB_URL, _is_web_url)]
Origin: TypeAlias = Annotated[str, Rule(_ORIGIN, _is_origin)]
Network: TypeAlias = Annotated[str, Rule(_NETWORK, _is_network)]
Host: TypeAlias = Annotated[str, matching(_HOST, r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]{2,45}\]")]
ModelName: TypeAlias = Annotated[str, matching(_MODEL, r"[A-Za-z0-9._:/@-]{1,200}")]
PromptName: TypeAlias = Annotated[str, matching("a name of 1 to 64 letters, digits, _ and -", r"[A-Za-z0-9_-]{1,64}")]
Prompt: TypeAlias = Annotated[str, Rule("1 to 100000 characters, not all blank", _is_prompt)]
UserId: TypeAlias = Annotated[str, matching("a user: 1 to 255 characters of A-Z a-z 0-9 . _ : @ + -", USER_ID)]
Region: TypeAlias = Annotated[str, matching("a region such as us-east-1", r"[A-Za-z0-9-]{1,64}")]
Bucket: TypeAlias = Annotated[str, matching("a bucket name of 3 to 63 characters", r"[A-Za-z0-9._-]{3,63}")]
