"""Settings: what wins, what is refused and how it is said, and that no secret is ever shown."""

import traceback
from collections.abc import Mapping
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from textllm_adapters.settings import (
    CONFIG_KEYS,
    SECRET_FILES,
    Logging,
    ModelPrice,
    Pricing,
    Problem,
    S3Settings,
    Secret,
    Settings,
    SettingsError,
    load_settings,
)
from textllm_core.errors import ConfigurationError

CANARY = "sk-CANARY0123456789"


def load(
    folder: Path,
    *,
    config: str | bytes | None = None,
    prompts: str | None = None,
    dotenv: str | None = None,
    environ: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Settings:
    """`load_settings` in a folder with these files and this environment."""
    (folder / "config").mkdir(exist_ok=True)
    for name, content in {"config/config.yaml": config, "config/prompts.yaml": prompts, ".env": dotenv}.items():
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return load_settings(cwd=folder, environ=environ or {}, **arguments)


def problems(folder: Path, **sources: Any) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        load(folder, **sources)
    return caught.value.problems


# A source, what it holds, the path of the one problem that must be reported, and a part of what was expected instead.
BAD: list[tuple[str, Any, str, str]] = [
    ("config", "modell: gpt-4o", "config.yaml: modell", "did you mean model?"),
    ("config", "zzzzzzzz: 1", "config.yaml: zzzzzzzz", "one of model, provider"),
    ("config", "logging: {levle: INFO}", "config.yaml: logging.levle", "did you mean level?"),
    (
        "config",
        "pricing: {inputper1k: 1, input_per_1k: 1, output_per_1k: 1}",
        "config.yaml: pricing.inputper1k",
        "mean input",
    ),
    ("config", "prices: {m: {input: 1, output: 1, inptu: 2}}", "config.yaml: prices.m.inptu", "did you mean input?"),
    ("config", "openai_api_key: x", "config.yaml: openai_api_key", "the environment variable OPENAI_API_KEY"),
    ("config", "prompts: {default: hi}", "config.yaml: prompts", "one of model, provider"),
    ("config", "model:", "config.yaml: model", "a model name"),
    ("config", "model: ''", "config.yaml: model", "a model name"),
    ("config", "model: 4", "config.yaml: model", "a model name"),
    ("config", "model: [gpt-4o]", "config.yaml: model", "a model name"),
    ("config", 'model: "a\\0b"', "config.yaml: model", "a model name"),
    ("config", 'model: "\\ud800"', "config.yaml: model", "a model name"),
    ("config", "provider: azure", "config.yaml: provider", "one of auto, openai, embedded"),
    ("config", "llm_api: assistants", "config.yaml: llm_api", "conversations, responses, chat_completions"),
    ("config", "auth: false", "config.yaml: auth", "one of auto, required, disabled"),
    ("config", "unpriced: yes", "config.yaml: unpriced", "one of refuse, free"),
    ("config", "store_messages: 1", "config.yaml: store_messages", "true or false"),
    ("config", "stream_responses: yes", "config.yaml: stream_responses", "true or false"),
    ("config", "stream_responses: 'true'", "config.yaml: stream_responses", "true or false"),
    ("config", "max_history_items: true", "config.yaml: max_history_items", "an integer from 1 to 100000"),
    ("config", "max_history_items: 10.0", "config.yaml: max_history_items", "an integer from 1 to 100000"),
    ("config", "max_history_items: '10'", "config.yaml: max_history_items", "an integer from 1 to 100000"),
    ("config", "max_history_items: 0", "config.yaml: max_history_items", "an integer from 1 to 100000"),
    ("config", "rate_limit_per_minute: -1", "config.yaml: rate_limit_per_minute", "an integer from 1 to 1000000"),
    ("config", f"max_input_length: {'9' * 5000}", "config.yaml: max_input_length", "an integer from 1 to"),
    ("config", "max_input_length: 9999999999999", "config.yaml: max_input_length", "an integer from 1 to"),
    ("config", "max_input_length: 1e3", "config.yaml: max_input_length", "an integer from 1 to"),
    ("config", "max_file_size_mb: {mb: 20}", "config.yaml: max_file_size_mb", "an integer from 1 to"),
    ("config", "max_output_tokens: 15", "config.yaml: max_output_tokens", "an integer from 16 to"),
    ("config", "retention_days: 0", "config.yaml: retention_days", "an integer from 1 to 36500"),
    ("config", "max_detached_streams: 1_000", "config.yaml: max_detached_streams", "an integer from 0 to"),
    ("config", "max_document_pages: 2026-01-01", "config.yaml: max_document_pages", "an integer"),
    ("config", "upstream_timeout_s: .nan", "config.yaml: upstream_timeout_s", "a number of seconds from 1 to 3600"),
    ("config", "upstream_timeout_s: 1:30", "config.yaml: upstream_timeout_s", "a number of seconds"),
    ("config", "first_token_timeout_s: .inf", "config.yaml: first_token_timeout_s", "a number of seconds"),
    ("config", "first_token_timeout_s: 0", "config.yaml: first_token_timeout_s", "a number of seconds"),
    ("config", "stream_drain_s: false", "config.yaml: stream_drain_s", "a number of seconds from 0 to 3600"),
    ("config", "cost_limit_per_session: -0.01", "config.yaml: cost_limit_per_session", "a number of US dollars from 0"),
    ("config", "cost_limit_per_session: -.inf", "config.yaml: cost_limit_per_session", "a number of US dollars"),
    ("config", "cost_limit_per_session: 1e999999", "config.yaml: cost_limit_per_session", "a number of US dollars"),
    ("config", "cost_limit_per_session: 5 USD", "config.yaml: cost_limit_per_session", "a number of US dollars"),
    ("config", "warn_at_cost: 0.00000000001", "config.yaml: warn_at_cost", "at most 10 decimals"),
    ("config", "warn_at_cost: true", "config.yaml: warn_at_cost", "a number of US dollars"),
    ("config", "pricing: 0.0025", "config.yaml: pricing", "a mapping"),
    ("config", "pricing: {input_per_1k: 1}", "pricing.output_per_1k", "a number of US dollars"),
    ("config", "pricing: {input_per_1k: x, output_per_1k: 1}", "config.yaml: pricing.input_per_1k", "US dollars"),
    ("config", "prices: [1]", "config.yaml: prices", "a mapping"),
    ("config", "prices: {m: 1}", "config.yaml: prices.m", "a mapping"),
    ("config", "providers: {p: 1}", "config.yaml: providers.p", "a mapping"),
    ("config", "models: {m: 1}", "config.yaml: models.m", "a mapping"),
    ("config", "prices: {m: {input: 1}}", "config.yaml: prices.m.output", "a number of US dollars"),
    ("config", "prices: {m: {input: 1, output: -1}}", "config.yaml: prices.m.output", "a number of US dollars"),
    (
        "config",
        "prices: {'a b': {input: 1, output: 1}}",
        "config.yaml: prices.(a name of 3 characters)",
        "a model name",
    ),
    ("config", "cors_origins: https://a.example", "config.yaml: cors_origins", "a list"),
    ("config", "cors_origins: ['*']", "config.yaml: cors_origins[0]", "no *"),
    ("config", "cors_origins: [https://a.example, 'https://*.b.example']", "config.yaml: cors_origins[1]", "no *"),
    ("config", "cors_origins: [https://a.example/]", "config.yaml: cors_origins[0]", "no path"),
    ("config", "cors_origins: ['https://A.example']", "config.yaml: cors_origins[0]", "lower case"),
    ("config", "cors_origins: ['https://a.example:99999']", "config.yaml: cors_origins[0]", "an exact origin"),
    ("config", "cors_origins: [ftp://a.example]", "config.yaml: cors_origins[0]", "an exact origin"),
    ("config", "cors_origins: [null]", "config.yaml: cors_origins[0]", "an exact origin"),
    ("config", "allowed_hosts: ['*']", "config.yaml: allowed_hosts[0]", "no *"),
    ("config", "allowed_hosts: ['a.example:80']", "config.yaml: allowed_hosts[0]", "no port"),
    ("config", "allowed_hosts: [A.example]", "config.yaml: allowed_hosts[0]", "lower case"),
    ("config", "allowed_hosts: a.example", "config.yaml: allowed_hosts", "a list"),
    ("config", "trusted_proxies: ['*']", "config.yaml: trusted_proxies[0]", "a network such as"),
    ("config", "trusted_proxies: [10.0.0.1/8]", "config.yaml: trusted_proxies[0]", "a network such as"),
    ("config", "trusted_proxies: [proxy.example]", "config.yaml: trusted_proxies[0]", "a network such as"),
    ("config", "trusted_proxies: ['fe80::1%eth0']", "config.yaml: trusted_proxies[0]", "a network such as"),
    ("config", "header_timeout_s: 0", "config.yaml: header_timeout_s", "from 1 to 3600"),
    ("config", "logging: INFO", "config.yaml: logging", "a mapping"),
    ("config", "logging:", "config.yaml: logging", "a mapping"),
    ("config", "logging: {level: LOUD}", "config.yaml: logging.level", "DEBUG, INFO, WARNING"),
    ("config", "logging: {log_to_file: 'no'}", "config.yaml: logging.log_to_file", "true or false"),
    ("config", "logging: {log_dir: ''}", "config.yaml: logging.log_dir", "a path"),
    ("config", "- model", "config.yaml", "a mapping"),
    ("config", "just text", "config.yaml", "a mapping"),
    ("config", "model: a\nmodel: b", "config.yaml", "without repetition"),
    ("config", "logging: {level: INFO, level: DEBUG}", "config.yaml", "without repetition"),
    ("config", "model: [a", "config.yaml", "YAML"),
    ("config", "model: a\n---\nmodel: b", "config.yaml", "YAML"),
    ("config", "model: &a gpt-4o", "config.yaml", "YAML"),
    ("config", "a: *b", "config.yaml", "YAML"),
    ("config", "model: !!python/name:os.system x", "config.yaml", "YAML"),
    ("config", "? [a]\n: b", "config.yaml", "YAML"),
    ("config", "[" * 50_000, "config.yaml", "YAML"),
    ("config", "model: a\x07b", "config.yaml", "YAML"),
    ("config", b"model: \xff\xfe", "config.yaml", "UTF-8"),
    ("config", b"# " + b"x" * 1_000_000, "config.yaml", "at most 1000000 bytes"),
    ("prompts", "default: ''", "prompts.yaml: default", "1 to 100000 characters"),
    ("prompts", "default: '  '", "prompts.yaml: default", "not all blank"),
    ("prompts", "default: {text: hi}", "prompts.yaml: default", "1 to 100000 characters"),
    ("prompts", 'default: "\\ud800"', "prompts.yaml: default", "1 to 100000 characters"),
    ("prompts", "a b: hi", "prompts.yaml: (a name of 3 characters)", "a name of 1 to 64"),
    ("prompts", "- hi", "prompts.yaml", "a mapping"),
    ("dotenv", "model gpt-4o", ".env: line 1", "NAME=value"),
    ("dotenv", '# fine\nMODEL="open', ".env: line 2", "NAME=value"),
    ("dotenv", "1MODEL=x", ".env: line 1", "NAME=value"),
    ("dotenv", "LOG_LEVEL='INFO' x", ".env: line 1", "NAME=value"),
    ("dotenv", "LOG_LEVEL=LOUD", ".env: LOG_LEVEL", "DEBUG, INFO"),
    ("dotenv", "TEXTLLM_RATE_LIMIT=5", ".env: TEXTLLM_RATE_LIMIT", "did you mean TEXTLLM_RATE_LIMIT_PER_MINUTE?"),
    ("dotenv", "TEXTLLM_CONFIG=missing.yaml", ".env: TEXTLLM_CONFIG", "a readable UTF-8 file"),
    ("environ", {"TEXTLLM_MODLE": "x"}, "environment: TEXTLLM_MODLE", "did you mean TEXTLLM_MODEL?"),
    ("environ", {"TEXTLLM_QQQ": "x"}, "environment: TEXTLLM_QQQ", "a key of config.yaml"),
    ("environ", {"TEXTLLM_MAX_HISTORY_ITEMS": "many"}, "environment: TEXTLLM_MAX_HISTORY_ITEMS", "an integer from 1"),
    ("environ", {"TEXTLLM_STORE_MESSAGES": "maybe"}, "environment: TEXTLLM_STORE_MESSAGES", "true or false"),
    ("environ", {"TEXTLLM_CORS_ORIGINS": "*"}, "environment: TEXTLLM_CORS_ORIGINS", "a list"),
    ("environ", {"TEXTLLM_CORS_ORIGINS": '["*"]'}, "environment: TEXTLLM_CORS_ORIGINS[0]", "no *"),
    ("environ", {"TEXTLLM_PRICES": "{m: {input: 1}}"}, "environment: TEXTLLM_PRICES.m.output", "US dollars"),
    ("environ", {"TEXTLLM_LOGGING__LEVEL": "0"}, "environment: TEXTLLM_LOGGING__LEVEL", "DEBUG, INFO"),
    ("environ", {"TEXTLLM_PRICING__INPUT_PER_1K": "0.1"}, "pricing.output_per_1k", "US dollars"),
    ("environ", {"TEXTLLM_CONFIG": "missing.yaml"}, "environment: TEXTLLM_CONFIG", "a readable UTF-8 file"),
    ("environ", {"TEXTLLM_CONFIG": "."}, "environment: TEXTLLM_CONFIG", "a readable UTF-8 file"),
    ("environ", {"TEXTLLM_CONFIG": "a\0b"}, "environment: TEXTLLM_CONFIG", "a readable UTF-8 file"),
    ("environ", {"TEXTLLM_DATA_DIR": "~no-such-user-here/x"}, "environment: TEXTLLM_DATA_DIR", "a path"),
    ("environ", {"TEXTLLM_SERVER": "localhost:8000"}, "environment: TEXTLLM_SERVER", "an http or https URL"),
    ("environ", {"OPENAI_API_KEY": "two words"}, "environment: OPENAI_API_KEY", "without spaces"),
    ("environ", {"OPENAI_API_KEY": "line\n"}, "environment: OPENAI_API_KEY", "without spaces"),
    ("environ", {"OPENAI_API_KEY_FILE": "missing"}, "environment: OPENAI_API_KEY_FILE", "a readable UTF-8 file"),
    ("environ", {"OPENAI_API_KEY_FILE": "/dev/null"}, "environment: OPENAI_API_KEY_FILE", "without spaces"),
    ("environ", {"OPENAI_API_KEY_FILE": "/dev/zero"}, "environment: OPENAI_API_KEY_FILE", "at most 1000000 bytes"),
    ("environ", {"DATABASE_URL_FILE": "config"}, "environment: DATABASE_URL_FILE", "a readable UTF-8 file"),
    ("environ", {"TEXTLLM_API_KEY_FILE": "a", "TEXTLLM_API_KEY": "b"}, "environment: TEXTLLM_API_KEY_FILE", "the two"),
    ("environ", {"TEXTLLM_API_KEYFILE": "a"}, "environment: TEXTLLM_API_KEYFILE", "mean TEXTLLM_API_KEY_FILE?"),
    ("dotenv", "AWS_SECRET_ACCESS_KEY=a\nAWS_SECRET_ACCESS_KEY_FILE=b", ".env: AWS_SECRET_ACCESS_KEY_FILE", "the two"),
    ("environ", {"OPENAI_BASE_URL": "ftp://a.example"}, "environment: OPENAI_BASE_URL", "an http or https URL"),
    ("environ", {"OPENAI_BASE_URL": "https://u:p@a.example"}, "environment: OPENAI_BASE_URL", "without credentials"),
    ("environ", {"OPENAI_BASE_URL": "http://["}, "environment: OPENAI_BASE_URL", "an http or https URL"),
    ("environ", {"OPENAI_BASE_URL": "http://a:70000"}, "environment: OPENAI_BASE_URL", "an http or https URL"),
    ("environ", {"S3_ENDPOINT": "https://s3.example?key=1"}, "environment: S3_ENDPOINT", "query"),
    ("environ", {"S3_URL_EXPIRATION": "0"}, "environment: S3_URL_EXPIRATION", "an integer from 1 to 604800"),
    ("environ", {"S3_BUCKET": "a/b"}, "environment: S3_BUCKET", "a bucket name"),
    ("environ", {"AWS_REGION": "us east"}, "environment: AWS_REGION", "a region"),
    ("environ", {"DATABASE_ENABLED": "maybe"}, "environment: DATABASE_ENABLED", "true or false"),
    ("environ", {"DATABASE_URL": "mysql://h/d"}, "environment: DATABASE_URL", "postgresql://"),
    ("environ", {"DATABASE_URL": "postgresql://h"}, "environment: DATABASE_URL", "postgresql://"),
    ("environ", {"DATABASE_URL": "postgresql://u:p#w@h/d"}, "environment: DATABASE_URL", "percent-encoded"),
    ("environ", {"DATABASE_URL": "postgresql://u:p@w@h/d"}, "environment: DATABASE_URL", "percent-encoded"),
    ("environ", {"DATABASE_URL": "postgresql://h:port/d"}, "environment: DATABASE_URL", "postgresql://"),
    ("environ", {"DATABASE_URL": "postgresql://h:1,i:port/d"}, "environment: DATABASE_URL", "HOST:PORT,HOST:PORT"),
    ("environ", {"DATABASE_URL": "postgresql://h:0,i:5432/d"}, "environment: DATABASE_URL", "HOST:PORT,HOST:PORT"),
    ("environ", {"DATABASE_URL": "postgresql://h,,i/d"}, "environment: DATABASE_URL", "HOST:PORT,HOST:PORT"),
    ("environ", {"DATABASE_URL": "postgresql://u@h,u@i/d"}, "environment: DATABASE_URL", "HOST:PORT,HOST:PORT"),
    (
        "environ",
        {"DATABASE_URL": "postgresql://h,i/d?target_session_attrs=standby"},
        "environment: DATABASE_URL",
        "read-write, primary or any",
    ),
    ("config", "database_connection_lifetime_s: 0", "config.yaml: database_connection_lifetime_s", "from 1 to 604800"),
    ("environ", {"DATABASE_URL": "sqlite://"}, "environment: DATABASE_URL", "sqlite:///PATH"),
    ("environ", {"DATABASE_URL": "sqlite:///:memory:"}, "environment: DATABASE_URL", "sqlite:///PATH"),
    ("environ", {"DATABASE_URL": "sqlite:///a.db?mode=ro"}, "environment: DATABASE_URL", "sqlite:///PATH"),
    ("environ", {"DATABASE_ENABLED": "true"}, "DATABASE_ENABLED", "DATABASE_URL in the environment"),
    ("environ", {"S3_ENABLED": "true"}, "S3_ENABLED", "S3_BUCKET in the environment"),
    ("environ", {"S3_ENABLED": "1", "S3_BUCKET": "files", "AWS_ACCESS_KEY_ID": "A"}, "S3_ENABLED", "or neither"),
    ("environ", {"S3_ENABLED": "1", "S3_BUCKET": "files", "AWS_SESSION_TOKEN": "A"}, "S3_ENABLED", "or none"),
    ("environ", {"TEXTLLM_PROVIDER": "openai"}, "provider", "OPENAI_API_KEY in the environment"),
    ("config", "store_messages: false\nllm_api: responses", "store_messages", "llm_api: conversations"),
    ("arguments", {"modle": "x"}, "argument: modle", "did you mean model?"),
    ("arguments", {"logging": {5: 1}}, "argument: logging.5", "one of level"),
    ("arguments", {"model": None}, "argument: model", "a model name"),
    ("arguments", {"warn_at_cost": float("nan")}, "argument: warn_at_cost", "a number of US dollars"),
    ("arguments", {"data_dir": 5}, "argument: data_dir", "a path"),
    ("arguments", {"config": Path("missing.yaml")}, "argument: config", "a readable UTF-8 file"),
]


@pytest.mark.parametrize(("source", "content", "path", "expected"), BAD)
def test_a_bad_setting_is_refused_with_its_path_and_what_was_expected(
    tmp_path: Path, source: str, content: Any, path: str, expected: str
) -> None:
    if source == "arguments":
        with pytest.raises(SettingsError) as caught:
            load_settings(cwd=tmp_path, environ={}, **content)
        found = caught.value.problems
    else:
        found = problems(tmp_path, **{source: content})
    assert [problem.path for problem in found] == [path]
    assert expected in found[0].expected
    assert found[0].found


def test_what_was_found_is_a_kind_of_value(tmp_path: Path) -> None:
    config = (
        "model: 4\nauth: null\nunpriced: [a]\nllm_api: {a: b}\nprovider: true\nwarn_at_cost: x\nretention_days: 1.5"
    )
    found = [problem.found for problem in problems(tmp_path, config=config)]
    assert found == ["an integer", "null", "a list", "a mapping", "a boolean", "text", "a number"]


def test_all_problems_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        config="modell: a\nmax_history_items: 0\nlogging: {level: LOUD, colour: red}\nauth: no\nauth: required",
        prompts="terse: 5",
        dotenv="what is this\nS3_ENABLED=perhaps",
        environ={"TEXTLLM_WARN_AT_COST": "-1", "DATABASE_ENABLED": "on", "TEXTLLM_LOGING__LEVEL": "INFO"},
        max_output_tokens=1,
    )
    assert {problem.path for problem in found} == {
        "config.yaml",
        "config.yaml: modell",
        "config.yaml: max_history_items",
        "config.yaml: logging.level",
        "config.yaml: logging.colour",
        "config.yaml: auth",
        "prompts.yaml: terse",
        ".env: line 1",
        ".env: S3_ENABLED",
        "environment: TEXTLLM_WARN_AT_COST",
        "environment: TEXTLLM_LOGING__LEVEL",
        "argument: max_output_tokens",
        "DATABASE_ENABLED",
    }


def test_the_error_is_a_list_to_read_that_ends_with_how_to_see_the_values_in_force(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, config="max_history_items: many")
    first, problem, last = str(caught.value).splitlines()
    assert first == "1 setting cannot be used:"
    assert problem == "  config.yaml: max_history_items: found text; expected an integer from 1 to 100000"
    assert "textllm config show" in last
    assert caught.value.code == "invalid_configuration"


@pytest.mark.parametrize("name", ["config/config.yaml", "config/prompts.yaml", ".env"])
def test_a_directory_or_a_loop_in_place_of_a_file_is_reported(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir(parents=True)
    assert [problem.found for problem in problems(tmp_path)] == ["a directory"]
    place.rmdir()
    place.symlink_to(place)
    assert "cannot be read" in problems(tmp_path)[0].found


def test_a_bad_value_is_reported_even_where_a_later_source_sets_a_good_one(tmp_path: Path) -> None:
    found = problems(tmp_path, config="model: 4", environ={"TEXTLLM_MODEL": "gpt-5"})
    assert [problem.path for problem in found] == ["config.yaml: model"]


def test_a_rule_between_settings_is_not_judged_on_a_setting_that_is_faulty_itself(tmp_path: Path) -> None:
    found = problems(tmp_path, environ={"DATABASE_ENABLED": "true", "DATABASE_URL": "mysql://h/d"})
    assert [problem.path for problem in found] == ["environment: DATABASE_URL"]


def test_nothing_configured_gives_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(cwd=tmp_path, environ={})
    assert settings == Settings()
    assert settings.resolved_provider == "embedded"
    assert settings.database == f"sqlite+aiosqlite:///{settings.data_dir.as_posix()}/textllm.db".replace(" ", "%20")


def test_later_sources_win(tmp_path: Path) -> None:
    sources: dict[str, Any] = {}
    seen = [load(tmp_path, **sources).model]
    for source in (
        {"config": "model: from-file"},
        {"dotenv": "TEXTLLM_MODEL=from-dotenv"},
        {"environ": {"TEXTLLM_MODEL": "from-environment"}},
        {"model": "from-argument"},
    ):
        sources |= source
        seen.append(load(tmp_path, **sources).model)
    assert seen == ["gpt-4o", "from-file", "from-dotenv", "from-environment", "from-argument"]


def test_nested_settings_are_merged_key_by_key(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        config="logging: {level: ERROR, log_to_file: false}\nprices: {a: {input: 1, output: 2}}",
        dotenv="TEXTLLM_LOGGING__LOG_DIR=/var/log/here",
        environ={"TEXTLLM_PRICES": '{"b": {"input": 3, "output": 4, "cached_input": 0.5}}'},
        logging={"level": "DEBUG"},
    )
    assert settings.logging == Logging(level="DEBUG", log_to_file=False, log_dir=Path("/var/log/here"))
    assert settings.prices == {
        "a": ModelPrice(input=Decimal(1), output=Decimal(2)),
        "b": ModelPrice(input=Decimal(3), output=Decimal(4), cached_input=Decimal("0.5")),
    }


def test_the_textllm_name_of_a_setting_wins_over_its_plain_name(tmp_path: Path) -> None:
    environ = {"LOG_LEVEL": "debug", "TEXTLLM_LOGGING__LEVEL": "warning"}
    assert load(tmp_path, environ=environ).logging.level == "WARNING"


def test_half_a_price_from_the_file_and_half_from_the_environment_are_one_price(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        config="pricing: {input_per_1k: 0.0025, output_per_1k: 0.01}",
        environ={"TEXTLLM_PRICING__OUTPUT_PER_1K": "0.02"},
    )
    assert settings.pricing == Pricing(input_per_1k=Decimal("0.0025"), output_per_1k=Decimal("0.02"))


def test_null_takes_back_what_an_earlier_source_set(tmp_path: Path) -> None:
    config = "pricing: {input_per_1k: 1, output_per_1k: 1}\nretention_days: 30"
    settings = load(tmp_path, config=config, environ={"TEXTLLM_PRICING": "null"}, retention_days=None)
    assert settings.pricing is None
    assert settings.retention_days is None


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        config="model: from-file",
        dotenv="OPENAI_API_KEY=from-dotenv\nS3_ENABLED=",
        environ={"TEXTLLM_MODEL": "", "OPENAI_API_KEY": "", "TEXTLLM_CONFIG": "", "TEXTLLM_UNKNOWN": ""},
    )
    assert settings.model == "from-file"
    assert settings.openai_api_key == Secret("from-dotenv")


def test_each_setting_is_named_however_long_its_name_is(tmp_path: Path) -> None:
    for key in CONFIG_KEYS:
        name = f"TEXTLLM_{key.upper().replace('.', '__')}"
        assert f"environment: {name}" in [problem.path for problem in problems(tmp_path, environ={name: "\x1b"})]


def test_every_secret_can_come_from_a_file(tmp_path: Path) -> None:
    secrets = {name: f"secret-of-{name}" for name in SECRET_FILES.values()} | {"DATABASE_URL": "postgresql://u:p@h/d"}
    for (name, secret), line_break in zip(secrets.items(), cycle(("", "\n", "\r\n")), strict=False):
        (tmp_path / name).write_bytes((secret + line_break).encode())
    named = {f"{name}_FILE": str(tmp_path / name) for name in secrets}
    assert load(tmp_path, environ=named) == load(tmp_path, environ=secrets)
    (tmp_path / "two").write_text("a\n\n")
    assert "without spaces" in problems(tmp_path, environ={"OPENAI_API_KEY_FILE": "two"})[0].expected


def test_the_environment_wins_over_a_file_that_dotenv_names(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    dotenv = "OPENAI_API_KEY_FILE=key"
    assert load(tmp_path, dotenv=dotenv).openai_api_key == Secret("from-file")
    assert load(tmp_path, dotenv=dotenv, environ={"OPENAI_API_KEY": "mine"}).openai_api_key == Secret("mine")


def test_money_is_exactly_what_was_written(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        config="pricing: {input_per_1k: 0.0025, output_per_1k: 1e-2}\nwarn_at_cost: .1",
        cost_limit_per_session=0.3,
    )
    assert settings.pricing == Pricing(input_per_1k=Decimal("0.0025"), output_per_1k=Decimal("0.01"))
    assert (settings.warn_at_cost, settings.cost_limit_per_session) == (Decimal("0.1"), Decimal("0.3"))


def test_the_config_file_may_be_named_and_prompts_are_looked_for_beside_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.yaml").write_text("model: a")
    (elsewhere / "b.yaml").write_text("model: b")
    (elsewhere / "prompts.yaml").write_text("terse: Be brief.")
    environ = {"TEXTLLM_CONFIG": "elsewhere/a.yaml"}
    named = load(tmp_path, config="model: here", environ=environ)
    assert (named.model, named.prompts["terse"]) == ("a", "Be brief.")
    assert load_settings(elsewhere / "b.yaml", cwd=tmp_path, environ=environ).model == "b"
    (tmp_path / ".env").write_text("TEXTLLM_CONFIG=elsewhere/b.yaml")
    assert load_settings(cwd=tmp_path, environ={}).model == "b"


def test_prompts_of_the_file_join_those_that_are_shipped(tmp_path: Path) -> None:
    prompts = load(tmp_path, prompts="terse: Be brief.\nno: |\n  Say no.\n").prompts
    assert prompts == {**Settings().prompts, "terse": "Be brief.", "no": "Say no.\n"}
    assert load(tmp_path, prompts="default: Mine.").prompts == {**Settings().prompts, "default": "Mine."}


def test_yaml_words_for_booleans_are_those_of_yaml_1_2_and_shells_may_say_more(tmp_path: Path) -> None:
    assert load(tmp_path, config="stream_responses: False").stream_responses is False
    for text, switch in {"1": True, "YES": True, "on": True, "true": True, "0": False, "off": False}.items():
        assert load(tmp_path, environ={"TEXTLLM_STREAM_RESPONSES": text}).stream_responses is switch


def test_a_file_with_a_byte_order_mark_or_nothing_in_it_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, config=b"\xef\xbb\xbfmodel: marked").model == "marked"
    assert load(tmp_path, config="# nothing\n", prompts="") == Settings()


def test_dotenv_lines_are_read_as_a_shell_would(tmp_path: Path) -> None:
    lines = {
        "OPENAI_API_KEY=plain": "plain",
        "export OPENAI_API_KEY=exported": "exported",
        "  OPENAI_API_KEY = spaced  ": "spaced",
        "OPENAI_API_KEY=a#b": "a#b",
        "OPENAI_API_KEY=a # comment": "a",
        "OPENAI_API_KEY='$a\\n'": "$a\\n",
        "OPENAI_API_KEY='a' # it's a comment": "a",
        'OPENAI_API_KEY="a\\"b\\\\c"': 'a"b\\c',
        'OPENAI_API_KEY="#a"\r': "#a",
        "OPENAI_API_KEY=a=b==": "a=b==",
        "OPENAI_API_KEY=it's": "it's",
        "OPENAI_API_KEY=first\nOPENAI_API_KEY=second": "second",
        "# comment\n\nOTHER=ignored\nOPENAI_API_KEY=x": "x",
    }
    for line, value in lines.items():
        assert load(tmp_path, dotenv=line).openai_api_key == Secret(value), line
    assert load(tmp_path, dotenv="OPENAI_API_KEY= # none").openai_api_key is None
    assert load(tmp_path, dotenv='TEXTLLM_CORS_ORIGINS=["https://a.example"]').cors_origins == ("https://a.example",)


def test_the_environment_of_the_seed_sets_what_it_says(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        environ={
            "OPENAI_API_KEY": "sk-1",
            "OPENAI_BASE_URL": "http://127.0.0.1:9000/v1",
            "S3_ENABLED": "true",
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "s/+=",
            "AWS_SESSION_TOKEN": "t/+=",
            "AWS_REGION": "eu-central-1",
            "S3_BUCKET": "files",
            "S3_ENDPOINT": "https://s3.example",
            "S3_URL_EXPIRATION": "60",
            "TEXTLLM_DATA_DIR": str(tmp_path),
            "TEXTLLM_LOCAL_MODEL": "007",
            "TEXTLLM_API_KEY": "tllm_1",
            "TEXTLLM_SERVER": "http://127.0.0.1:8000",
            "TEXTLLM_TEST_DATABASE_URL": "anything",
            "UNRELATED": "anything",
        },
    )
    assert settings == Settings(
        openai_api_key=Secret("sk-1"),
        openai_base_url="http://127.0.0.1:9000/v1",
        s3=S3Settings(
            enabled=True,
            access_key_id=Secret("AKIA"),
            secret_access_key=Secret("s/+="),
            session_token=Secret("t/+="),
            region="eu-central-1",
            bucket="files",
            endpoint="https://s3.example",
            url_expiration_s=60,
        ),
        data_dir=tmp_path,
        local_model=Path("007"),
        api_key=Secret("tllm_1"),
        server="http://127.0.0.1:8000",
    )
    assert settings.resolved_provider == "openai"


def test_settings_and_their_parts_are_taken_as_arguments(tmp_path: Path) -> None:
    logging = Logging(level="ERROR", log_dir=tmp_path)
    prices = {"m": ModelPrice(input=Decimal(1), output=Decimal(2))}
    settings = load(
        tmp_path, logging=logging, prices=prices, openai_api_key=Secret("a"), cors_origins=("http://[::1]:80",)
    )
    assert (settings.logging, settings.prices, settings.openai_api_key) == (logging, prices, Secret("a"))
    assert settings.cors_origins == ("http://[::1]:80",)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgres://u:p%40@h:5432/d", "postgresql+asyncpg://u:p%40@h:5432/d"),
        ("postgresql://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?sslmode=require"),
        ("postgresql://u:p@[::1]:1,h:2,i/d", "postgresql+asyncpg://u:p@[::1]:1,h:2,i/d"),
        ("postgresql:///d?host=/run/dir&sslmode=disable", "postgresql+asyncpg:///d?host=/run/dir&sslmode=disable"),
        ("sqlite:////var/a%20b.db", "sqlite+aiosqlite:////var/a%20b.db"),
        ("sqlite:////var/100%25", "sqlite+aiosqlite:////var/100%25"),
    ],
)
def test_a_database_url_is_given_the_driver_it_is_used_with(tmp_path: Path, given: str, url: str) -> None:
    assert load(tmp_path, environ={"DATABASE_URL": given}).database == url
    assert load(tmp_path, environ={"DATABASE_URL": given, "DATABASE_ENABLED": "true"}).database == url


def test_a_relative_sqlite_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = load(tmp_path, environ={"DATABASE_URL": "sqlite:///a.db"}).database
    assert database == f"sqlite+aiosqlite:///{Path.cwd().as_posix()}/a.db"


def test_a_disabled_database_is_sqlite_in_the_data_directory_whatever_its_url(tmp_path: Path) -> None:
    environ = {"DATABASE_ENABLED": "false", "DATABASE_URL": "postgresql://h/d", "TEXTLLM_DATA_DIR": "/data/100% ?"}
    assert load(tmp_path, environ=environ).database == "sqlite+aiosqlite:////data/100%25%20%3F/textllm.db"


def test_a_secret_shows_itself_to_reveal_alone() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    assert secret == Secret(CANARY)
    assert secret != Secret("other")
    assert CANARY not in f"{secret} {secret!r} {secret!s} {[secret]} %s" % secret
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)


def test_no_secret_is_shown_by_settings(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        dotenv=f"OPENAI_API_KEY={CANARY}",
        environ={
            "DATABASE_URL": f"postgresql://user-CANARY:{CANARY}@db.example:5432/books?passfile={CANARY}&sslmode=require",
            "AWS_ACCESS_KEY_ID": CANARY,
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "TEXTLLM_API_KEY": CANARY,
            "TEXTLLM_METRICS_TOKEN": f"{CANARY}-of-16-characters",
            "TEXTLLM_SERVER": "https://textllm.example:8000/api",
            "OPENAI_BASE_URL": "https://gateway.example/v1",
            "S3_ENDPOINT": "https://[::1]:9000/s3",
        },
        prompts="default: CANARY",
    )
    public = settings.public()
    assert "CANARY" not in str(public)
    assert CANARY not in f"{settings} {settings!r}"
    assert public["database"] == "postgresql+asyncpg://db.example:5432/books?sslmode=require"
    assert public["openai_base_url"] == "https://gateway.example/v1"
    assert public["server"] == "https://textllm.example:8000/api"
    s3 = public["s3"]
    assert isinstance(s3, dict)
    assert s3["endpoint"] == "https://[::1]:9000/s3"


def test_public_values_are_the_ones_in_force_and_can_be_encoded(tmp_path: Path) -> None:
    public = load(tmp_path, config="prices: {m: {input: 0.1, output: 2}}", environ={"OPENAI_API_KEY": "k"}).public()
    assert public["provider"] == "openai"
    assert public["cost_limit_per_session"] == Decimal("5.0")
    assert public["prompts"] == ["default", "document_analyst", "summarizer", "summary"]
    encoded = msgspec.json.Encoder(decimal_format="number").encode(public)
    assert msgspec.json.decode(encoded)["prices"]["m"]["input"] == 0.1


@pytest.mark.parametrize(
    "sources",
    [
        {"config": f"model: [{CANARY}]\n{CANARY * 2}: {CANARY}\nlogging: {{level: {CANARY}}}\nwarn_at_cost: {CANARY}"},
        {"config": f"model: {CANARY}\n  {CANARY}: *{CANARY}"},
        {"config": f"model: *{CANARY}"},
        {"config": f"model: !{CANARY} x"},
        {"config": f'model: "\\{CANARY}"'},
        {"config": f"{CANARY}: 1\n{CANARY}: 2\nmodel: @{CANARY}"},
        {"config": CANARY},
        {"config": f"cors_origins: ['https://u:{CANARY}@a.example']\nprices: {{m: {{input: {CANARY}, output: 1}}}}"},
        {"config": f"model: {CANARY}\x01"},
        {"config": CANARY.encode() + b"\xff"},
        {"prompts": f"default: [{CANARY}]"},
        {"dotenv": f"{CANARY}\nOPENAI_API_KEY='{CANARY}"},
        {"dotenv": f"DATABASE_URL=mysql://u:{CANARY}@h/d\nTEXTLLM_CONFIG={CANARY}"},
        {"environ": {"DATABASE_URL": f"postgresql://u:{CANARY}@h:{CANARY}/d", "OPENAI_API_KEY": f"{CANARY} {CANARY}"}},
        {"environ": {"DATABASE_URL": f"postgresql://[{CANARY}/d", "OPENAI_BASE_URL": f"https://{CANARY}@["}},
        {"environ": {"OPENAI_BASE_URL": f"https://u:{CANARY}@h", "S3_ENDPOINT": f"https://h:{CANARY}"}},
        {"environ": {"TEXTLLM_CONFIG": CANARY, "TEXTLLM_SERVER": CANARY, "AWS_REGION": f"{CANARY}_"}},
        {"environ": {"TEXTLLM_PRICES": f"{{{CANARY}: {CANARY}", "TEXTLLM_PROVIDER": CANARY, "TEXTLLM_MODLE": CANARY}},
        {"environ": {"TEXTLLM_MAX_INPUT_LENGTH": CANARY, "DATABASE_ENABLED": CANARY, "TEXTLLM_CORS_ORIGINS": CANARY}},
        {"openai_api_key": f"{CANARY} ", "modle": CANARY, "logging": CANARY, "prices": {"m": CANARY}},
    ],
)
def test_no_value_is_repeated_by_a_problem_an_error_or_its_traceback(tmp_path: Path, sources: dict[str, Any]) -> None:
    environ = sources.get("environ", {}) | {"AWS_SECRET_ACCESS_KEY": CANARY}
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **sources | {"environ": environ, "max_output_tokens": 0})
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + f"{error} {error!r} {error.args} {error.problems}"
    values = shown.replace(f"config.yaml: {CANARY}", "")  # an unknown key is shown: it is the path
    assert CANARY not in values
    assert error.__cause__ is None
    assert error.__context__ is None


def test_without_a_provider_that_keeps_messages_ours_are_kept(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, environ={"TEXTLLM_STORE_MESSAGES": "false"})
    assert (problem.path, problem.found) == ("store_messages", "false with the embedded model")


def test_reading_stops_after_a_hundred_problems_and_says_so(tmp_path: Path) -> None:
    found = problems(tmp_path, config="model: a\n" * 1000)
    assert len(found) == 101
    assert (found[-1].path, found[-1].found) == ("config.yaml", "more than 100 problems")


def test_a_leading_tilde_is_the_home_directory(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"TEXTLLM_DATA_DIR": "~/d", "TEXTLLM_LOCAL_MODEL": "~/m.gguf"})
    assert (settings.data_dir, settings.local_model) == (Path.home() / "d", Path.home() / "m.gguf")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgres://u:p%40ss@/books?host=/run/postgresql&password=p",
            "postgresql+asyncpg:///books?host=/run/postgresql",
        ),
        ("postgresql://db.example/books", "postgresql+asyncpg://db.example/books"),
        (
            "postgresql://u:p@h1:5432,h2:5433/books?target_session_attrs=read-write&password=p",
            "postgresql+asyncpg://h1:5432,h2:5433/books?target_session_attrs=read-write",
        ),
        ("postgresql://u@/books?host=/run/a,/run/b", "postgresql+asyncpg:///books?host=/run/a,/run/b"),
        ("sqlite:////var/lib/textllm.db", "sqlite+aiosqlite:////var/lib/textllm.db"),
    ],
)
def test_the_operator_is_shown_where_the_database_is(tmp_path: Path, url: str, shown: str) -> None:
    assert load(tmp_path, environ={"DATABASE_URL": url}).public()["database"] == shown


def test_an_operators_token_is_too_long_to_be_guessed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="16 to 4096"):
        load(tmp_path, environ={"TEXTLLM_METRICS_TOKEN": "fifteen-letters"})
