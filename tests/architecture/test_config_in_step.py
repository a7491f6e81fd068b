"""The files in `config/` say what the code does: each setting, its default, each variable, and no secret."""

import re
import tomllib
from pathlib import Path

import msgspec
import yaml

from textllm_adapters.settings import CONFIG_KEYS, ENVIRONMENT, Settings, load_settings
from textllm_core.policy import SUMMARY_PROMPT

ROOT = Path(__file__).parents[2]


def keys_of(mapping: dict[str, object], prefix: str = "") -> set[str]:
    names = {f"{prefix}{name}" for name in mapping}
    for name, value in mapping.items():
        if isinstance(value, dict):
            names |= keys_of(value, f"{prefix}{name}.")
    return names


def test_config_yaml_holds_exactly_the_built_in_defaults(tmp_path: Path) -> None:
    in_file = load_settings(ROOT / "config" / "config.yaml", cwd=tmp_path, environ={})
    assert msgspec.structs.replace(in_file, prompts=Settings().prompts) == Settings()


def test_config_yaml_names_every_key_and_no_other() -> None:
    keys = keys_of(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    inside_pricing = {"pricing.input_per_1k", "pricing.output_per_1k"}  # named in the comment: by default there is none
    assert keys | inside_pricing == CONFIG_KEYS


def test_config_yaml_explains_every_key() -> None:
    lines = (ROOT / "config" / "config.yaml").read_text().splitlines()
    bare = [line for line in lines if re.match(r"\s*\w+: ", line) and not re.search(r" # \S", line)]
    assert bare == []


def test_every_setting_can_be_set_in_a_file_or_by_a_variable() -> None:
    settable = {key.split(".")[0] for key in CONFIG_KEYS} | {path[0] for path in ENVIRONMENT.values()} | {"prompts"}
    assert settable == set(Settings.__struct_fields__)


def test_prompts_yaml_has_the_built_in_prompts(tmp_path: Path) -> None:
    prompts = load_settings(ROOT / "config" / "config.yaml", cwd=tmp_path, environ={}).prompts
    assert prompts["default"] == Settings().prompts["default"]
    assert prompts["summary"] == SUMMARY_PROMPT
    assert len(prompts) > 2


def test_the_prompts_come_with_the_program_wherever_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prompts.yaml").write_text("mine: Be mine.\ndefault: Be brief.\n")
    shipped = load_settings(cwd=tmp_path / "config", environ={}).prompts
    assert shipped.keys() == {"default", "summary", "summarizer", "document_analyst"}
    assert load_settings(cwd=tmp_path, environ={}).prompts == {**shipped, "mine": "Be mine.", "default": "Be brief."}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["config/prompts.yaml"] == "textllm_adapters/settings/prompts.yaml"


def test_every_install_line_takes_the_versions_that_were_tested() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py")]
    lines = [line for page in pages for line in re.findall(r"pip install[^`\n]* -e [^`\n]*", page.read_text())]
    assert len(lines) > 5
    assert [line for line in lines if "constraints.txt" not in line] == []


def test_env_example_names_every_variable_and_holds_no_value() -> None:
    lines = (ROOT / "config" / "env.example").read_text().splitlines()
    assert all(re.fullmatch(r"|#.*|[A-Z0-9_]+=", line) for line in lines)
    assert sorted(line.rstrip("=") for line in lines if line.endswith("=")) == sorted([*ENVIRONMENT, "TEXTLLM_CONFIG"])
