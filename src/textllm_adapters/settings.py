"""The settings of one process: read from files and the environment, checked as a whole, then never changed."""

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, NamedTuple, TypeAlias, cast, get_args, get_type_hints
from urllib.parse import quote, unquote, urlsplit

import msgspec
import platformdirs
import yaml

from textllm_core.errors import ConfigurationError

__all__ = [
    "CONFIG_KEYS",
    "ENVIRONMENT",
    "Logging",
    "ModelPrice",
    "Pricing",
    "Problem",
    "S3Settings",
    "Secret",
    "Settings",
    "SettingsError",
    "load_settings",
]

MAX_FILE_BYTES = 1_000_000
MAX_YAML_DEPTH = 20


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


class Problem(msgspec.Struct, frozen=True):
    """One setting that cannot be used. `found` names a kind of value: the value may be a misplaced secret."""

    path: str  # such as "config.yaml: pricing.input_per_1k" or "environment: TEXTLLM_MODEL"
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}"


class SettingsError(ConfigurationError):
    """Settings that cannot be used; `problems` are all of them, in the order they were read."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = "1 setting cannot" if len(problems) == 1 else f"{len(problems)} settings cannot"
        super().__init__(
            "\n".join(
                [
                    f"{count} be used:",
                    *(f"  {problem}" for problem in problems),
                    "Nothing was started. `textllm config check` reads them again; "
                    "`textllm config show` then prints the values in force.",
                ]
            )
        )
        self.problems = problems


# YAML, as its 1.2 core schema reads it: `no` and `12:30` stay text. A fraction is a Decimal: 0.0025 is exactly that.
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(
    r"[-+]?[0-9]{1,100}"
)  # int() refuses very long ones; more digits than this are beyond every bound
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,6})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _RefusedError(yaml.MarkedYAMLError):
    """YAML, but more than settings need. Its `problem` may be shown, unlike the parser's own: those quote the text."""


class _Loader(yaml.BaseLoader):
    """YAML as a tree, without what only serves to make a small file large: anchors, aliases and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs give it no types
        if getattr(event, "anchor", None) is not None:  # an alias has one, too
            raise _RefusedError(problem="an anchor or alias", problem_mark=event.start_mark)
        if self.depth == MAX_YAML_DEPTH:
            raise _RefusedError(problem=f"more than {MAX_YAML_DEPTH} levels", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Yaml:
    """A text read as YAML: its `value` (None, bool, int, Decimal, str, list or dict), and every fault found in it.

    A fault says what was found and where, and quotes nothing.
    """

    def __init__(self, text: str) -> None:
        self.faults: list[str] = []
        self.value: object = None
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            what = str(error.problem) if isinstance(error, _RefusedError) else "a syntax error"
            self._fault(what, error.problem_mark or error.context_mark)
        except yaml.reader.ReaderError:
            self.faults.append("a control character")
        else:
            self.value = None if node is None else self._value(node)

    def _fault(self, what: str, mark: yaml.Mark | None) -> None:
        self.faults.append(f"{what} at line {mark.line + 1}, column {mark.column + 1}" if mark else what)

    def _value(self, node: yaml.Node) -> object:
        if node.tag not in {_Loader.DEFAULT_SCALAR_TAG, _Loader.DEFAULT_SEQUENCE_TAG, _Loader.DEFAULT_MAPPING_TAG}:
            self._fault("a tag", node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, object] = {}
            for key, item in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    self._fault("a key that is not text", key.start_mark)
                elif key.value in mapping:
                    self._fault("a key for the second time", key.start_mark)
                else:
                    mapping[key.value] = self._value(item)
            return mapping
        text = cast("str", node.value)
        is_quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
        return text if is_quoted else _scalar(text)


def _scalar(text: str) -> object:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return Decimal(text)
    if _NOT_FINITE.fullmatch(text):
        return Decimal(text.replace(".", ""))
    return text


# What a setting may hold. The classes below name these beside each type; `_Reading` walks them.
class _Rule(NamedTuple):
    """One value: `read` returns it typed, or raises ValueError when it is not what is `expected`."""

    expected: str
    read: Callable[[object], object]
    is_text: bool = False  # an environment variable is then taken as it stands, not as YAML


class _Section(NamedTuple):
    """A mapping with the fields of a Struct as its keys."""

    kind: type[msgspec.Struct]


class _Named(NamedTuple):
    """A mapping from names of the operator's choice."""

    names: _Rule
    node: _Rule | _Section


class _Items(NamedTuple):
    """A list."""

    node: _Rule


_Node: TypeAlias = _Rule | _Section | _Named | _Items


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _whole(low: int, high: int) -> _Rule:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    return _Rule(f"an integer from {low} to {high}", read)


def _decimal(value: object) -> Decimal:
    """Finite, and exactly what was written: a Python float counts as its shortest notation."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError
    number = Decimal(float.__repr__(value)) if isinstance(value, float) else Decimal(value)
    _require(number.is_finite())
    return number


def _seconds(low: int, high: int) -> _Rule:
    def read(value: object) -> float:
        number = _decimal(value)
        _require(low <= number <= high)
        return float(number)

    return _Rule(f"a number of seconds from {low} to {high}", read)


def _read_dollars(value: object) -> Decimal:
    number = _decimal(value)
    _require(0 <= number <= 1_000_000)
    _require(number == round(number, 10))
    return number.copy_abs()  # -0 is 0


def _read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(value: object) -> str:
    """A line of text that can be printed, without space around it."""
    if not isinstance(value, str) or not value.isprintable() or value != value.strip() or not value:
        raise ValueError
    return value


def _matching(expected: str, pattern: str) -> _Rule:
    def read(value: object) -> str:
        text = _text(value)
        _require(re.fullmatch(pattern, text) is not None)
        return text

    return _Rule(expected, read, is_text=True)


def _one_of(choices: object) -> _Rule:
    names = cast("tuple[str, ...]", get_args(choices))

    def read(value: object) -> str:
        text = _text(value)
        _require(text in names)
        return text

    return _Rule("one of " + ", ".join(names), read, is_text=True)


def _read_level(value: object) -> str:
    level = _text(value).upper()
    _require(level in get_args(Level))
    return level


def _read_prompt(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= len(value) <= 100_000 or "\0" in value:
        raise ValueError
    value.encode()  # a lone surrogate, which YAML can escape, is a ValueError here and would be one at the provider
    return value


def _read_secret(value: object) -> Secret:
    text = _text(value.reveal() if isinstance(value, Secret) else value)
    _require(text.isascii() and " " not in text and len(text) <= 4096)
    return Secret(text)


def _read_path(value: object) -> Path:
    text = _text(str(value) if isinstance(value, Path) else value)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError from None  # "~" of a user there is not


def _read_web_url(value: object) -> str:
    """Without credentials, so that it may be printed."""
    text = _text(value)
    parts = urlsplit(text)
    _require(parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0)
    _require(not re.search(r"[\s@?#\\]", text))
    return text


def _read_origin(value: object) -> str:
    text = _text(value)
    _require(re.fullmatch(r"https?://([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", text) is not None)
    _require(urlsplit(text).port != 0)  # `.port` itself is a ValueError beyond 65535
    return text


def _read_database_url(value: object) -> Secret:
    secret = _read_secret(value)
    parts = urlsplit(secret.reveal())
    if parts.scheme == "sqlite":
        _require(secret.reveal().startswith("sqlite:///") and parts.path not in {"/", "/:memory:"})
        _require("?" not in secret.reveal() and "\0" not in unquote(parts.path))
    else:
        _require(parts.scheme in {"postgres", "postgresql", "postgresql+asyncpg"})
        _require(parts.netloc.count("@") <= 1 and parts.port != 0 and len(parts.path) > 1)
    _require(not parts.fragment)
    return secret


Provider: TypeAlias = Literal["auto", "openai", "embedded"]
LlmApi: TypeAlias = Literal["conversations", "responses", "chat_completions"]
Auth: TypeAlias = Literal["auto", "required", "disabled"]
Unpriced: TypeAlias = Literal["refuse", "free"]
Level: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_BOOLEAN = _Rule("true or false", _read_boolean)
_DOLLARS = _Rule("a number of US dollars from 0 to 1000000 with at most 10 decimals", _read_dollars)
_SECRET = _Rule("1 to 4096 ASCII characters without spaces", _read_secret, is_text=True)
_PATH = _Rule("a path", _read_path, is_text=True)
_WEB_URL = _Rule("an http or https URL without credentials, query or fragment", _read_web_url, is_text=True)
_ORIGIN = _Rule("an exact origin such as https://app.example: no *, no path, lower case", _read_origin)
_DATABASE_URL = _Rule(
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE (special characters percent-encoded) or sqlite:///PATH",
    _read_database_url,
    is_text=True,
)
_MODEL = _matching("a model name of 1 to 200 letters, digits and . _ : / @ -", r"[A-Za-z0-9._:/@-]{1,200}")
_PROMPT_NAME = _matching("a name of 1 to 64 letters, digits, _ and -", r"[A-Za-z0-9_-]{1,64}")


class Pricing(msgspec.Struct, frozen=True, kw_only=True):
    """What the configured model costs, in USD per 1,000 tokens."""

    input_per_1k: Annotated[Decimal, _DOLLARS]
    output_per_1k: Annotated[Decimal, _DOLLARS]


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs, in USD per 1,000,000 tokens; None: as `input`."""

    input: Annotated[Decimal, _DOLLARS]
    output: Annotated[Decimal, _DOLLARS]
    cached_input: Annotated[Decimal | None, _DOLLARS] = None
    cache_write: Annotated[Decimal | None, _DOLLARS] = None


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged, and whether to files in `log_dir` as well."""

    level: Annotated[Level, _Rule("one of " + ", ".join(get_args(Level)), _read_level, is_text=True)] = "INFO"
    log_to_file: Annotated[bool, _BOOLEAN] = True
    log_dir: Annotated[Path, _PATH] = Path("logs")


class S3Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where files go when S3 keeps them. Without keys, the environment's usual AWS credentials are looked for."""

    enabled: Annotated[bool, _BOOLEAN] = False
    access_key_id: Annotated[Secret | None, _SECRET] = None
    secret_access_key: Annotated[Secret | None, _SECRET] = None
    region: Annotated[str, _matching("a region such as us-east-1", r"[A-Za-z0-9-]{1,64}")] = "us-east-1"
    bucket: Annotated[str | None, _matching("a bucket name of 3 to 63 characters", r"[A-Za-z0-9._-]{3,63}")] = None
    endpoint: Annotated[str | None, _WEB_URL] = None
    url_expiration_s: Annotated[int, _whole(1, 604_800)] = 86_400


DEFAULT_PROMPTS = {"default": "You are a helpful assistant. Answer briefly."}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator decides. `load_settings` checks it; `config/config.yaml` says what each key means."""

    model: Annotated[str, _MODEL] = "gpt-4o"
    provider: Annotated[Provider, _one_of(Provider)] = "auto"
    llm_api: Annotated[LlmApi, _one_of(LlmApi)] = "conversations"
    store_messages: Annotated[bool, _BOOLEAN] = True
    auth: Annotated[Auth, _one_of(Auth)] = "auto"
    max_history_items: Annotated[int, _whole(1, 100_000)] = 100
    rate_limit_per_minute: Annotated[int, _whole(1, 1_000_000)] = 10
    max_input_length: Annotated[int, _whole(1, 10_000_000)] = 10_000
    max_file_size_mb: Annotated[int, _whole(1, 5_000)] = 20
    cost_limit_per_session: Annotated[Decimal, _DOLLARS] = Decimal("5.0")
    warn_at_cost: Annotated[Decimal, _DOLLARS] = Decimal("1.0")
    pricing: Annotated[Pricing | None, _Section(Pricing)] = None
    prices: Annotated[dict[str, ModelPrice], _Named(_MODEL, _Section(ModelPrice))] = {}
    unpriced: Annotated[Unpriced, _one_of(Unpriced)] = "refuse"
    stream_responses: Annotated[bool, _BOOLEAN] = True
    max_output_tokens: Annotated[int, _whole(16, 1_000_000)] = 4096
    max_document_chars: Annotated[int, _whole(1, 100_000_000)] = 400_000
    max_document_pages: Annotated[int, _whole(1, 100_000)] = 1000
    upstream_timeout_s: Annotated[float, _seconds(1, 3600)] = 120.0
    first_token_timeout_s: Annotated[float, _seconds(1, 3600)] = 60.0
    cors_origins: Annotated[tuple[str, ...], _Items(_ORIGIN)] = ()
    retention_days: Annotated[int | None, _whole(1, 36_500)] = None
    stream_drain_s: Annotated[float, _seconds(0, 3600)] = 120.0
    max_detached_streams: Annotated[int, _whole(0, 100_000)] = 256
    logging: Annotated[Logging, _Section(Logging)] = Logging()
    prompts: Annotated[
        dict[str, str], _Named(_PROMPT_NAME, _Rule("1 to 100000 characters, not all blank", _read_prompt))
    ] = msgspec.field(default_factory=DEFAULT_PROMPTS.copy)
    openai_api_key: Annotated[Secret | None, _SECRET] = None
    openai_base_url: Annotated[str | None, _WEB_URL] = None
    database_enabled: Annotated[bool | None, _BOOLEAN] = None
    database_url: Annotated[Secret | None, _DATABASE_URL] = None
    s3: Annotated[S3Settings, _Section(S3Settings)] = S3Settings()
    data_dir: Annotated[Path, _PATH] = msgspec.field(default_factory=lambda: platformdirs.user_data_path("textllm"))
    local_model: Annotated[Path | None, _PATH] = None
    api_key: Annotated[Secret | None, _SECRET] = None
    server: Annotated[str | None, _WEB_URL] = None

    @property
    def resolved_provider(self) -> Literal["openai", "embedded"]:
        """`provider`, with `auto` decided by whether there is a key for OpenAI."""
        if self.provider == "auto":
            return "embedded" if self.openai_api_key is None else "openai"
        return self.provider

    @property
    def database(self) -> str:
        """SQLAlchemy's URL: `postgresql+asyncpg://…` or `sqlite+aiosqlite:///ABSOLUTE_PATH`. It may hold a password."""
        if self.database_url is None or self.database_enabled is False:
            return _sqlite_url(self.data_dir / "textllm.db")
        scheme, rest = self.database_url.reveal().split("://", 1)
        if scheme == "sqlite":
            return _sqlite_url(Path(unquote(rest[1:])))
        return f"postgresql+asyncpg://{rest}"

    def public(self) -> dict[str, object]:
        """What is in force, in builtins and `Decimal`: no secret; scheme and host of a URL; names of the prompts."""
        shown: dict[str, object] = {name: getattr(self, name) for name in _FILE_FIELDS}
        s3 = {name: getattr(self.s3, name) for name in ("enabled", "region", "bucket", "url_expiration_s")}
        return cast(
            "dict[str, object]",
            msgspec.to_builtins(
                shown
                | {
                    "provider": self.resolved_provider,
                    "prompts": sorted(self.prompts),
                    "openai_base_url": _scheme_and_host(self.openai_base_url),
                    "database": _scheme_and_host(self.database),
                    "s3": s3 | {"endpoint": _scheme_and_host(self.s3.endpoint)},
                    "data_dir": self.data_dir,
                    "local_model": self.local_model,
                    "server": _scheme_and_host(self.server),
                },
                builtin_types=(Decimal,),
                enc_hook=str,  # paths
            ),
        )


def _sqlite_url(path: Path) -> str:
    return "sqlite+aiosqlite:///" + quote(path.absolute().as_posix(), safe="/:")


def _scheme_and_host(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"


# Variables with a name of their own, and the setting each one sets.
ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "OPENAI_API_KEY": ("openai_api_key",),
    "OPENAI_BASE_URL": ("openai_base_url",),
    "DATABASE_ENABLED": ("database_enabled",),
    "DATABASE_URL": ("database_url",),
    "S3_ENABLED": ("s3", "enabled"),
    "AWS_ACCESS_KEY_ID": ("s3", "access_key_id"),
    "AWS_SECRET_ACCESS_KEY": ("s3", "secret_access_key"),
    "AWS_REGION": ("s3", "region"),
    "S3_BUCKET": ("s3", "bucket"),
    "S3_ENDPOINT": ("s3", "endpoint"),
    "S3_URL_EXPIRATION": ("s3", "url_expiration_s"),
    "LOG_LEVEL": ("logging", "level"),
    "TEXTLLM_DATA_DIR": ("data_dir",),
    "TEXTLLM_LOCAL_MODEL": ("local_model",),
    "TEXTLLM_API_KEY": ("api_key",),
    "TEXTLLM_SERVER": ("server",),
}


class _Field(NamedTuple):
    node: _Node
    is_optional: bool
    is_required: bool


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, _Field]:
    hints = get_type_hints(kind, include_extras=True)
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    fields = {}
    for name in kind.__struct_fields__:
        hint, node = get_args(hints[name])
        fields[name] = _Field(node, NoneType in get_args(hint), name in required)
    return fields


_FILE_FIELDS = tuple(
    name
    for name in Settings.__struct_fields__
    if name != "prompts" and (name == "logging" or name not in {path[0] for path in ENVIRONMENT.values()})
)
_FILE_PATHS = tuple(
    path
    for name in _FILE_FIELDS
    for node in [_fields(Settings)[name].node]
    for path in ([(name,)] + ([(name, inner) for inner in _fields(node.kind)] if isinstance(node, _Section) else []))
)
CONFIG_KEYS: frozenset[str] = frozenset(".".join(path) for path in _FILE_PATHS)  # sections among them, as `logging`

# In the order they are read: for one setting, the longer name wins.
_VARIABLES = dict(ENVIRONMENT) | {"TEXTLLM_" + "__".join(path).upper(): path for path in _FILE_PATHS}


class _At(NamedTuple):
    """A place in a source as people read it, and the setting it is about."""

    shown: str
    key: str = ""

    def child(self, name: str) -> "_At":
        # Long or odd names are not repeated: they may be something else than a name.
        shown = name if re.fullmatch(r"[\w./:@-]{1,32}", name) else f"(a name of {len(name)} characters)"
        return _At(f"{self.shown}{'.' if self.key else ': '}{shown}", f"{self.key}.{name}" if self.key else name)


class _Reading:
    """Collects what is wrong while source after source is read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.faulty: set[str] = set()

    def refuse(self, at: _At, found: str, expected: str) -> None:
        self.problems.append(Problem(at.shown, found, expected))
        self.faulty.add(at.key)

    def unknown(self, at: _At, name: str, known: Iterable[str], otherwise: str) -> None:
        names = {name.lower().removeprefix("textllm_"): name for name in known}
        close = get_close_matches(name.lower().removeprefix("textllm_"), names, n=1)
        self.refuse(at, "an unknown name", f"a known one; did you mean {names[close[0]]}?" if close else otherwise)

    def value(self, field: _Field, value: object, at: _At) -> object:
        """The typed value, or UNSET after a complaint; of a section, what is right in it as a dict."""
        node = field.node
        if value is None and field.is_optional:
            return None
        if isinstance(node, _Rule):
            return self._checked(node, value, at)
        if isinstance(node, _Items):
            if not isinstance(value, list | tuple):
                return self._mismatch(at, value, "a list")
            return tuple(
                self._checked(node.node, item, _At(f"{at.shown}[{n}]", at.key)) for n, item in enumerate(value)
            )
        if isinstance(value, msgspec.Struct):
            value = msgspec.structs.asdict(value)
        if not isinstance(value, Mapping):
            return self._mismatch(at, value, "a mapping")
        if isinstance(node, _Section):
            return self.section(node.kind, value, at)
        return self._named(node, value, at)

    def section(
        self, kind: type[msgspec.Struct], given: Mapping[str, object], at: _At, known: Iterable[str] | None = None
    ) -> dict[str, object]:
        fields = _fields(kind)
        known = fields.keys() if known is None else known
        values: dict[str, object] = {}
        for name, value in ((str(name), value) for name, value in given.items()):
            if name in known:
                values[name] = self.value(fields[name], value, at.child(name))
            else:
                variables = [variable for variable, path in ENVIRONMENT.items() if at.key == "" and path == (name,)]
                otherwise = f"the environment variable {variables[0]}" if variables else "one of " + ", ".join(known)
                self.unknown(at.child(name), name, () if variables else known, otherwise)
        return values

    def build(self, kind: type[msgspec.Struct], values: Mapping[str, object], at: _At) -> object:
        """The Struct, or UNSET if one of its required fields is missing or was refused."""
        given = {name: value for name, value in values.items() if value is not msgspec.UNSET}
        missing = [name for name, field in _fields(kind).items() if field.is_required and name not in given]
        for name in missing:
            if name not in values:
                self.refuse(at.child(name), "nothing", _expected(_fields(kind)[name].node))
        return msgspec.UNSET if missing else kind(**given)

    def _named(self, node: _Named, given: Mapping[str, object], at: _At) -> dict[str, object]:
        values: dict[str, object] = {}
        for name, item in given.items():
            inner = at.child(str(name))
            key = self._checked(node.names, name, inner)
            value = self.value(_Field(node.node, is_optional=False, is_required=True), item, inner)
            if isinstance(node.node, _Section) and isinstance(value, dict):
                value = self.build(node.node.kind, value, inner)
            if isinstance(key, str) and value is not msgspec.UNSET:
                values[key] = value
        return values

    def _checked(self, rule: _Rule, value: object, at: _At) -> object:
        try:
            return rule.read(value)
        except ValueError:
            return self._mismatch(at, value, rule.expected)

    def _mismatch(self, at: _At, value: object, expected: str) -> msgspec.UnsetType:
        self.refuse(at, _kind_of(value), expected)
        return msgspec.UNSET


def _expected(node: _Node) -> str:
    if isinstance(node, _Rule):
        return node.expected
    return "a list" if isinstance(node, _Items) else "a mapping"


def _kind_of(value: object) -> str:
    if value == "":
        return "empty text"
    kinds = {
        NoneType: "null",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        Decimal: "a number",
        str: "text",
    }
    kinds |= {list: "a list", tuple: "a list", dict: "a mapping"}
    return kinds.get(type(value)) or f"a {type(value).__name__}"


def _file_text(path: Path, at: _At, reading: _Reading, *, must_exist: bool) -> str | None:
    """The text of a file of settings; None, after a complaint unless it may be missing, if there is none to read."""
    fault = None
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) <= MAX_FILE_BYTES:
            return content.decode("utf-8-sig")
        fault = "a larger file"
    except (FileNotFoundError, NotADirectoryError):
        fault = "no such file" if must_exist else None
    except IsADirectoryError:
        fault = "a directory"
    except OSError as error:
        fault = f"a file that cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        fault = "bytes that are not UTF-8"
    except ValueError:
        fault = "something that is no path"  # it has a NUL in it
    if fault is not None:
        reading.refuse(at, fault, f"a readable UTF-8 file of at most {MAX_FILE_BYTES} bytes")
    return None


def _mapping(path: Path, at: _At, reading: _Reading, *, must_exist: bool) -> Mapping[str, object]:
    text = _file_text(path, at, reading, must_exist=must_exist)
    document = _Yaml(text or "")
    for fault in document.faults:
        reading.refuse(_At(path.name), fault, "YAML: one mapping, plain and without repetition")
    if document.value is None or isinstance(document.value, Mapping):
        return document.value or {}
    reading.refuse(_At(path.name), _kind_of(document.value), "a mapping")
    return {}


_DOTENV_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=
        (?: \s*(?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" ) \s*(?:(?<=\s)\#.*)?
          | (?P<bare>(?!\s*['"]).*)
        )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def _dotenv(text: str, reading: _Reading) -> dict[str, str]:
    """The variables of a `.env` file, one a line as a shell would read it; the last of a name wins.

    `NAME=value`, `export NAME=value`, 'as it stands', "with \\n, \\t, \\" escapes", ` # comment`. Nothing is expanded.
    """
    variables = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(line)
        if match is None:
            reading.refuse(_At(f".env: line {number}"), "something else", 'NAME=value, NAME="value" or a # comment')
        elif match["single"] is not None:
            variables[match["name"]] = match["single"]
        elif match["double"] is not None:
            variables[match["name"]] = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match["double"])
        else:
            variables[match["name"]] = re.sub(r"\s+#.*", "", match["bare"]).strip()
    return variables


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _environment(source: str, environ: Mapping[str, str], reading: _Reading) -> Iterable[dict[str, object]]:
    """One layer for each variable that sets something. An empty one counts as unset."""
    for name, path in _VARIABLES.items():
        if text := environ.get(name):
            yield _variable(_At(f"{source}: {name}", ".".join(path)), path, text, reading)
    for name in sorted(environ):
        is_ours = name.startswith("TEXTLLM_") and not name.startswith("TEXTLLM_TEST_")
        if is_ours and name not in _VARIABLES and name != "TEXTLLM_CONFIG" and environ[name]:
            known = [*(variable for variable in _VARIABLES if variable.startswith("TEXTLLM_")), "TEXTLLM_CONFIG"]
            reading.unknown(
                _At(source).child(name), name, known, "TEXTLLM_ and a key of config.yaml, nested ones joined by __"
            )


def _variable(at: _At, path: tuple[str, ...], text: str, reading: _Reading) -> dict[str, object]:
    """The one setting of a variable, in the shape of the whole."""
    kind: type[msgspec.Struct] = Settings
    for name in path[:-1]:
        section = _fields(kind)[name].node
        assert isinstance(section, _Section)
        kind = section.kind
    field = _fields(kind)[path[-1]]
    given: object = text
    if field.node is _BOOLEAN:
        given = _SWITCH.get(text.lower(), text)
    elif not (isinstance(field.node, _Rule) and field.node.is_text):
        document = _Yaml(text)
        for fault in document.faults:
            reading.refuse(at, fault, _expected(field.node))
        if document.faults:
            return {}
        given = document.value
    value = reading.value(field, given, at)
    for name in reversed(path):
        value = {name: value}
    return cast("dict[str, object]", value)


def _merged(low: Mapping[str, object], high: Mapping[str, object]) -> dict[str, object]:
    """`high` over `low`; mappings are merged key by key. What was refused does not hide what stands below it."""
    merged = dict(low)
    for name, value in high.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[name] = _merged(below, value)
        elif value is not msgspec.UNSET or name not in merged:
            merged[name] = value
    return merged


class _Together(NamedTuple):
    """A rule between settings; not judged while one of them is faulty by itself."""

    keys: frozenset[str]
    is_broken: Callable[[Settings], bool]
    problem: Problem


_TOGETHER = (
    _Together(
        frozenset({"store_messages", "llm_api"}),
        lambda settings: not settings.store_messages and settings.llm_api != "conversations",
        Problem("store_messages", "false without llm_api: conversations", "true, or llm_api: conversations"),
    ),
    _Together(
        frozenset({"provider", "openai_api_key"}),
        lambda settings: settings.provider == "openai" and settings.openai_api_key is None,
        Problem("provider", "openai without OPENAI_API_KEY", "OPENAI_API_KEY in the environment, or another provider"),
    ),
    _Together(
        frozenset({"database_enabled", "database_url"}),
        lambda settings: settings.database_enabled is True and settings.database_url is None,
        Problem("DATABASE_ENABLED", "true without DATABASE_URL", "DATABASE_URL in the environment, or false"),
    ),
    _Together(
        frozenset({"s3.enabled", "s3.bucket"}),
        lambda settings: settings.s3.enabled and settings.s3.bucket is None,
        Problem("S3_ENABLED", "true without S3_BUCKET", "S3_BUCKET in the environment, or false"),
    ),
    _Together(
        frozenset({"s3.enabled", "s3.access_key_id", "s3.secret_access_key"}),
        lambda settings: (
            settings.s3.enabled and (settings.s3.access_key_id is None) != (settings.s3.secret_access_key is None)
        ),
        Problem(
            "S3_ENABLED", "true with half a key", "both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither of them"
        ),
    ),
)


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    **arguments: object,
) -> Settings:
    """The settings in force: defaults, `config.yaml` and `prompts.yaml`, `.env`, environment, arguments; later wins.

    Args:
        config: the file to read; left out, the one `TEXTLLM_CONFIG` names, or `config/config.yaml` if there is one.
            `prompts.yaml` is looked for beside it.
        environ: the environment; left out, the process's own.
        cwd: where `.env`, `config/` and relative paths to the file are looked for; left out, the working directory.
        arguments: fields of `Settings` by name; mappings are merged into what the sources say.
    Raises:
        SettingsError: something cannot be used; it holds every problem of every source.
    """
    reading = _Reading()
    environ = os.environ if environ is None else environ
    cwd = Path() if cwd is None else cwd
    dotenv = _dotenv(_file_text(cwd / ".env", _At(".env"), reading, must_exist=False) or "", reading)

    path, origin = cwd / "config" / "config.yaml", None
    if config is not None:
        path, origin = cwd / config, _At("argument: config")
    elif name := environ.get("TEXTLLM_CONFIG"):
        path, origin = cwd / name, _At("environment: TEXTLLM_CONFIG")
    elif name := dotenv.get("TEXTLLM_CONFIG"):
        path, origin = cwd / name, _At(".env: TEXTLLM_CONFIG")
    file = _mapping(path, origin or _At(path.name), reading, must_exist=origin is not None)
    prompts = _mapping(path.with_name("prompts.yaml"), _At("prompts.yaml"), reading, must_exist=False)

    layers: list[Mapping[str, object]] = [
        {"prompts": DEFAULT_PROMPTS},
        reading.section(Settings, file, _At(path.name), _FILE_FIELDS),
        {"prompts": reading.value(_fields(Settings)["prompts"], prompts, _At("prompts.yaml"))},
        *_environment(".env", dotenv, reading),
        *_environment("environment", environ, reading),
        reading.section(Settings, arguments, _At("argument")),
    ]
    values: dict[str, object] = {}
    for layer in layers:
        values = _merged(values, layer)
    for name, field in _fields(Settings).items():
        section = values.get(name)
        if isinstance(field.node, _Section) and isinstance(section, Mapping):
            values[name] = reading.build(field.node.kind, section, _At(name, name))
    settings = reading.build(Settings, values, _At("settings"))
    assert isinstance(settings, Settings)  # no field of it is required

    together = [rule.problem for rule in _TOGETHER if not rule.keys & reading.faulty and rule.is_broken(settings)]
    if problems := (*reading.problems, *together):
        raise SettingsError(problems)
    return settings
