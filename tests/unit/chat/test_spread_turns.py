"""A name whose turns go to several models, by weight: who is asked for a turn, and who stands in."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec.structs import replace as with_fields
from tests.unit.conftest import NOON, POLICY, Bench

from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.prices import FixedPrices
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_adapters.routing.one import NamedLLM, NamedTranscript, Places
from textllm_core import (
    Caller,
    ExchangeSettled,
    Idempotency,
    InputImage,
    InputText,
    Message,
    MessagesTurn,
    Price,
    Pricing,
    ProviderUnavailableError,
    Rates,
    Route,
    Routes,
    TextTurn,
    TurnOptions,
)
from textllm_core.chat.routes import Reads, in_order

CHEAP = Price(rates=Rates.of(Decimal(1), Decimal(2)), source="test")
DEAR = Price(rates=Rates.of(Decimal(10), Decimal(40)), source="test")
DOWN = ProviderUnavailableError("down", may_have_run=False)
SAID = Message(id="", role="user", content=(InputText("Hi"),), created_at=NOON)
WEIGHTS = {"east": 70, "west": 30, "south": 0}


class Spread:
    """`fast` is `east` and `west`, 70 to 30, and `south`, which is dear, where both give nothing."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.llms = bench, dict[str, ScriptedLLM]()
        self.routes = [self.route(name, weight) for name, weight in WEIGHTS.items()]
        named = {"fast": self.routes} | {route.provider: [replace(route, weight=1)] for route in self.routes}
        self.textllm = bench.over(
            llm=self.llms["east"],
            routes=Routes(named=named, providers={}, otherwise=None),
            pricing=Pricing({}, FixedPrices({"east/m": CHEAP, "west/m": CHEAP, "south/m": DEAR})),
        )

    def route(self, name: str, weight: int) -> Route:
        transcript = MemoryTranscript()
        self.llms[name] = ScriptedLLM(transcript=transcript)
        return Route(
            model=f"{name}/m",
            name="fast",
            llm=NamedLLM(self.llms[name], name, Places(None, name)),
            transcript=NamedTranscript(transcript, name),
            provider=name,
            weight=weight,
        )

    async def say(self, conversation_id: str | None = None, model: str = "fast", idempotency: str | None = None) -> str:
        turn = TextTurn(
            "Hello",
            conversation_id,
            "ada",
            options=TurnOptions(model=model),
            idempotency=Idempotency(idempotency, "/chat", "the same") if idempotency else None,
        )
        return (await self.textllm.send_message(Caller(), turn)).conversation_id

    @property
    def asked(self) -> dict[str, int]:
        """How many calls each provider has had."""
        return {name: len(llm.requests) for name, llm in self.llms.items()}


@pytest.fixture
def spread(bench: Bench) -> Spread:
    return Spread(bench)


def first(routes: Sequence[Route], by: str, transcript_id: str | None = None, *, must_stay: bool = False) -> str:
    return order(routes, by, transcript_id, must_stay=must_stay)[0]


def order(
    routes: Sequence[Route], by: str, transcript_id: str | None = None, *, must_stay: bool = False
) -> Sequence[str]:
    drawn = in_order(routes, by=by, message=SAID, transcript_id=transcript_id, must_stay=must_stay)
    return [route.provider for route in drawn]


def test_turns_are_spread_by_weight_and_each_conversation_stays_where_it_is(spread: Spread) -> None:
    names = [f"conv_{number}" for number in range(2000)]
    drawn = [first(spread.routes, name) for name in names]
    assert drawn == [first(spread.routes, name) for name in names]
    assert Counter(drawn)["south"] == 0
    assert Counter(drawn)["east"] / len(names) == pytest.approx(0.7, abs=0.04)


def test_another_weight_moves_no_more_conversations_than_it_must(spread: Spread) -> None:
    names = [f"conv_{number}" for number in range(2000)]
    before = [first(spread.routes, name) for name in names]
    after = [first([replace(spread.routes[0], weight=35), *spread.routes[1:]], name) for name in names]
    moved = Counter((old, new) for old, new in zip(before, after, strict=True) if old != new)
    assert set(moved) == {("east", "west")}
    assert moved["east", "west"] / len(names) == pytest.approx(70 / 100 - 35 / 65, abs=0.04)


def test_the_others_stand_in_by_weight_then_who_has_none_then_the_fallbacks(spread: Spread) -> None:
    later = replace(spread.route("north", 90), stage=1)
    for name in ("conv_1", "conv_2", "conv_3"):
        asked = order([later, *spread.routes], name)
        assert (set(asked[:2]), asked[2:]) == ({"east", "west"}, ["south", "north"])


def test_what_a_provider_keeps_is_gone_on_with_there_unless_it_has_no_share_any_more(spread: Spread) -> None:
    names = [f"conv_{number}" for number in range(50)]
    assert {first(spread.routes, name, "west/conv_1") for name in names} == {"west"}
    assert {first(spread.routes, name, "south/conv_1") for name in names} == {"east", "west"}
    assert {first(spread.routes, name, "south/conv_1", must_stay=True) for name in names} == {"south"}


def test_an_image_goes_to_a_model_that_sees_it(spread: Spread) -> None:
    blind = replace(spread.routes[0], llm=ScriptedLLM(reads_images=False, reads_files=False))
    routes = Routes(named={"fast": [blind, *spread.routes[1:]]}, providers={}, otherwise=None)
    assert routes.reads("fast") == Reads(images=True, files=False)
    shown = with_fields(SAID, content=(InputImage(key="k", media_type="image/png", size=1, name="a.png"),))
    for number in range(50):
        [asked, *_] = in_order(
            routes.to("fast"), by=f"conv_{number}", message=shown, transcript_id=None, must_stay=False
        )
        assert asked.provider == "west"


async def test_a_conversation_stays_at_who_stood_in_when_it_was_begun(spread: Spread) -> None:
    spread.llms["east"].script(*[ScriptedReply(error=DOWN)] * 20)
    begun = [await spread.say() for _ in range(20)]
    assert spread.asked["west"] == 20
    spread.llms["east"].script()
    for conversation in begun:
        await spread.say(conversation)
    assert spread.asked["west"] == 40
    assert all(request.transcript_id is not None for request in spread.llms["west"].requests)
    await spread.bench.check_books()


async def test_the_ledger_names_who_answered_and_the_hold_covers_the_dearest_that_may(spread: Spread) -> None:
    for name in ("east", "west"):
        spread.llms[name].script(ScriptedReply(error=DOWN))
    await spread.say()
    [entry] = await spread.bench.entries()
    assert (entry.model, entry.cost) == ("south/m", DEAR.cost(entry.usage))
    await spread.say(model="south")
    await spread.bench.entries()
    held = [event.held for event in spread.bench.telemetry.events if isinstance(event, ExchangeSettled)]
    assert held[0] == held[1]
    await spread.bench.check_books()


async def test_a_repeat_is_told_again_and_asked_of_nobody_else(spread: Spread) -> None:
    for _ in range(2):
        for number in range(5):
            await spread.say(idempotency=f"key-{number}")
    assert sum(spread.asked.values()) == 5


async def test_what_only_a_provider_keeps_goes_on_there_also_after_it_stood_in() -> None:
    spread = Spread(Bench(policy=with_fields(POLICY, keep_messages=False)))
    for name in ("east", "west"):
        spread.llms[name].script(ScriptedReply(error=DOWN))
    conversation = await spread.say()
    await spread.say(conversation)
    assert spread.asked["south"] == 2


async def test_turns_without_a_conversation_go_together_where_their_cache_key_says_so(spread: Spread) -> None:
    for key in (None, "one beginning"):
        before = spread.asked
        for _ in range(30):
            options = TurnOptions(model="fast", cache_key=key)
            turn = MessagesTurn(messages=[SAID], user_id="ada", options=options)
            await spread.textllm.answer_messages(Caller(), turn)
        asked = {name for name in before if spread.asked[name] > before[name]}
        assert asked == {"east", "west"} if key is None else len(asked) == 1
