"""A name in `models` with weights: two deployments behind it, as a configuration file names them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import DEAR, PRICE, desk, settings_of
from tests.servers.picky import Picky, picky

from textllm_adapters.settings import SettingsError
from textllm_adapters.wiring import ask_providers, check, models_of
from textllm_core.errors import ConfigurationError

NAMES = ("east", "west")


@pytest.fixture
async def both() -> AsyncIterator[dict[str, Picky]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(picky()) for name in NAMES}


def spread(both: dict[str, str], **more: Any) -> dict[str, Any]:
    providers = {
        name: {"kind": "azure", "base_url": url, "api_key": f"${{{name.upper()}}}", "deployments": {"gpt-4o": name}}
        for name, url in both.items()
    }
    members = {name: {"provider": name, "model": "gpt-4o", "price": PRICE} for name in both}
    fast = {"weights": {"east": 50, "west": 50}} | more
    return {"model": "fast", "providers": providers, "models": {"fast": fast} | members}


KEYS = {"EAST": "key-east", "WEST": "key-west"}


async def test_turns_go_to_both_deployments_and_each_conversation_to_one(
    tmp_path: Path, both: dict[str, Picky]
) -> None:
    config = spread({name: server.base_url for name, server in both.items()})
    async with desk(settings_of(tmp_path, config, **KEYS)) as at:
        begun = [await at.say("Hello") for _ in range(20)]
        first = {name: len(server.bodies) for name, server in both.items()}
        assert min(first.values()) > 0
        for reply in begun:
            await at.say("Again", reply.conversation_id)
        assert {name: len(server.bodies) for name, server in both.items()} == {name: 2 * n for name, n in first.items()}
        models = {entry.model for entry in await at.entries()}
        called = at.textllm.answer_messages.exchange.called
        assert {called(model, asked="fast") for model in models} == {"fast"}
    assert models == {"east/east", "west/west"}
    for name, server in both.items():
        assert {headers["api-key"] for headers in server.headers} == {KEYS[name.upper()]}
        assert {body["model"] for body in server.bodies} == {name}


async def test_the_other_deployment_answers_where_one_has_too_much_to_do(
    tmp_path: Path, both: dict[str, Picky]
) -> None:
    config = spread({name: server.base_url for name, server in both.items()})
    both["east"].rule = lambda _: (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    async with desk(settings_of(tmp_path, config, **KEYS)) as at:
        assert {(await at.say("Hello")).model for _ in range(10)} == {"west/west"}
    assert len(both["west"].bodies) == 10
    assert 0 < len(both["east"].bodies) < 10  # each of them once: it is not tried again


def test_the_list_has_the_most_that_the_models_of_a_name_cost(tmp_path: Path) -> None:
    config = spread(dict.fromkeys(NAMES, "http://a/v1"))
    config["models"]["west"] |= {"model": "gpt-5", "price": DEAR}
    settings = settings_of(tmp_path, config, **KEYS)
    check(settings)
    [fast, *_] = models_of(settings).data
    assert fast.price is not None
    assert (fast.id, fast.price.output, fast.reads_images, fast.is_default) == ("fast", Decimal(40), True, True)


async def test_what_is_asked_of_providers_and_what_lacks_a_price_is_of_the_models_alone(
    tmp_path: Path, both: dict[str, Picky]
) -> None:
    config = spread({name: server.base_url for name, server in both.items()})
    assert [found.is_well for found in await ask_providers(settings_of(tmp_path, config, **KEYS))] == [True, True]
    config["models"]["west"] = {"provider": "west", "model": "ours"}
    with pytest.raises(ConfigurationError, match=r"for 'west'\. State it in `models\.west\.price`"):
        check(settings_of(tmp_path, config, **KEYS))


@pytest.mark.parametrize(
    ("fast", "place", "told"),
    [
        ({"provider": "east"}, "fast.provider", "something beside weights"),
        ({"price": PRICE}, "fast.price", "each of the names in `weights` has its own"),
        ({"context": 4000}, "fast.context", "something beside weights"),
        ({"weights": {}}, "fast.provider", "the name of a provider, or weights"),
        ({"weights": {"east": 0, "west": 0}}, "fast.weights", "no weight above 0"),
        ({"weights": {"east": 1, "north": 1}}, "fast.weights", "no model of this name"),
        ({"weights": {"east": 1, "fast": 1}}, "fast.weights", "itself"),
        ({"weights": {"east": 1, "other": 1}}, "fast.weights", "a name that has weights itself"),
        ({"weights": {"east": -1}}, "fast.weights.east", "0 to 1000000"),
        ({"weights": {"east": 0.7, "west": 1}}, "fast.weights.east", "0 to 1000000"),
        ({"fallbacks": ["east"]}, "fast.fallbacks", "a name that is in weights, too"),
    ],
)
def test_weights_that_cannot_be_are_refused_with_their_place(
    tmp_path: Path, fast: dict[str, Any], place: str, told: str
) -> None:
    config = spread(dict.fromkeys(NAMES, "http://a/v1"), **fast)
    config["models"]["other"] = {"weights": {"east": 1}}
    with pytest.raises(SettingsError) as refused:
        settings_of(tmp_path, config, **KEYS)
    [problem] = refused.value.problems
    assert f"models.{place}" in str(problem)
    assert told in str(problem)


def test_the_price_of_a_name_with_weights_is_refused_where_it_would_not_count(tmp_path: Path) -> None:
    config = spread(dict.fromkeys(NAMES, "http://a/v1")) | {"prices": {"fast": PRICE}}
    with pytest.raises(SettingsError, match="each has its own price"):
        settings_of(tmp_path, config, **KEYS)
