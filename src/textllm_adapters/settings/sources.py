"""Where settings come from: files, `.env`, environment variables and arguments; and which of them wins."""

import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from msgspec import UNSET

from textllm_adapters.settings.kinds import Switch
from textllm_adapters.settings.problems import Place, Report, SettingsError
from textllm_adapters.settings.provider_secrets import with_secrets
from textllm_adapters.settings.reading import Field, build, fields_of, kind_of, read, read_section
from textllm_adapters.settings.records import FILE_FIELDS, Settings, contradictions, shipped_prompts
from textllm_adapters.settings.yaml_text import parse_yaml

MAX_FILE_BYTES = 1_000_000

ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "OPENAI_API_KEY": ("openai_api_key",),
    "OPENAI_BASE_URL": ("openai_base_url",),
    "DATABASE_ENABLED": ("database_enabled",),
    "DATABASE_URL": ("database_url",),
    "S3_ENABLED": ("s3", "enabled"),
    "AWS_ACCESS_KEY_ID": ("s3", "access_key_id"),
    "AWS_SECRET_ACCESS_KEY": ("s3", "secret_access_key"),
    "AWS_SESSION_TOKEN": ("s3", "session_token"),
    "AWS_REGION": ("s3", "region"),
    "S3_BUCKET": ("s3", "bucket"),
    "S3_ENDPOINT": ("s3", "endpoint"),
    "S3_URL_EXPIRATION": ("s3", "url_expiration_s"),
    "LOG_LEVEL": ("logging", "level"),
    "TEXTLLM_DATA_DIR": ("data_dir",),
    "TEXTLLM_LOCAL_MODEL": ("local_model",),
    "TEXTLLM_METRICS_TOKEN": ("metrics_token",),
    "TEXTLLM_API_KEY": ("api_key",),
    "TEXTLLM_SERVER": ("server",),
    "TEXTLLM_USER": ("user",),
}
"""Variables with a name of their own, and the setting each one sets."""


# Limits protect a service from its callers; whoever uses the engine in process is not protected from himself.
_PERSONAL: Mapping[str, object] = {
    "rate_limit_per_minute": 1_000_000,
    "max_input_length": 10_000_000,
    "max_conversations_per_user": 1_000_000_000,
}


def _file_paths() -> Iterator[tuple[str, ...]]:
    for name in FILE_FIELDS:
        yield (name,)
        if (field := fields_of(Settings)[name]).is_section:
            yield from ((name, inner) for inner in fields_of(field.kind))


CONFIG_KEYS = frozenset(".".join(path) for path in _file_paths())
"""Paths of what can stand in `config.yaml`, as `logging.level`; sections are among them, as `logging`."""

# In the order they are read: for one setting, the longer name wins.
_VARIABLES = dict(ENVIRONMENT) | {"TEXTLLM_" + "__".join(path).upper(): path for path in _file_paths()}


def _field_at(path: tuple[str, ...]) -> Field:
    field = Field(Settings)
    for name in path:
        field = fields_of(field.kind)[name]
    return field


SECRET_FILES: Mapping[str, str] = {
    f"{name}_FILE": name for name, path in ENVIRONMENT.items() if _field_at(path).is_secret
}
"""Variables that name a file, and the variable of the secret that is in it: what containers are given is mounted so."""


def _read_text(path: Path, place: Place, *, must_exist: bool) -> str:
    """A file's text; after a complaint, unless it may be missing, none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) <= MAX_FILE_BYTES:
            return content.decode("utf-8-sig")
        found = "a larger file"
    except (FileNotFoundError, NotADirectoryError):
        if not must_exist:
            return ""
        found = "no such file"
    except IsADirectoryError:
        found = "a directory"
    except OSError as error:
        found = f"a file that cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        found = "bytes that are not UTF-8"
    except ValueError:
        found = "something that is no path"  # it has a NUL in it
    place.refuse(found, f"a readable UTF-8 file of at most {MAX_FILE_BYTES} bytes")
    return ""


def _read_yaml(text: str, place: Place) -> Mapping[str, object]:
    """The mapping that a YAML file is; an empty one where it is not."""
    value = parse_yaml(text, lambda fault: place.refuse(fault, "YAML: one mapping, plain and without repetition"))
    if isinstance(value, Mapping):
        return value
    if value is not None and value is not UNSET:
        place.refuse(kind_of(value), "a mapping")
    return {}


_DOTENV_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=
        (?: \s*(?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" ) \s*(?:(?<=\s)\#.*)?
          | (?P<bare>(?!\s*['"]).*)
        )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def _read_dotenv(text: str, report: Report) -> dict[str, str]:
    """The variables of a `.env` file, one a line as a shell would read it; the last of a name wins.

    `NAME=value`, `export NAME=value`, 'as it stands', "with \\n, \\t, \\" escapes", ` # comment`. Nothing is expanded.
    """
    variables = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(line)
        if match is None:
            place = Place(report, f".env: line {number}")
            place.refuse("something else", 'NAME=value, NAME="value" or a # comment')
        elif match["single"] is not None:
            variables[match["name"]] = match["single"]
        elif match["double"] is not None:
            variables[match["name"]] = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match["double"])
        else:
            variables[match["name"]] = re.sub(r"\s+#.*", "", match["bare"]).strip()
    return variables


def _read_variables(environ: Mapping[str, str], source: Place, cwd: Path) -> Iterator[Mapping[str, object]]:
    """One layer of settings for each variable that sets something. An empty one counts as unset."""
    for name, path in _VARIABLES.items():
        if text := environ.get(name):
            yield _read_variable(path, text, source.known(name)._replace(key=".".join(path)))
    for file_name, name in SECRET_FILES.items():
        if file := environ.get(file_name):
            place = source.known(file_name)._replace(key=".".join(ENVIRONMENT[name]))
            if environ.get(name):
                place.refuse(f"{name} as well", "one of the two")
            else:
                yield _read_secret(ENVIRONMENT[name], cwd / file, place)
    known = [*(name for name in (*_VARIABLES, *SECRET_FILES) if name.startswith("TEXTLLM_")), "TEXTLLM_CONFIG"]
    for name in sorted(environ):
        is_ours = name.startswith("TEXTLLM_") and not name.startswith("TEXTLLM_TEST_")
        if is_ours and name not in known and environ[name]:
            hint = "TEXTLLM_ and a key of config.yaml, nested ones joined by __"
            source.child(name).refuse_name(name, known, hint)


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _read_variable(path: tuple[str, ...], text: str, place: Place) -> Mapping[str, object]:
    """The setting at `path`, in the shape of the whole."""
    field = _field_at(path)
    given: object = text
    if field.kind == Switch:
        given = _SWITCH.get(text.lower(), text)
    elif not field.is_text:
        given = parse_yaml(text, lambda fault: place.refuse(fault, field.expected))
    return _nested(path, UNSET if given is UNSET else read(field, given, place))


def _read_secret(path: tuple[str, ...], file: Path, place: Place) -> Mapping[str, object]:
    """The secret that is a file's text, in the shape of the whole. The line break at its end is an editor's."""
    problems = len(place.report)
    text = _read_text(file, place, must_exist=True)
    value: object = UNSET
    if len(place.report) == problems:
        value = read(_field_at(path), re.sub(r"\r?\n\Z", "", text), place)
    return _nested(path, value)


def _nested(path: tuple[str, ...], value: object) -> Mapping[str, object]:
    for name in reversed(path):
        value = {name: value}
    return cast("Mapping[str, object]", value)


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    is_personal: bool = False,
    **arguments: object,
) -> Settings:
    """The settings in force: defaults, `config.yaml` and `prompts.yaml`, `.env`, environment, arguments; later wins.

    Args:
        config: the file to read; left out, the one `TEXTLLM_CONFIG` names, or `config/config.yaml` if there is one.
            `prompts.yaml` is looked for beside it; what it does not name is as in the one that is shipped.
        environ: the environment; left out, the process's own.
        cwd: where `.env`, `config/` and relative paths to the file are looked for; left out, the working directory.
        is_personal: for one person in process: the limits that protect a service from its callers are as high as they
            can be, unless a source sets them: the file to something else than the default, the environment to anything.
        arguments: fields of `Settings` by name; mappings are merged into what the sources say.
    Raises:
        SettingsError: something cannot be used; it holds every problem of every source, up to a hundred.
    """
    report: Report = []
    environ = os.environ if environ is None else environ
    cwd = Path() if cwd is None else cwd
    dotenv = _read_dotenv(_read_text(cwd / ".env", Place(report, ".env"), must_exist=False), report)

    candidates = {
        "argument: config": config,
        "environment: TEXTLLM_CONFIG": environ.get("TEXTLLM_CONFIG"),
        ".env: TEXTLLM_CONFIG": dotenv.get("TEXTLLM_CONFIG"),
    }
    named = [(Place(report, origin), cwd / path) for origin, path in candidates.items() if path]
    origin, path = named[0] if named else (Place(report, "config.yaml"), cwd / "config" / "config.yaml")
    in_config, in_prompts = Place(report, path.name), Place(report, "prompts.yaml")
    config_text = _read_text(path, origin, must_exist=bool(named))
    prompts_text = _read_text(path.parent / "prompts.yaml", in_prompts, must_exist=False)

    def read_key(file: str, place: Place) -> str:
        return _read_text(cwd / Path(file).expanduser(), place, must_exist=True)

    given = dict(_read_yaml(config_text, in_config))
    if "providers" in given:
        both = {**dotenv, **environ}
        given["providers"] = with_secrets(given["providers"], in_config.child("providers"), both, read_key)
    in_file = _read_config(given, in_config)
    layers = [
        {"prompts": shipped_prompts()},
        _personal(in_file) if is_personal else in_file,
        {"prompts": read(fields_of(Settings)["prompts"], _read_yaml(prompts_text, in_prompts), in_prompts)},
        *_read_variables(dotenv, Place(report, ".env"), cwd),
        *_read_variables(environ, Place(report, "environment"), cwd),
        read_section(fields_of(Settings), arguments, Place(report, "argument")),
    ]
    settings = build(Settings, functools.reduce(_merged, layers), Place(report, ""))
    assert isinstance(settings, Settings)  # no field of it is required

    faulty = {key for key, _ in report}
    faulty |= {".".join(key.split(".")[:2]) for key in faulty}  # of a provider or model, what is wrong in it
    together = [problem for keys, problem in contradictions(settings) if not keys & faulty]
    if problems := (*(problem for _, problem in report), *together):
        raise SettingsError(problems)
    return settings


def _personal(in_file: Mapping[str, object]) -> Mapping[str, object]:
    """What `config.yaml` says, over limits for one person: the file that is shipped states every default."""
    defaults = Settings()
    stated = {
        name: value for name, value in in_file.items() if name not in _PERSONAL or value != getattr(defaults, name)
    }
    return {**_PERSONAL, **stated}


def _read_config(given: Mapping[str, object], place: Place) -> Mapping[str, object]:
    """What `config.yaml` says; a setting that has a variable of its own belongs there."""
    variables = {path[0]: variable for variable, path in ENVIRONMENT.items() if len(path) == 1}
    for name in given:
        if name in variables:
            place.child(name).refuse("a setting of the environment", f"the environment variable {variables[name]}")
    fields = {name: fields_of(Settings)[name] for name in FILE_FIELDS}
    return read_section(fields, {name: given[name] for name in given if name not in variables}, place)


def _merged(low: Mapping[str, object], high: Mapping[str, object]) -> dict[str, object]:
    """`high` over `low`; mappings are merged key by key."""
    merged = dict(low)
    for name, value in high.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(below, value)
        merged[name] = value
    return merged
