"""What there is to decide: the settings, and the rules between them."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec
import platformdirs

from textllm_adapters.settings.kinds import (
    Bucket,
    DatabaseUrl,
    Dollars,
    FilePath,
    Host,
    ModelName,
    Network,
    OperatorToken,
    Origin,
    Prompt,
    PromptName,
    Region,
    Switch,
    Token,
    UserId,
    WebUrl,
    seconds,
    whole,
)
from textllm_adapters.settings.problems import Problem
from textllm_adapters.settings.providers import (
    HostedKind,
    HostedToolSettings,
    Kind,
    ModelPrice,
    ModelSettings,
    PriceName,
    ProviderName,
    ProviderSettings,
    disagreements,
    unlimited,
)

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
    providers: dict[ProviderName, ProviderSettings] = {}
    models: dict[ModelName, ModelSettings] = {}
    hosted_tools: dict[HostedKind, HostedToolSettings] = {}
    max_tool_calls: Annotated[int, whole(1, 100)] = 5
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
    prices: dict[PriceName, ModelPrice] = {}
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
    conversation_days: Annotated[int, whole(1, 36_500)] | None = None
    retention_days: Annotated[int, whole(1, 36_500)] | None = None
    response_days: Annotated[int, whole(1, 36_500)] = 30
    journal_hours: Annotated[int, whole(1, 8_760)] = 1
    idempotency_hours: Annotated[int, whole(1, 8_760)] = 24
    revoked_key_days: Annotated[int, whole(1, 36_500)] | None = 90
    ledger_months: Annotated[int, whole(1, 1_200)] | None = None
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
        """What the first provider is: a model in this process, or one of OpenAI's API.

        Of `auto` without `providers` it is decided by whether there is a key for OpenAI, or the address of a server.
        """
        if self.providers:
            first = next(iter(self.providers.values()))
            return "embedded" if first.kind == "embedded" else "openai"
        if self.provider == "auto":
            return "embedded" if self.openai_api_key is None and self.openai_base_url is None else "openai"
        return self.provider

    @property
    def all_providers(self) -> Mapping[str, ProviderSettings]:
        """`providers`; without them the one that the other settings make."""
        if self.providers:
            own = msgspec.structs.replace
            return {
                name: own(each, api_key=self.openai_api_key) if each.takes_openai_key else each
                for name, each in self.providers.items()
            }
        if self.resolved_provider == "embedded":
            return {"embedded": ProviderSettings(kind="embedded")}
        kind: Kind = "openai" if self.llm_api == "conversations" else self.llm_api
        only = ProviderSettings(
            kind=kind,
            base_url=self.openai_base_url,
            api_key=self.openai_api_key,
            hosted_tools=self.hosted_tools,
        )
        return {"openai": only}

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
            "providers": {name: provider.public() for name, provider in self.providers.items()},
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
    for name, provider in settings.providers.items():
        if provider.takes_openai_key and settings.openai_api_key is None:
            expected = "api_key, api_key_file, OPENAI_API_KEY in the environment, or a base_url"
            yield {"providers", "openai_api_key"}, Problem(f"providers.{name}.api_key", "nothing", expected)
    yield from disagreements(settings.providers, settings.models, default=settings.model, priced=settings.prices)
    if settings.providers and settings.provider != "auto":
        found = f"{settings.provider} beside `providers`"
        yield {"provider", "providers"}, Problem("provider", found, "auto: the first of `providers` counts")
    elif settings.providers and settings.llm_api != "conversations":
        found = f"{settings.llm_api} beside `providers`"
        yield {"llm_api", "providers"}, Problem("llm_api", found, "left out: each provider has a kind of its own")
    if settings.hosted_tools and settings.providers:
        expected = "left out: each provider has its own, providers.NAME.hosted_tools"
        yield {"hosted_tools", "providers"}, Problem("hosted_tools", "something beside `providers`", expected)
    elif settings.hosted_tools and not next(iter(settings.all_providers.values())).may_host:
        expected = "{}: they need the Responses API"
        keys = {"hosted_tools", "llm_api", "provider"}
        yield keys, Problem("hosted_tools", "tools that this provider lacks", expected)
    for field, found, expected in unlimited(settings.hosted_tools):
        yield {"hosted_tools"}, Problem(field, found, expected)
    if not settings.store_messages and any(each.kind != "openai" for each in settings.providers.values()):
        found, expected = "false with a provider that keeps nothing", "true, or providers of the kind openai alone"
        yield {"store_messages", "providers"}, Problem("store_messages", found, expected)
    elif not settings.store_messages and settings.llm_api != "conversations":
        found, expected = "false without llm_api: conversations", "true, or llm_api: conversations"
        yield {"store_messages", "llm_api"}, Problem("store_messages", found, expected)
    elif not settings.store_messages and settings.resolved_provider == "embedded":
        found, expected = "false with the embedded model", "true: nobody else keeps what is said"
        yield {"store_messages", "provider", "openai_api_key"}, Problem("store_messages", found, expected)
    has_no_way = settings.openai_api_key is None and settings.openai_base_url is None
    if settings.provider == "openai" and has_no_way and not settings.providers:
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
