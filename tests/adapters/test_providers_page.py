"""Every configuration that docs/providers.md shows can be used as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from textllm_adapters.settings import load_settings
from textllm_adapters.settings.providers import ModelSettings, ProviderSettings, Supports
from textllm_adapters.wiring import check, models_of

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
SHOWN = {
    title.strip(): yaml.safe_load(config)
    for title, config in re.findall(r"^#+ ([^\n]+)\n(?:(?!^#).)*?```yaml\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
}
KEYS = ("OPENAI", "AZURE_OPENAI", "GROQ", "OPENROUTER", "MISTRAL", "GEMINI", "OGX", "LITELLM")


def test_there_is_one_for_every_provider_that_is_named() -> None:
    wanted = ["OpenAI", "Ollama", "vLLM", "llama.cpp", "OpenRouter", "Groq", "Mistral", "Gemini", "OGX", "LiteLLM"]
    assert {*wanted, "Azure OpenAI", "LM Studio"} <= SHOWN.keys()


@pytest.mark.parametrize("title", SHOWN)
def test_it_can_be_used(tmp_path: Path, title: str) -> None:
    config: dict[str, Any] = SHOWN[title]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    settings = load_settings(file, environ={f"{key}_API_KEY": "sk-1" for key in KEYS}, cwd=tmp_path)
    check(settings)
    listed = models_of(settings).data
    assert [model.id for model in listed] == list(config["models"])
    assert all(model.price is not None for model in listed)
    assert len(yaml.safe_dump(config).splitlines()) < 20


def test_every_field_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", PAGE))
    fields = [*ProviderSettings.__struct_fields__, *ModelSettings.__struct_fields__, *Supports.__struct_fields__]
    assert [field for field in fields if field not in explained] == []
