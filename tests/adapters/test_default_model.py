"""The model that answers unless another is named, where the settings have no `models`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import KEYS, desk, settings_of
from tests.servers.picky import Picky, picky

from textllm_core import TextLLM

PRICES = {"*": {"input": 1, "output": 2}}


@pytest.fixture
async def one() -> AsyncIterator[Picky]:
    async with picky() as server:
        yield server


@pytest.fixture
async def two() -> AsyncIterator[Picky]:
    async with picky() as server:
        yield server


def providers(one: Picky, two: Picky) -> dict[str, Any]:
    """The settings of both."""
    return {
        "prices": PRICES,
        "providers": {
            "one": {"kind": "chat_completions", "base_url": one.base_url, "api_key": "${FIRST_KEY}"},
            "two": {"kind": "chat_completions", "base_url": two.base_url, "api_key": "${OTHER_KEY}"},
        },
    }


def called(textllm: TextLLM, model: str, *, asked: str | None) -> str:
    """The name of the model of a reply, as it is told below `/v1`."""
    return textllm.answer_messages.exchange.called(model, asked=asked)


@pytest.mark.parametrize(
    ("model", "whose", "name"),
    [("two/big", "two", "big"), ("one/big", "one", "big"), ("big", "one", "big"), ("org/big", "one", "org/big")],
)
async def test_it_is_asked_of_the_provider_whose_name_is_before_it(
    tmp_path: Path, one: Picky, two: Picky, model: str, whose: str, name: str
) -> None:
    settings = settings_of(tmp_path, {"model": model} | providers(one, two), **KEYS)
    async with desk(settings) as at:
        unnamed, named = await at.say("Hello"), await at.say("Hello", model=model)
        assert (unnamed.model, named.model) == (f"{whose}/{name}",) * 2
        told = {called(at.textllm, unnamed.model, asked=asked) for asked in (None, model)}
    assert told == {f"{whose}/{name}"}  # which can be sent again
    asked, silent = (two, one) if whose == "two" else (one, two)
    assert [body["model"] for body in asked.bodies] == [name, name]
    assert not silent.bodies


async def test_its_name_is_told_where_there_are_no_providers(tmp_path: Path, one: Picky) -> None:
    config = {"model": "org/big", "llm_api": "chat_completions", "prices": PRICES}
    settings = settings_of(tmp_path, config, OPENAI_API_KEY="sk-one", OPENAI_BASE_URL=one.base_url)
    async with desk(settings) as at:
        reply = await at.say("Hello")
        told = {called(at.textllm, reply.model, asked=asked) for asked in (None, "org/big")}
    assert told == {reply.model} == {"org/big"}
    assert [body["model"] for body in one.bodies] == ["org/big"]
