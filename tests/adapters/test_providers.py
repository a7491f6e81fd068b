"""Several providers, as a configuration file names them: who is asked, with which key, and what the books say."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault
from tests.servers.picky import Picky, picky

from textllm_adapters.settings import Settings, SettingsError, load_settings
from textllm_adapters.wiring import (
    ask_providers,
    check,
    models_of,
    open_administration,
    open_textllm,
    upgrade_database,
)
from textllm_core import Caller, InputText, LedgerEntry, Message, MessagesTurn, TextLLM, TextTurn, TurnOptions
from textllm_core.errors import ConfigurationError, InvalidRequestError, ProviderError, ProviderUnavailableError

PRICE = {"input": 1, "output": 2}
DEAR = {"input": 10, "output": 40}


def settings_of(tmp_path: Path, config: Mapping[str, Any], **environ: str) -> Settings:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))  # which is YAML, too
    return load_settings(file, environ={"TEXTLLM_DATA_DIR": str(tmp_path), **environ}, cwd=tmp_path, is_personal=True)


def two(first: str, second: str, **more: Any) -> dict[str, Any]:
    """One provider with conversations and OpenAI's name, and one that is sent the history."""
    return {
        "model": "fast",
        "providers": {
            "openai": {"kind": "openai", "base_url": first, "api_key": "${FIRST_KEY}"},
            "other": {"kind": "chat_completions", "base_url": second, "api_key": "${OTHER_KEY}"} | more,
        },
        "models": {
            "fast": {"provider": "openai", "model": "gpt-4o", "price": PRICE, "fallbacks": ["slow"]},
            "slow": {"provider": "other", "model": "big/one", "price": DEAR, "context": 4000},
        },
    }


KEYS = {"FIRST_KEY": "sk-test", "OTHER_KEY": "sk-other"}


class Desk:
    def __init__(self, textllm: TextLLM) -> None:
        self.textllm = textllm

    async def say(self, text: str, conversation_id: str | None = None, model: str | None = None) -> Any:
        turn = TextTurn(text, conversation_id, "ada", options=TurnOptions(model=model))
        return await self.textllm.send_message(Caller(), turn)

    async def entries(self) -> list[LedgerEntry]:
        found = await self.textllm.track_usage.ledger.entries("default", "ada")
        return sorted(found, key=lambda entry: entry.created_at)


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_textllm(settings) as textllm:
        yield Desk(textllm)


@pytest.fixture
async def other() -> AsyncIterator[Picky]:
    async with picky() as other:
        yield other


async def test_another_provider_answers_where_the_first_is_away_and_the_ledger_says_who(
    tmp_path: Path, other: Picky
) -> None:
    with OpenAIStandIn() as first:
        first.default = Fault.http(503)
        async with desk(settings_of(tmp_path, two(first.base_url, other.base_url), **KEYS)) as at:
            reply = await at.say("Hello")
            [entry] = await at.entries()
        assert (reply.text, reply.model) == ("Well.", "other/big/one")
        assert (entry.model, entry.cost, entry.price_source) == ("other/big/one", Decimal("0.00018"), "operator")
        assert other.headers[0]["authorization"] == "Bearer sk-other"
        assert other.bodies[0]["model"] == "big/one"
        assert other.bodies[0]["max_tokens"] < 4000
        asked = [request for request in first.requests if request.path == "/v1/responses"]
        assert len(asked) == 1  # with another one behind it, it is not tried again


@pytest.mark.parametrize("away", ["key", "address"])
async def test_another_answers_where_the_key_is_wrong_or_nobody_is_there(
    tmp_path: Path, other: Picky, away: str
) -> None:
    with OpenAIStandIn() as first:
        url = first.base_url if away == "key" else "http://127.0.0.1:9/v1"
        config = two(url, other.base_url)
        async with desk(settings_of(tmp_path, config, FIRST_KEY="sk-wrong", OTHER_KEY="x")) as at:
            assert (await at.say("Hello")).text == "Well."
            assert [entry.model for entry in await at.entries()] == ["other/big/one"]


async def test_a_conversation_moves_between_providers_and_its_ids_to_none_but_their_own(
    tmp_path: Path, other: Picky
) -> None:
    with OpenAIStandIn() as first:
        async with desk(settings_of(tmp_path, two(first.base_url, other.base_url), **KEYS)) as at:
            one = await at.say("One")
            await at.say("Two", one.conversation_id, "slow")
            await at.say("Three", one.conversation_id)
            entries = await at.entries()
        said = [message["content"] for message in other.bodies[0]["messages"] if message["role"] != "system"]
        assert said == ["One", one.text, "Two"]
        assert "conv_" not in json.dumps(other.bodies)
        assert [entry.model for entry in entries] == [entries[0].model, "other/big/one", entries[0].model]
        assert (entries[0].provider_response_id or "").startswith("resp_")
        conversations = {
            request.body.get("conversation") for request in first.requests if request.path == "/v1/responses"
        }
        assert len(conversations) == 2  # made anew, with what was said elsewhere


async def test_ids_of_a_provider_with_a_name_are_known_as_its_own(tmp_path: Path) -> None:
    with OpenAIStandIn() as first, OpenAIStandIn(api_key="sk-two") as second:
        providers = {
            "openai": {"kind": "openai", "base_url": first.base_url, "api_key": "${FIRST_KEY}"},
            "two": {"kind": "openai", "base_url": second.base_url, "api_key": "${SECOND_KEY}"},
        }
        settings = settings_of(tmp_path, {"providers": providers}, FIRST_KEY="sk-test", SECOND_KEY="sk-two")
        async with desk(settings) as at:
            reply = await at.say("Hello", model="two/gpt-4o")
            [entry] = await at.entries()
            assert entry.model.startswith("two/gpt-4o")
            assert (entry.provider_response_id or "").startswith("two/resp_")
            ended = await at.textllm.reconcile.llm.outcome(str(entry.provider_response_id))
            assert ended is not None
            assert ended.text == reply.text
            assert await at.textllm.reconcile.llm.outcome("gone/resp_1") is None
            await at.textllm.conversations.delete(Caller(), reply.conversation_id, soft=False)
            await at.textllm.conversations.erase_at_provider()
        assert not first.requests
        assert [request.path for request in second.requests if request.method == "DELETE"]


async def test_a_reply_may_be_shorter_where_the_api_is_chat_completions(tmp_path: Path, other: Picky) -> None:
    said = [Message(id="", role="user", content=(InputText("Hi"),), created_at=datetime.now(UTC))]
    with OpenAIStandIn() as first:
        async with desk(settings_of(tmp_path, two(first.base_url, other.base_url), **KEYS)) as at:
            for model in ("slow", "fast"):
                options = TurnOptions(model=model, max_output_tokens=5)
                await at.textllm.answer_messages(Caller(), MessagesTurn(messages=said, user_id="ada", options=options))
        assert first.requests[-1].body["max_output_tokens"] == 16
    assert other.bodies[-1]["max_tokens"] == 5


async def test_a_name_that_is_not_listed_is_refused_also_where_all_is_free(tmp_path: Path, other: Picky) -> None:
    config = two(other.base_url, other.base_url) | {"unpriced": "free"}
    async with desk(settings_of(tmp_path, config, **KEYS)) as at:
        with pytest.raises(InvalidRequestError, match="there are: fast, slow"):
            await at.say("Hello", model="gpt-4o")
    listed = models_of(settings_of(tmp_path, config, **KEYS)).data
    assert [(model.id, model.owned_by, model.is_default) for model in listed] == [
        ("fast", "openai", True),
        ("slow", "other", False),
    ]


async def test_no_more_calls_than_a_provider_takes_run_at_a_time(
    tmp_path: Path, other: Picky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textllm_adapters.routing.one._PLACE_WITHIN_S", 0.05)
    other.pause_s = 0.5
    config = two(other.base_url, other.base_url, max_concurrency=1)
    async with desk(settings_of(tmp_path, config, **KEYS)) as at:
        turns = [at.say("Hello", model="slow") for _ in range(2)]
        ends = await asyncio.gather(*turns, return_exceptions=True)
        assert len(await at.entries()) == 1
    [refused] = [end for end in ends if isinstance(end, ProviderUnavailableError)]
    assert "max_concurrency" in str(refused)
    assert len(other.bodies) == 1


@pytest.mark.parametrize("trusts", [True, False])
async def test_the_cost_that_a_provider_states_is_charged_where_it_is_trusted(
    tmp_path: Path, other: Picky, trusts: bool
) -> None:
    config = two(other.base_url, other.base_url, trusts_cost=trusts)
    async with desk(settings_of(tmp_path, config, **KEYS)) as at:
        reply = await at.say("Hello", model="slow")
        [entry] = await at.entries()
    wanted = (Decimal("0.0123"), "provider") if trusts else (Decimal("0.00018"), "operator")
    assert (entry.cost, entry.price_source) == wanted
    assert reply.cost == entry.cost


async def test_a_token_is_printed_by_a_command_and_asked_again_when_it_runs_out(tmp_path: Path, other: Picky) -> None:
    script = tmp_path / "token.py"
    script.write_text("import time; print(f'token-{time.time_ns()}')")
    provider = {
        "kind": "azure",
        "base_url": other.base_url,
        "token_command": [sys.executable, str(script)],
        "deployments": {"gpt-4o": "ours"},
    }
    async with desk(settings_of(tmp_path, {"providers": {"azure": provider}})) as at:
        for _ in range(2):
            await at.say("Hello")
        [entry, _] = await at.entries()
    assert entry.model == "azure/ours"
    tokens = [headers["authorization"] for headers in other.headers]
    assert tokens[0].startswith("Bearer token-")
    assert tokens[0] == tokens[1]


async def test_the_address_alone_means_the_server_that_is_there(tmp_path: Path, other: Picky) -> None:
    config = {"llm_api": "chat_completions", "model": "llama3.2", "prices": {"*": PRICE}}
    async with desk(settings_of(tmp_path, config, OPENAI_BASE_URL=other.base_url)) as at:
        assert (await at.say("Hello")).text == "Well."
    assert other.bodies[0]["model"] == "llama3.2"


def test_prices_go_by_names_patterns_and_whose_model_it_is(tmp_path: Path) -> None:
    providers = {
        "groq": {"kind": "chat_completions", "base_url": "https://api.groq.com/openai/v1", "api_key": "${KEY}"},
        "router": {"kind": "chat_completions", "base_url": "http://127.0.0.1:4000/v1"},
    }
    models = {
        "llama": {"provider": "groq", "model": "llama-3.3-70b-versatile"},
        "gpt": {"provider": "router", "model": "openai/gpt-4o"},
        "deep": {"provider": "router", "model": "deepseek-chat"},
        "mine": {"provider": "router", "model": "mine/7b"},
    }
    config = {"model": "llama", "providers": providers, "models": models, "prices": {"router/mine/*": PRICE}}
    settings = settings_of(tmp_path, config, KEY="k")
    check(settings)
    prices = {model.id: model.price for model in models_of(settings).data}
    assert all(prices.values())
    assert prices["mine"] is not None
    assert prices["gpt"] is not None
    assert (prices["mine"].input, prices["gpt"].input) == (Decimal(1), Decimal("2.5"))


REFUSED = {
    "a key in the file": (
        {"kind": "chat_completions", "base_url": "http://a/v1", "api_key": "sk-1"},
        "a key in the file",
    ),
    "no such variable": (
        {"kind": "chat_completions", "base_url": "http://a/v1", "api_key": "${NONE}"},
        "NONE in the env",
    ),
    "no such file": ({"kind": "chat_completions", "base_url": "http://a/v1", "api_key_file": "none"}, "no such file"),
    "azure without address": ({"kind": "azure", "api_key": "${KEY}"}, "the address of the provider"),
    "openai without key": ({"kind": "openai"}, "OPENAI_API_KEY in the environment"),
    "embedded with address": ({"kind": "embedded", "base_url": "http://a/v1"}, "it runs in this process"),
    "deployments elsewhere": ({"kind": "openai", "api_key": "${KEY}", "deployments": {"a": "b"}}, "of the kind azure"),
    "a field of no name": ({"kind": "openai", "api_key": "${KEY}", "basurl": "x"}, "did you mean base_url"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    provider, told = REFUSED[name]
    with pytest.raises(SettingsError, match=r"providers\.one") as refused:
        settings_of(tmp_path, {"providers": {"one": provider}}, KEY="k")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"a": {"provider": "none"}}, "no provider of this name"),
        ({"a": {"provider": "one", "fallbacks": ["b"]}}, "no model of this name"),
        ({"a": {"provider": "one", "fallbacks": ["a"]}}, "itself"),
        ({"b": {"provider": "one"}}, "a name that is not in `models`"),
        ({"a": {"provider": "one"}, "b": {"provider": "one", "model": "a", "price": PRICE}}, "another price"),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path: Path, models: dict[str, Any], told: str) -> None:
    providers = {"one": {"kind": "chat_completions", "base_url": "http://a/v1"}}
    with pytest.raises(SettingsError, match=told):
        settings_of(tmp_path, {"model": "a", "providers": providers, "models": models})


def test_what_is_wrong_in_a_provider_or_model_is_told_once_and_not_of_what_names_it(tmp_path: Path) -> None:
    right = {"kind": "chat_completions", "base_url": "http://a/v1"}
    config = {
        "model": "a",
        "providers": {"one": {"kind": "openai_compatible"}, "two": right},
        "models": {
            "a": {"provider": "two", "context": "long"},
            "b": {"provider": "one", "fallbacks": ["a"]},
            "c": {"provider": "none"},
        },
    }
    with pytest.raises(SettingsError) as refused:
        settings_of(tmp_path, config)
    wrong = {problem.path.removeprefix("config.yaml: ") for problem in refused.value.problems}
    assert wrong == {"providers.one.kind", "models.a.context", "models.c.provider"}


async def test_a_key_is_limited_to_models_that_there_are(tmp_path: Path) -> None:
    providers = {"one": {"kind": "chat_completions", "base_url": "http://a/v1"}}
    models = {name: {"provider": "one", "price": PRICE} for name in ("a", "b")}
    settings = settings_of(tmp_path, {"model": "a", "providers": providers, "models": models})
    await upgrade_database(settings)
    async with open_textllm(settings) as textllm, open_administration(settings) as alone:
        for administration in (textllm.administration, alone):
            issue = partial(administration.issue_api_key, Caller(role="admin"), role="service")
            with pytest.raises(InvalidRequestError, match="no model has the name 'nope'; there are: a, b"):
                await issue(models=["a", "nope"])
            assert (await issue(models=["b"])).models == ("b",)


def test_all_models_without_a_price_are_named_at_once(tmp_path: Path) -> None:
    providers = {"one": {"kind": "chat_completions", "base_url": "http://a/v1"}}
    models: dict[str, Any] = {name: {"provider": "one"} for name in ("a", "b")} | {
        "c": {"provider": "one", "price": PRICE}
    }
    settings = settings_of(tmp_path, {"model": "a", "providers": providers, "models": models})
    with pytest.raises(ConfigurationError, match=r"for 'a', 'b'\. State it in `models\.a\.price`, `models\.b\.price`"):
        check(settings)


def test_nothing_private_of_a_provider_is_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-of-file\n")
    provider = {
        "kind": "chat_completions",
        "base_url": "http://a/v1",
        "api_key_file": "key",
        "headers": {"x-secret": "${TOLD}"},
    }
    settings = settings_of(tmp_path, {"providers": {"one": provider}}, TOLD="canary")
    one = settings.providers["one"]
    assert one.api_key is not None
    assert (one.api_key.reveal(), one.headers["x-secret"].reveal()) == ("sk-of-file", "canary")
    shown = str(settings.public())
    assert "x-secret" in shown
    assert not any(secret in shown + repr(settings) for secret in ("sk-of-file", "canary"))


async def test_providers_are_asked_once_how_they_are(tmp_path: Path, other: Picky) -> None:
    with OpenAIStandIn() as first:
        config = two(first.base_url, other.base_url)
        config["providers"]["away"] = {"kind": "chat_completions", "base_url": "http://127.0.0.1:9/v1"}
        config["models"]["small"] = {"provider": "other"}
        found = await ask_providers(settings_of(tmp_path, config, FIRST_KEY="sk-wrong", OTHER_KEY="sk-other"))
    openai, named, away = found
    assert (openai.name, openai.is_well) == ("openai", False)
    assert "refused our API key" in openai.notes[0]
    assert (named.is_well, named.contexts) == (False, {"small": 2048})
    assert "does not list the model big/one; it lists small" in named.notes[0]
    assert "cannot be reached. It is at 127.0.0.1:" in away.notes[0]
    assert not other.bodies


async def test_an_address_without_v1_is_pointed_out(tmp_path: Path) -> None:
    with OpenAIStandIn() as first:
        address = first.base_url.removesuffix("/v1")
        [found] = await ask_providers(settings_of(tmp_path, {}, OPENAI_BASE_URL=address, OPENAI_API_KEY="sk-test"))
    assert found.notes[0].startswith(f"{address} lists no models; check it")
    assert not found.is_well
    assert found.notes[0].endswith("it ends in /v1.")


async def test_what_a_provider_keeps_that_is_gone_from_the_settings_waits_for_it(tmp_path: Path) -> None:
    with OpenAIStandIn() as first:
        settings = settings_of(tmp_path, {}, OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=first.base_url)
        async with desk(settings) as at:
            transcript = at.textllm.conversations.erase_at_provider.transcript
            assert transcript is not None
            with pytest.raises(ProviderError, match="not among the settings"):
                await transcript.erase("two/conv_1")
            assert await at.textllm.reconcile.llm.outcome("two/resp_1") is None
        assert not first.requests


@pytest.mark.parametrize("api", [None, "chat_completions", "responses"])
async def test_a_server_asks_once_how_large_contexts_are_and_fits_replies_to_that(
    tmp_path: Path, other: Picky, api: str | None
) -> None:
    config, environ = two(other.base_url, other.base_url), KEYS
    config["models"]["small"] = {"provider": "other", "price": PRICE}
    if api is not None:  # the address alone, of llama.cpp's server, which answers to any name
        other.served = 2048
        config = {"llm_api": api, "model": "small", "prices": {"*": PRICE}}
        environ = {"OPENAI_BASE_URL": other.base_url}
    async with open_textllm(settings_of(tmp_path, config, **environ), serves=True) as textllm:
        for _ in range(100):
            await Desk(textllm).say("Hello", model="small")
            asked = other.bodies[-1].get("max_tokens") or other.bodies[-1]["max_output_tokens"]
            if asked < 2048:
                break
            await asyncio.sleep(0.05)
    assert 1900 < asked < 2048
