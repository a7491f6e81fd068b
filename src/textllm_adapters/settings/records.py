"""What there is to decide: the rules that single values keep, the settings, and the rules between them."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec
import platformdirs

from textllm_adapters.settings.problems import Problem
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
WebUrl: TypeAlias = Annotated[str, Rule("an http or https URL without credentials, query or fragment", _is_web_url)]
Origin: TypeAlias = Annotated[str, Rule(_ORIGIN, _is_origin)]
Network: TypeAlias = Annotated[str, Rule(_NETWORK, _is_network)]
Host: TypeAlias = Annotated[str, matching(_HOST, r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]{2,45}\]")]
ModelName: TypeAlias = Annotated[str, matching(_MODEL, r"[A-Za-z0-9._:/@-]{1,200}")]
PromptName: TypeAlias = Annotated[str, matching("a name of 1 to 64 letters, digits, _ and -", r"[A-Za-z0-9_-]{1,64}")]
Prompt: TypeAlias = Annotated[str, Rule("1 to 100000 characters, not all blank", _is_prompt)]
UserId: TypeAlias = Annotated[str, matching("a user: 1 to 255 characters of A-Z a-z 0-9 . _ : @ + -", USER_ID)]
Region: TypeAlias = Annotated[str, matching("a region such as us-east-1", r"[A-Za-z0-9-]{1,64}")]
Bucket: TypeAlias = Annotated[str, matching("a bucket name of 3 to 63 characters", r"[A-Za-z0-9._-]{3,63}")]

Provider: TypeAlias = Literal["auto", "openai", "embedded"]
LlmApi: TypeAlias = Literal["conversations", "responses", "chat_completions"]
Auth: TypeAlias = Literal["auto", "required", "disabled"]
Unpriced: TypeAlias = Literal["refuse", "free"]
Level: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def shipped_prompts() -> dict[str, str]:
    """The prompts that come with the program: in the wheel they lie beside this file, in a checkout in `config/`."""
    installed = Path(__file__).with_name("prompts.yaml")
    path = installed if installed.is_file() else Path(__file__).parents[3] / "config" / "prompts.yaml"
    return msgspec.yaml.decode(path.read_bytes(), type=dict[str, str])


class Pricing(msgspec.Struct, frozen=True, kw_only=True):
    """What the configured model costs, in USD per 1,000 tokens."""

    input_per_1k: Dollars
    output_per_1k: Dollars


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs, in USD per 1,000,000 tokens; None: as `input`."""

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged, and whether to files in `log_dir` as well."""

    level: Level = "INFO"
    log_to_file: Switch = True
    log_dir: FilePath = Path("logs")


class S3Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where files go when S3 keeps them. Without keys, the environment's usual AWS credentials are looked for."""

    enabled: Switch = False
    access_key_id: Token | None = None
    secret_access_key: Token | None = None
    session_token: Token | None = None
    region: Region = "us-east-1"
    bucket: Bucket | None = None
    endpoint: WebUrl | None = None
    url_expiration_s: Annotated[int, whole(1, 604_800)] = 86_400


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator decides. `load_settings` checks it; `config/config.yaml` says what each key means."""

    model: ModelName = "gpt-4o"
    provider: Provider = "auto"
    llm_api: LlmApi = "conversations"
    store_messages: Switch = True
    auth: Auth = "auto"
    max_history_items: Annotated[int, whole(1, 100_000)] = 100
    rate_limit_per_minute: Annotated[int, whole(1, 1_000_000)] = 10
    max_input_length: Annotated[int, whole(1, 10_000_000)] = 10_000
    max_file_size_mb: Annotated[int, whole(1, 5_000)] = 20
    max_storage_mb_per_tenant: Annotated[int, whole(1, 1_000_000_000)] | None = None
    max_conversations_per_user: Annotated[int, whole(1, 1_000_000_000)] = 10_000
    cost_limit_per_session: Dollars = Decimal("5.0")
    warn_at_cost: Dollars = Decimal("1.0")
    pricing: Pricing | None = None
    prices: dict[ModelName, ModelPrice] = {}
    unpriced: Unpriced = "refuse"
    stream_responses: Switch = True
    max_output_tokens: Annotated[int, whole(16, 1_000_000)] = 4096
    max_document_chars: Annotated[int, whole(1, 100_000_000)] = 400_000
    max_document_pages: Annotated[int, whole(1, 100_000)] = 1000
    upstream_timeout_s: Annotated[float, seconds(1, 3600)] = 120.0
    first_token_timeout_s: Annotated[float, seconds(1, 3600)] = 60.0
    cors_origins: tuple[Origin, ...] = ()
    allowed_hosts: tuple[Host, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    header_timeout_s: Annotated[float, seconds(1, 3600)] = 20.0
    body_timeout_s: Annotated[float, seconds(1, 3600)] = 20.0
    unread_timeout_s: Annotated[float, seconds(1, 3600)] = 25.0
    retention_days: Annotated[int, whole(1, 36_500)] | None = None
    response_days: Annotated[int, whole(1, 36_500)] = 30
    journal_hours: Annotated[int, whole(1, 8_760)] = 1
    idempotency_hours: Annotated[int, whole(1, 8_760)] = 24
    revoked_key_days: Annotated[int, whole(1, 36_500)] | None = 90
    stream_drain_s: Annotated[float, seconds(0, 3600)] = 120.0
    max_detached_streams: Annotated[int, whole(0, 100_000)] = 256
    ready_conversations: Annotated[int, whole(0, 100)] = 4
    database_connection_lifetime_s: Annotated[float, seconds(1, 604_800)] = 1800.0
    logging: Logging = Logging()

    prompts: dict[PromptName, Prompt] = msgspec.field(default_factory=shipped_prompts)

    openai_api_key: Token | None = None
    openai_base_url: WebUrl | None = None
    database_enabled: Switch | None = None
    database_url: DatabaseUrl | None = None
    s3: S3Settings = S3Settings()
    data_dir: FilePath = msgspec.field(default_factory=lambda: platformdirs.user_data_path("textllm"))
    local_model: FilePath | None = None
    metrics_token: OperatorToken | None = None
    api_key: Token | None = None
    server: WebUrl | None = None
    user: UserId | None = None

    @property
    def resolved_provider(self) -> Literal["openai", "embedded"]:
        """`provider`, with `auto` decided by whether there is a key for OpenAI."""
        if self.provider == "auto":
            return "embedded" if self.openai_api_key is None else "openai"
        return self.provider

    @property
    def database(self) -> str:
        """The URL of the database, as SQLAlchemy takes it. It may hold a password."""
        if self.database_url is None or self.database_enabled is False:
            return _sqlite_url(self.data_dir / "textllm.db")
        scheme, rest = self.database_url.reveal().split("://", 1)
        if scheme == "sqlite":
            return _sqlite_url(Path(unquote(rest[1:])))
        return f"postgresql+asyncpg://{rest}"

    def public(self) -> dict[str, object]:
        """What is in force, in builtins and `Decimal`: no secret, no user of a URL; names of the prompts."""
        shown: dict[str, object] = {name: getattr(self, name) for name in FILE_FIELDS} | {
            "provider": self.resolved_provider,
            "prompts": sorted(self.prompts),
            "openai_base_url": _without_secrets(self.openai_base_url),
            "database": _without_secrets(self.database),
            "s3": {name: getattr(self.s3, name) for name in ("enabled", "region", "bucket", "url_expiration_s")}
            | {"endpoint": _without_secrets(self.s3.endpoint)},
            "data_dir": self.data_dir,
            "local_model": self.local_model,
            "server": _without_secrets(self.server),
        }
        builtins = msgspec.to_builtins(shown, builtin_types=(Decimal,), enc_hook=str)  # paths are what is left for it
        return cast("dict[str, object]", builtins)


# What config.yaml may say: prompts have a file of their own, and what follows them belongs to the environment.
FILE_FIELDS = Settings.__struct_fields__[: Settings.__struct_fields__.index("prompts")]


def contradictions(settings: Settings) -> Iterator[tuple[set[str], Problem]]:
    """What is right by itself, but not together: the settings it is about, and what to say."""
    if not settings.store_messages and settings.llm_api != "conversations":
        found, expected = "false without llm_api: conversations", "true, or llm_api: conversations"
        yield {"store_messages", "llm_api"}, Problem("store_messages", found, expected)
    elif not settings.store_messages and settings.resolved_provider == "embedded":
        found, expected = "false with the embedded model", "true: nobody else keeps what is said"
        yield {"store_messages", "provider", "openai_api_key"}, Problem("store_messages", found, expected)
    if settings.provider == "openai" and settings.openai_api_key is None:
        expected = "OPENAI_API_KEY in the environment, or another provider"
        yield {"provider", "openai_api_key"}, Problem("provider", "openai without OPENAI_API_KEY", expected)
    if settings.database_enabled and settings.database_url is None:
        expected = "DATABASE_URL in the environment, or false"
        yield {"database_enabled", "database_url"}, Problem("DATABASE_ENABLED", "true without DATABASE_URL", expected)
    s3 = settings.s3
    if s3.enabled and s3.bucket is None:
        expected = "S3_BUCKET in the environment, or false"
        yield {"s3.enabled", "s3.bucket"}, Problem("S3_ENABLED", "true without S3_BUCKET", expected)
    if s3.enabled and (s3.access_key_id is None) != (s3.secret_access_key is None):
        expected = "both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither of them"
        keys = {"s3.enabled", "s3.access_key_id", "s3.secret_access_key"}
        yield keys, Problem("S3_ENABLED", "true with half a key", expected)
    if s3.enabled and s3.session_token is not None and s3.access_key_id is None and s3.secret_access_key is None:
        expected = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY beside AWS_SESSION_TOKEN, or none of them"
        keys = {"s3.enabled", "s3.access_key_id", "s3.secret_access_key", "s3.session_token"}
        yield keys, Problem("S3_ENABLED", "true with a session token alone", expected)


def _sqlite_url(path: Path) -> str:
    return "sqlite+aiosqlite:///" + quote(path.absolute().as_posix(), safe="/:")


def _without_secrets(url: str | None) -> str | None:
    """Where a URL leads: scheme, host, port and path; of libpq's parameters those that say the same."""
    if url is None:
        return None
    parts = urlsplit(url)
    told = {"host", "port", "dbname", "sslmode", "target_session_attrs"}
    where = [(name, value) for name, value in parse_qsl(parts.query) if name in told]
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}" + (f"?{urlencode(where, safe='/,')}" if where else "")
