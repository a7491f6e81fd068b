"""Several models, and several providers of them: who is asked, who stands in, and what the books say of it."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.unit.conftest import NOON, Bench

from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.prices import FixedPrices
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import (
    Caller,
    ContextTooLongError,
    ConversationLostError,
    ExchangeRerouted,
    ExchangeSettled,
    ForbiddenError,
    InputText,
    InvalidRequestError,
    Message,
    MessagesTurn,
    ModelError,
    Price,
    Pricing,
    ProviderError,
    ProviderReport,
    ProviderUnavailableError,
    Rates,
    Route,
    Routes,
    TextLLM,
    TextLLMError,
    TextTurn,
    TurnOptions,
)

CHEAP = Price(rates=Rates.of(Decimal(1), Decimal(2)), source="test")
DEAR = Price(rates=Rates.of(Decimal(10), Decimal(40)), source="test")
DOWN = ProviderUnavailableError("down", may_have_run=False)


def stated(error: ModelError) -> ModelError:
    error.report = ProviderReport(status=500)
    return error


class House:
    """Two providers behind one engine: `first`, of OpenAI's kind, and `second`, which is sent the history."""

    def __init__(self, bench: Bench, *, chain: Sequence[str] = ("first", "second"), context: int | None = None) -> None:
        self.bench = bench
        self.transcript = MemoryTranscript()
        self.first, self.second = ScriptedLLM(transcript=self.transcript), ScriptedLLM()
        ways = {
            "first": Route(model="cheap", llm=self.first, transcript=self.transcript, context=context),
            "second": Route(model="other/dear", llm=self.second, provider="other", shortest_reply=1),
        }
        named = {"fast": [ways[name] for name in chain], "slow": [ways["second"]]}
        self.textllm: TextLLM = bench.over(
            llm=self.first,
            transcript=self.transcript,
            routes=Routes(named=named, providers={}, otherwise=None),
            pricing=Pricing({}, FixedPrices({"cheap": CHEAP, "other/dear": DEAR})),
        )

    async def say(self, text: str, conversation_id: str | None = None, model: str = "fast", **caller: object) -> str:
        turn = TextTurn(text, conversation_id, "ada", options=TurnOptions(model=model))
        reply = await self.textllm.send_message(Caller(**caller), turn)  # type: ignore[arg-type]
        return reply.conversation_id


@pytest.fixture
def house(bench: Bench) -> House:
    return House(bench)


@pytest.mark.parametrize("error", [DOWN, stated(ProviderError("broken")), ProviderError("key", may_have_run=False)])
async def test_another_model_stands_in_for_one_that_gave_nothing(house: House, error: ModelError) -> None:
    house.first.script(ScriptedReply(error=error))
    await house.say("Hello")
    [entry] = await house.bench.entries()
    assert (entry.model, entry.status) == ("other/dear", "completed")
    assert entry.cost == DEAR.cost(entry.usage) > CHEAP.cost(entry.usage)
    [event] = [event for event in house.bench.telemetry.events if isinstance(event, ExchangeRerouted)]
    assert (event.model, event.to, event.code) == ("cheap", "other/dear", error.code)
    assert [request.transcript_id for request in house.second.requests] == [None]
    await house.bench.check_books()


async def test_what_may_have_run_is_not_asked_of_another(house: House) -> None:
    house.first.script(ScriptedReply(error=ProviderError("broke off")))
    with pytest.raises(ProviderError, match="broke off"):
        await house.say("Hello")
    [entry] = await house.bench.entries()
    assert (entry.model, entry.estimated) == ("cheap", True)
    assert not house.second.requests


async def test_a_reply_that_has_begun_is_not_begun_again_by_another(house: House) -> None:
    house.first.script(ScriptedReply(text="Well", error=DOWN, after=0))
    with pytest.raises(ProviderUnavailableError):
        await house.say("Hello")
    assert not house.second.requests


async def test_the_turn_itself_is_refused_by_the_first_alone(house: House) -> None:
    house.first.script(ScriptedReply(error=ContextTooLongError()))
    with pytest.raises(ContextTooLongError):
        await house.say("Hello")
    assert not house.second.requests
    assert await house.bench.entries() == []


async def test_where_nobody_answers_the_last_one_says_why_and_nothing_is_charged(house: House) -> None:
    house.first.script(ScriptedReply(error=DOWN))
    house.second.script(ScriptedReply(error=ProviderError("no such model", may_have_run=False)))
    with pytest.raises(ProviderError, match="no such model"):
        await house.say("Hello")
    assert await house.bench.entries() == []
    await house.bench.check_books()


async def test_a_conversation_moves_from_one_provider_to_another_and_back(house: House) -> None:
    conversation = await house.say("One")
    await house.say("Two", conversation, "slow")
    [request] = house.second.requests
    assert request.transcript_id is None
    assert [message.text for message in request.messages] == ["One", "[0] You said: One", "Two"]
    await house.say("Three", conversation)
    first, last = house.first.requests
    assert first.transcript_id != last.transcript_id
    assert last.transcript_id is not None
    told = await house.transcript.messages(last.transcript_id)
    assert [message.text for message in told][:2] == ["One", "[0] You said: One"]
    assert [message.text for message in told if message.role == "user"] == ["One", "Two", "Three"]
    assert sorted(entry.model for entry in await house.bench.entries()) == ["cheap", "cheap", "other/dear"]


async def test_a_name_that_is_not_listed_is_refused(house: House) -> None:
    with pytest.raises(InvalidRequestError, match="there are: fast, slow"):
        await house.say("Hello", model="gpt-4o")


async def test_a_caller_is_limited_to_models(house: House) -> None:
    await house.say("Hello", model="slow", models=["slow"])
    with pytest.raises(ForbiddenError, match="'fast'; it may use slow"):
        await house.say("Hello", model="fast", models=["slow"])


async def test_a_reply_is_no_longer_than_the_context_allows(bench: Bench) -> None:
    house = House(bench, chain=["first"], context=500)
    await house.say("Hi there")
    [request] = house.first.requests
    assert 200 < request.max_output_tokens < 500


async def test_what_is_held_covers_the_dearest_of_all_that_may_answer(house: House) -> None:
    for model in ("fast", "slow"):
        await house.say("Hello", model=model)
    await house.bench.entries()
    fast, slow = (event.held for event in house.bench.telemetry.events if isinstance(event, ExchangeSettled))
    assert fast == slow


def test_models_without_a_name_are_reached_by_their_provider() -> None:
    first, second = ScriptedLLM(), ScriptedLLM()
    ways = {"first": Route(llm=first), "second": Route(llm=second, provider="second")}
    routes = Routes(named={}, providers=ways, otherwise=ways["first"])
    for name, llm, model in [
        ("gpt-4o", first, "gpt-4o"),
        ("first/gpt-4o", first, "gpt-4o"),
        ("second/llama/8b", second, "second/llama/8b"),
        ("meta/llama", first, "meta/llama"),
    ]:
        [route] = routes.to(name)
        assert (route.llm, route.model) == (llm, model)


async def test_a_reply_is_as_short_as_it_should_be_and_what_can_be_asked_for_at_least_is_held(house: House) -> None:
    said = [Message(id="", role="user", content=(InputText("Hi"),), created_at=NOON)]
    for model, asked in (("slow", 5), ("fast", 5), ("fast", 20)):
        options = TurnOptions(model=model, max_output_tokens=asked)
        await house.textllm.answer_messages(Caller(), MessagesTurn(messages=said, user_id="ada", options=options))
    told = [request.max_output_tokens for request in (*house.second.requests, *house.first.requests)]
    assert told == [5, 5, 20]
    held = [event.held for event in house.bench.telemetry.events if isinstance(event, ExchangeSettled)]
    token = Decimal(40) / 1_000_000  # of the dearer of them
    assert [held[1] - held[0], held[2] - held[1]] == [11 * token, 4 * token]
    await house.bench.check_books()


@pytest.mark.parametrize(
    ("chain", "provider", "error", "words"),
    [
        (("first",), "", InvalidRequestError, "kept at another provider; use its models"),
        ((), "", ConversationLostError, "put llm_api: conversations back into the settings"),
        (("first",), "gone/", ConversationLostError, "put the provider gone of the kind openai back"),
        ((), "gone/", ConversationLostError, "put the provider gone of the kind openai back"),
    ],
)
async def test_what_one_provider_alone_keeps_is_told_with_what_to_do(
    bench: Bench, chain: tuple[str, ...], provider: str, error: type[TextLLMError], words: str
) -> None:
    before = House(Bench(policy=replace(bench.policy, keep_messages=False), store=bench.store))
    conversation_id = await before.say("one")
    [(key, kept)] = bench.store.conversations.items()
    bench.store.conversations[key] = replace(kept, transcript_id=f"{provider}{kept.transcript_id}")
    house = House(bench, chain=(*chain, "second"))
    with pytest.raises(error, match=words):
        await house.say("two", conversation_id, "slow")
    assert house.first.requests == house.second.requests == []
    await bench.check_books()
