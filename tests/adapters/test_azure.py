"""Azure by OpenAI's Responses API: where it is asked, with which key, and what it is told.

Source: learn.microsoft.com, "Azure OpenAI Responses API" and "API version lifecycle"; where calls go, openai.lib.azure.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import PRICE, desk, settings_of
from tests.servers.picky import Picky, picky

from textllm_adapters.settings import SettingsError
from textllm_adapters.wiring import ask_providers, models_of

KEY = {"AZURE": "key-of-azure"}


def azure(server: Picky, path: str = "", **more: Any) -> dict[str, Any]:
    address = server.base_url.removesuffix("/v1") + path
    provider = {"kind": "azure", "api": "responses", "base_url": address, "deployments": {"gpt-4o": "ours"}}
    key = {} if "token_command" in more else {"api_key": "${AZURE}"}
    models = {"gpt-4o": {"provider": "azure", "price": PRICE}}
    return {"providers": {"azure": provider | key | more}, "models": models}


@pytest.mark.parametrize(
    ("path", "version", "asked"),
    [
        ("", None, "/openai/v1/responses"),
        ("/openai/v1", "preview", "/openai/v1/responses?api-version=preview"),
        ("", "2025-04-01-preview", "/openai/responses?api-version=2025-04-01-preview"),
    ],
)
async def test_it_is_asked_where_it_is_with_the_key_in_its_header(
    tmp_path: Path, path: str, version: str | None, asked: str
) -> None:
    more = {} if version is None else {"api_version": version}
    async with picky() as server:
        settings = settings_of(tmp_path, azure(server, path, **more), **KEY)
        async with desk(settings) as at:
            reply = await at.say("Hello")
            await at.say("And now?", reply.conversation_id)
            [entry, _] = await at.entries()
        [found] = await ask_providers(settings)
    assert (reply.text, entry.model, found.is_well) == ("Well.", "azure/ours", True)
    assert server.paths == [asked, asked]
    assert server.read == [asked.replace("/responses", "/models")]
    for headers in server.headers:
        assert headers["api-key"] == "key-of-azure"
        assert "authorization" not in headers
    first, then = server.bodies
    assert (first["model"], first["store"]) == ("ours", False)
    assert not {"conversation", "previous_response_id", "messages"} & then.keys()
    assert [item["role"] for item in then["input"]] == ["user", "assistant", "user"]


async def test_a_token_of_entra_is_sent_as_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('token-of-entra')"]
    async with picky() as server, desk(settings_of(tmp_path, azure(server, token_command=command))) as at:
        await at.say("Hello")
    assert (server.paths, server.headers[0]["authorization"]) == (["/openai/v1/responses"], "Bearer token-of-entra")
    assert "api-key" not in server.headers[0]


async def test_what_an_older_version_does_not_know_is_left_out(tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> tuple[int, object] | None:
        for name in ("safety_identifier", "prompt_cache_key", "stream_options"):
            if name in body:
                message = f"Unrecognized request argument supplied: {name}"
                return 400, {
                    "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}
                }
        return None

    async with picky(rule) as server, desk(settings_of(tmp_path, azure(server), **KEY)) as at:
        for _ in range(2):
            assert (await at.say("Hello")).text == "Well."
    assert len(server.bodies) == 5  # three refusals once, and two replies


async def test_what_was_learned_with_a_fallback_behind_is_known_without_one(tmp_path: Path) -> None:
    said = {"error": {"message": "Unknown parameter: 'safety_identifier'.", "param": "safety_identifier"}}
    async with picky(lambda body: (400, said) if "safety_identifier" in body else None) as server:
        config = azure(server)
        config["models"] |= {
            "first": {"provider": "azure", "model": "gpt-4o", "price": PRICE, "fallbacks": ["mini"]},
            "mini": {"provider": "azure", "model": "gpt-4o-mini", "price": PRICE},
        }
        async with desk(settings_of(tmp_path, config, **KEY)) as at:
            await at.say("Hello", model="first")
            await at.say("Hello", model="gpt-4o")
    assert ["safety_identifier" in body for body in server.bodies] == [True, False, False]


def test_pdf_are_sent_as_they_are_where_the_operator_says_so(tmp_path: Path) -> None:
    server = Picky(base_url="http://a/v1")
    for supports, reads in (({}, False), ({"files": True}, True)):
        [model] = models_of(settings_of(tmp_path, azure(server, supports=supports), **KEY)).data
        assert (model.reads_files, model.reads_images) == (reads, True)


def test_only_azure_has_a_choice_of_apis(tmp_path: Path) -> None:
    config = azure(Picky(base_url="http://a/v1"))
    config["providers"]["azure"] |= {"kind": "responses", "deployments": {}}
    with pytest.raises(SettingsError, match=r"providers\.azure\.api: .*of the kind azure alone"):
        settings_of(tmp_path, config, **KEY)
