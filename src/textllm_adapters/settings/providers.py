"""Who answers: providers, and the names by which their models are asked."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from textllm_adapters.settings.kinds import (
    Dollars,
    FilePath,
    ModelName,
    Rule,
    Secret,
    Switch,
    Token,
    WebUrl,
    matching,
    seconds,
    whole,
)
from textllm_adapters.settings.problems import Problem

_PATTERN = "a model name, or its beginning and *, such as openai/*"
_NAME = "a name of 1 to 40 lower-case letters, digits, - and _, beginning with a letter"


def _is_header(value: Secret) -> bool:
    text = value.reveal()
    return 1 <= len(text) <= 4096 and text.isascii() and text.isprintable() and text == text.strip()


Kind: TypeAlias = Literal["openai", "azure", "responses", "chat_completions", "embedded"]
ProviderName: TypeAlias = Annotated[str, matching(_NAME, r"[a-z][a-z0-9_-]{0,39}")]
PriceName: TypeAlias = Annotated[str, matching(_PATTERN, r"[A-Za-z0-9._:/@-]{1,200}\*?|\*")]
HeaderName: TypeAlias = Annotated[str, matching("the name of a header", r"[A-Za-z0-9-]{1,64}")]
HeaderText: TypeAlias = Annotated[Secret, Rule("1 to 4096 printable ASCII characters", _is_header)]
ApiVersion: TypeAlias = Annotated[str, matching("a version such as 2024-10-21", r"[A-Za-z0-9.-]{1,40}")]
HostedKind: TypeAlias = Annotated[
    str,
    matching("web_search, file_search, code_interpreter or mcp", "web_search|file_search|code_interpreter|mcp"),
]
NamedThing: TypeAlias = Annotated[str, matching("an id, a host or an address without spaces, or *", r"[!-~]{1,2048}")]
TenantName: TypeAlias = Annotated[
    str, matching("a tenant: 1 to 64 characters of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9._-]{1,64}")
]
Word: TypeAlias = Annotated[str, Rule("a word of a command", lambda word: bool(word) and "\0" not in word)]


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs, in USD per 1,000,000 tokens; None: as `input`."""

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long a provider may take, in seconds; None: as `first_token_timeout_s` and `upstream_timeout_s` say."""

    first_token_s: Annotated[float, seconds(1, 3600)] | None = None
    silence_s: Annotated[float, seconds(1, 3600)] | None = None


class Supports(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider takes; None: as its kind and its address tell, and what it refuses is not sent again.

    Args:
        images, files, tools, json_schema: of what turns may bring.
        max_completion_tokens: the longest reply by this name, in the place of `max_tokens`.
        stream_options, store, safety_identifier, prompt_cache_key: fields of the API that some servers refuse.
    """

    images: Switch | None = None
    files: Switch | None = None
    tools: Switch | None = None
    json_schema: Switch | None = None
    max_completion_tokens: Switch | None = None
    stream_options: Switch | None = None
    store: Switch | None = None
    safety_identifier: Switch | None = None
    prompt_cache_key: Switch | None = None


class HostedToolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that runs on a provider's own servers, which callers of `/v1/responses` may use.

    Args:
        price: USD for one call.
        tokens: that what comes of one call adds to what the model reads, at most; so much is held for each call.
        allowed: what requests may name: ids of vector stores, containers and files, hosts and addresses of MCP servers,
            or `*`. None: what is not the operator's own: any server, and no id.
        tenants: by tenants, what their requests may name besides.
    """

    price: Dollars
    tokens: Annotated[int, whole(0, 10_000_000)] = 16_000
    allowed: tuple[NamedThing, ...] | None = None
    tenants: dict[TenantName, tuple[NamedThing, ...]] = {}

    @property
    def is_limited(self) -> bool:
        """It says what requests may name."""
        return self.allowed is not None or bool(self.tenants)


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One provider.

    Args:
        kind: which API it is spoken to by; `openai` has conversations, `azure` deployments.
        base_url: up to and including `/v1`; of `azure` the resource. None: OpenAI's.
        api_key, api_key_file: the key, or the file that it is in.
        token_command: of `azure`: prints an Entra token; asked again before the token runs out.
        headers: of every call.
        api: of `azure`: which of its two APIs is spoken.
        api_version, deployments: of `azure`: without a version the `/openai/v1` API is spoken; names of deployments by
            model, where they differ.
        max_concurrency: calls at a time, in each process.
        hosted_tools: over the Responses API: which of its own tools may be used; all others are refused.
        model_file: of `embedded`: a GGUF file; None: `local_model`.
        trusts_cost: of `chat_completions`: the `cost` that it states in `usage`, in USD, is what is charged.
    """

    kind: Kind
    base_url: WebUrl | None = None
    api_key: Token | None = None
    api_key_file: FilePath | None = None
    token_command: tuple[Word, ...] = ()
    headers: dict[HeaderName, HeaderText] = {}
    api: Literal["chat_completions", "responses"] = "chat_completions"
    api_version: ApiVersion | None = None
    deployments: dict[ModelName, ModelName] = {}
    timeouts: Timeouts = Timeouts()
    max_concurrency: Annotated[int, whole(1, 100_000)] | None = None
    supports: Supports = Supports()
    hosted_tools: dict[HostedKind, HostedToolSettings] = {}
    model_file: FilePath | None = None
    trusts_cost: Switch = False

    @property
    def takes_openai_key(self) -> bool:
        """It is OpenAI itself, and has no key of its own."""
        has_none = self.api_key is None and self.api_key_file is None and not self.token_command
        return has_none and self.base_url is None and self.kind in ("openai", "responses", "chat_completions")

    @property
    def may_host(self) -> bool:
        """It may have tools on its own servers: it is spoken to by the Responses API."""
        return self.kind != "embedded" and not self.speaks_chat

    @property
    def speaks_chat(self) -> bool:
        """It is spoken to by the Chat Completions API."""
        return self.kind == "chat_completions" or (self.kind == "azure" and self.api == "chat_completions")

    @property
    def may_tell_contexts(self) -> bool:
        """It is a server that may say how large the contexts of its models are: OpenAI and Azure do not."""
        return self.base_url is not None and self.kind in ("chat_completions", "responses")

    def public(self) -> Mapping[str, object]:
        """What may be shown of it: no key, no header's value."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("api_key", "api_key_file", "token_command", "model_file"):
            del shown[name]
        if self.base_url is not None:
            parts = urlsplit(self.base_url)
            shown["base_url"] = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return shown | {"headers": sorted(self.headers)}


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A name that callers use.

    Args:
        provider: who has it; `model`: its name there; None: the same. None where `weights` say it.
        weights: by other names, their share of the turns; whoever has none only stands in.
        price: None: by `prices`, and by the price list.
        context: tokens of the past, the turn and the reply; None: not known.
        fallbacks: the names that are asked in its place, in their order, where it surely gave nothing.
    """

    provider: ProviderName | None = None
    model: ModelName | None = None
    weights: dict[ModelName, Annotated[int, whole(0, 1_000_000)]] = {}
    price: ModelPrice | None = None
    context: Annotated[int, whole(256, 100_000_000)] | None = None
    fallbacks: tuple[ModelName, ...] = ()


def disagreements(
    providers: Mapping[str, ProviderSettings],
    models: Mapping[str, ModelSettings],
    *,
    default: str,
    priced: Collection[str] = (),
) -> Iterator[tuple[set[str], Problem]]:
    """What is right by itself, but not together: the settings it is about, and what to say.

    Args:
        priced: the names that have a price of their own.
    """
    for name, provider in providers.items():
        for field, found, expected in _misfits(provider):
            yield {"providers"}, Problem(f"providers.{name}.{field}", found, expected)
    prices: dict[tuple[str, str], ModelPrice | None] = {}
    for name, model in models.items():
        here = {"models", f"models.{name}"}
        for field in ("weights", "fallbacks"):
            for other in getattr(model, field):
                if other == name or other not in models:
                    found, expected = "itself" if other == name else "no model of this name", "other names of `models`"
                    yield {"models", f"models.{other}"}, Problem(f"models.{name}.{field}", found, expected)
        if model.weights:
            for field, found, expected in _misweighed(model, models):
                yield here, Problem(f"models.{name}.{field}", found, expected)
            if name in priced:
                expected = "the names in its weights: each has its own price"
                yield here | {"prices"}, Problem(f"prices.{name}", "a name that has weights", expected)
            continue
        if model.provider is None:
            yield here, Problem(f"models.{name}.provider", "nothing", "the name of a provider, or weights")
            continue
        if model.provider not in providers:
            known = ", ".join(providers) or "a provider under `providers`"
            keys = {"models", "providers", f"providers.{model.provider}"}
            yield keys, Problem(f"models.{name}.provider", "no provider of this name", known)
        if prices.setdefault((model.provider, model.model or name), model.price) != model.price:
            expected = "one price of a provider's model under all of its names"
            yield {"models"}, Problem(f"models.{name}.price", "another price than under another name", expected)
    if models and default not in models:
        expected = f"one of {', '.join(models)}"
        yield {"models", "model", f"models.{default}"}, Problem("model", "a name that is not in `models`", expected)


def _misweighed(model: ModelSettings, models: Mapping[str, ModelSettings]) -> Iterator[tuple[str, str, str]]:
    """The field, what was found in it, and what was expected, of a name that has weights."""
    for field in ("provider", "model", "price", "context"):
        if getattr(model, field) is not None:
            yield field, "something beside weights", "nothing: each of the names in `weights` has its own"
    if not any(model.weights.values()):
        yield "weights", "no weight above 0", "at least one name with a share"
    if any(models[other].weights for other in model.weights if other in models and models[other] is not model):
        yield "weights", "a name that has weights itself", "names that have a provider"
    if model.weights.keys() & set(model.fallbacks):
        yield "fallbacks", "a name that is in weights, too", "others: those in `weights` stand in for each other"


def unlimited(tools: Mapping[HostedKind, HostedToolSettings]) -> Iterator[tuple[str, str, str]]:
    """The field, what was found in it, and what was expected, of tools with which requests name nothing."""
    tool = tools.get("web_search")
    if tool is not None and tool.is_limited:
        yield "hosted_tools.web_search", "allowed or tenants", "neither: nothing is named there"


def _misfits(provider: ProviderSettings) -> Iterator[tuple[str, str, str]]:
    """The field, what was found in it, and what was expected."""
    kind, keys = provider.kind, (provider.api_key, provider.api_key_file, provider.token_command or None)
    if kind == "azure" and provider.base_url is None:
        yield "base_url", f"nothing with the kind {kind}", "the address of the provider"
    if kind == "embedded" and (provider.base_url is not None or any(keys)):
        yield "kind", "embedded with an address or a key", "no address and no key: it runs in this process"
    if sum(key is not None for key in keys) > 1:
        yield "api_key", "more than one way to a key", "one of api_key, api_key_file and token_command"
    if kind == "azure" and not any(key is not None for key in keys):
        yield "api_key", "nothing with the kind azure", "api_key, api_key_file or token_command"
    if kind != "azure":
        for field in ("token_command", "api", "api_version", "deployments"):
            if getattr(provider, field) not in ((), {}, None, "chat_completions"):
                yield field, f"something with the kind {kind}", "nothing: it is of the kind azure alone"
    if provider.hosted_tools and not provider.may_host:
        yield "hosted_tools", "tools that this provider lacks", "nothing: they need the Responses API"
    yield from unlimited(provider.hosted_tools)
    if kind != "chat_completions" and provider.trusts_cost:
        yield "trusts_cost", f"true with the kind {kind}", "false: it is of the kind chat_completions alone"
    if kind != "embedded" and provider.model_file is not None:
        yield "model_file", f"something with the kind {kind}", "nothing: it is of the kind embedded alone"
