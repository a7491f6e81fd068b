"""Any sequence of calls, any number of crashes: the books follow a model of them, and balance after every step."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.conftest import sql_storage, storage_of

from textllm_adapters.memory.audit import MemoryAudit
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.testing.books import LEASE, at_once, exchange, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import BudgetExceededError, ConversationBusyError, ConversationNotFoundError
from textllm_core.ids import new_id
from textllm_core.money import ZERO, exact
from textllm_core.ports.audit import Audit
from textllm_core.records.ledger import Demand, Hold, Reservation, Settled, Settlement
from textllm_core.records.sessions import day_of
from textllm_core.usage import LedgerEntry, Usage

CAP = Decimal(5)
USERS = ("ada", "bob")
KEY = "key"  # is charged for some of their turns
BEFORE_MIDNIGHT = datetime(2101, 12, 31, 23, 58, 30, tzinfo=UTC)  # later than any month that PostgreSQL has ready
NEW_YEAR = date(2102, 1, 1)

T = TypeVar("T")

money = st.integers(0, 30_000_000_000).map(lambda units: Decimal(units).scaleb(-10))
which = st.integers(0, 1_000)  # of however many there are
tokens = st.integers(0, 5_000)
payers = st.sampled_from([None, KEY])


@dataclass
class ModelConversation:
    user_id: str
    running: str | None
    turn_until: datetime
    revision: int = 0
    answered: int = 0
    cost: Decimal = ZERO
    input: int = 0
    output: int = 0


@dataclass
class ModelHold:
    hold: Hold
    lease_until: datetime
    made_conversation: bool
    is_pending: bool = False
    is_lost: bool = False  # its process is dead: only recovery can find it


@dataclass
class ModelDay:
    """A payer's budget; `excess` is what replies cost beyond what was held for them."""

    spent: Decimal = ZERO
    excess: Decimal = ZERO
    tokens: int = 0
    entries: int = 0


@dataclass
class Model:
    now: datetime = BEFORE_MIDNIGHT
    conversations: dict[str, ModelConversation] = field(default_factory=dict)
    holds: dict[str, ModelHold] = field(default_factory=dict)
    ended: list[Hold] = field(default_factory=list)
    estimates: dict[str, tuple[Hold, Settlement]] = field(default_factory=dict)
    days: dict[tuple[str, date], ModelDay] = field(default_factory=dict)
    too_old: set[str] = field(default_factory=set)  # estimates whose entries were removed
    since: date = date.min  # the day from which on the ledger is whole

    def day(self, payer: str, at: datetime) -> ModelDay:
        return self.days.setdefault((payer, day_of(at)), ModelDay())

    def held(self, payer: str, day: date) -> list[Hold]:
        mine = (kept.hold for kept in self.holds.values() if payer_of(kept.hold) == payer)
        return [hold for hold in mine if hold.day == day]

    def reserved(self, payer: str, day: date) -> Decimal:
        return sum((hold.amount for hold in self.held(payer, day)), ZERO)

    def left(self, payer: str) -> Decimal:
        return CAP - self.day(payer, self.now).spent - self.reserved(payer, day_of(self.now))


def payer_of(charged: Reservation | Hold | LedgerEntry) -> str:
    return charged.payer_id or charged.user_id


def if_any(there_is: "Callable[[LedgerMachine], bool]") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a rule do nothing where there is nothing for it.

    What is there may depend on which of two calls at once came first: so it must not decide which rules are drawn.
    """

    def guard(step: Callable[..., None]) -> Callable[..., None]:
        @wraps(step)
        def guarded(machine: "LedgerMachine", **drawn: Any) -> None:
            if there_is(machine):
                step(machine, **drawn)

        return guarded

    return guard


class LedgerMachine(RuleBasedStateMachine):
    """Every rule is a call or two; what it should have done is done to the model as well."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], books: tuple[Storage, Audit]) -> None:
        super().__init__()
        self.storage, self.audit = books
        self.run, self.ledger = run, self.storage.ledger
        self.tenant_id = new_id("tenant")  # so that all examples can share a store
        self.model = Model()
        self.touched: set[tuple[str, str, str]] = set()  # users, payers and conversations, since the last check
        self.run(self.storage.upkeep.prepare(at=BEFORE_MIDNIGHT))

    # Which

    def _held(self, number: int) -> ModelHold:
        alive = [kept for kept in self.model.holds.values() if not kept.is_lost]
        chosen = alive[number % len(alive)]
        self._touch(chosen.hold)
        return chosen

    def _touch(self, of: Reservation | Hold) -> None:
        self.touched.add((of.user_id, payer_of(of), of.conversation_id))

    def _has_held(self) -> bool:
        return any(not kept.is_lost for kept in self.model.holds.values())

    def _has_estimate(self) -> bool:
        return bool(self.model.estimates)

    def _has_ended(self) -> bool:
        return bool(self.model.ended)

    def _has_conversation(self) -> bool:
        return bool(self.model.conversations)

    # Reserve

    @rule(user_id=st.sampled_from(USERS), payer=payers, least=money, more=money, is_asked=st.booleans())
    def open_a_conversation(
        self, user_id: str, payer: str | None, least: Decimal, more: Decimal, is_asked: bool
    ) -> None:
        asked = self._reservation(user_id, new_id("conv"), None, least, more, payer)
        self._reserve(replace(asked, is_asked=is_asked))

    @rule(number=which, payer=payers, least=money, more=money, is_stale=st.booleans())
    @if_any(_has_conversation)
    def take_a_turn(self, number: int, payer: str | None, least: Decimal, more: Decimal, is_stale: bool) -> None:
        conversation_id = list(self.model.conversations)[number % len(self.model.conversations)]
        known = self.model.conversations[conversation_id]
        state = self.run(self.storage.conversations.state(self.tenant_id, conversation_id))
        assert state.revision == known.revision
        is_stale = is_stale and known.revision > 0
        asked = self._reservation(known.user_id, conversation_id, known.revision - is_stale, least, more, payer)
        if is_stale or known.running is not None:
            with pytest.raises(ConversationBusyError):
                self.run(self.ledger.reserve(asked))
        else:
            self._reserve(asked)

    @rule(user_id=st.sampled_from(USERS))
    def ask_for_what_never_was(self, user_id: str) -> None:
        with pytest.raises(ConversationNotFoundError):
            self.run(self.ledger.reserve(self._reservation(user_id, new_id("conv"), 0, ZERO, ZERO)))

    def _reservation(
        self,
        user_id: str,
        conversation_id: str,
        revision: int | None,
        least: Decimal,
        more: Decimal,
        payer: str | None = None,
    ) -> Reservation:
        asked = reservation(
            tenant_id=self.tenant_id,
            user_id=user_id,
            payer_id=payer,
            conversation_id=conversation_id,
            revision=revision,
            demand=Demand(least=least, most=least + more, limit=CAP),
            at=self.model.now,
        )
        self._touch(asked)
        return asked

    def _reserve(self, asked: Reservation) -> None:
        left = self.model.left(payer_of(asked))
        if left < asked.demand.least:
            with pytest.raises(BudgetExceededError):
                self.run(self.ledger.reserve(asked))
            return
        hold = self.run(self.ledger.reserve(asked))
        assert hold.amount == min(asked.demand.most, left)
        self.model.holds[hold.response_id] = ModelHold(hold, asked.lease_until, asked.revision is None)
        known = self.model.conversations.setdefault(
            hold.conversation_id, ModelConversation(hold.user_id, hold.response_id, asked.lease_until)
        )
        known.running, known.turn_until = hold.response_id, asked.lease_until

    # Go on

    @rule(number=which)
    @if_any(_has_held)
    def pend(self, number: int) -> None:
        kept = self._held(number)
        kept.hold = self.run(self.ledger.pend(kept.hold, provider_response_id=new_id("theirs"), model="gpt-4o"))
        kept.is_pending = True

    @rule(number=which)
    @if_any(_has_held)
    def renew(self, number: int) -> None:
        self._lease(self._held(number), self.model.now + LEASE)

    def _lease(self, kept: ModelHold, until: datetime) -> None:
        self.run(self.ledger.renew([kept.hold], lease_until=until))
        self._leased(kept, until)

    def _leased(self, kept: ModelHold, until: datetime) -> None:
        kept.lease_until = until
        conversation = self.model.conversations[kept.hold.conversation_id]
        if conversation.running == kept.hold.response_id:
            conversation.turn_until = until

    # End

    @rule(number=which, cost=money, sent=tokens, received=tokens, answered=st.booleans(), estimated=st.booleans())
    @if_any(_has_held)
    def settle(self, number: int, cost: Decimal, sent: int, received: int, answered: bool, estimated: bool) -> None:
        hold = self._held(number).hold
        end = self._settlement(cost, sent, received, answered=answered)
        if estimated:
            end = replace(end, estimated=True, open_until=self.model.now + timedelta(seconds=300))
        self._settled(hold, end, self.run(self.ledger.settle(hold, end)))

    @rule(number=which, cost=money, sent=tokens, received=tokens, times=st.integers(1, 3))
    @if_any(_has_estimate)
    def correct_an_estimate(self, number: int, cost: Decimal, sent: int, received: int, times: int) -> None:
        hold, old = self.model.estimates.pop(list(self.model.estimates)[number % len(self.model.estimates)])
        self._touch(hold)
        new = replace(self._settlement(cost, sent, received, answered=False), model="gpt-4o-mini")
        corrected, errors = self.run(at_once(*[self.ledger.correct(hold, new) for _ in range(times)]))
        assert errors == []
        (only,) = [each for each in corrected if each is not None]
        conversation, day = (
            self.model.conversations[hold.conversation_id],
            self.model.day(payer_of(hold), hold.created_at),
        )
        conversation.cost += new.cost - old.cost
        conversation.input += new.usage.input_tokens - old.usage.input_tokens
        conversation.output += new.usage.output_tokens - old.usage.output_tokens
        day.spent += new.cost - old.cost
        day.excess += max(ZERO, new.cost - hold.amount) - max(ZERO, old.cost - hold.amount)
        day.excess += max(ZERO, new.cost - old.cost)  # what was freed by the estimate may be promised to others
        day.tokens += new.usage.total_tokens - old.usage.total_tokens
        assert only == Settled(message_number=conversation.answered, spent=exact(day.spent))

    @rule()
    def hand_out_estimates(self) -> None:
        at = self.model.now
        found = self.run(self.ledger.estimated(at=at, next_at=at + LEASE, limit=3))
        mine = {hold.response_id for hold in found if hold.tenant_id == self.tenant_id}  # not those of other examples
        assert mine <= self.model.estimates.keys() | self.model.too_old

    @rule(number=which)
    @if_any(_has_ended)
    def correct_what_is_exact(self, number: int) -> None:
        hold = self.model.ended[number % len(self.model.ended)]
        if hold.response_id not in self.model.estimates:
            self._touch(hold)
            assert self.run(self.ledger.correct(hold, self._settlement(CAP, 1, 1, answered=True))) is None

    @rule(number=which)
    @if_any(_has_held)
    def ask(self, number: int) -> None:
        kept = self._held(number)
        kept.hold = self.run(self.ledger.ask(kept.hold, transcript_id=new_id("theirs")))

    @rule(number=which)
    @if_any(_has_held)
    def give_up_unless_asked(self, number: int) -> None:
        hold = self._held(number).hold
        self.run(self.ledger.release(hold, unless_asked=True))
        if not hold.is_asked:
            self._released(hold)

    @rule(number=which)
    @if_any(_has_held)
    def release(self, number: int) -> None:
        hold = self._held(number).hold
        self.run(self.ledger.release(hold))
        self._released(hold)

    @rule(number=which, cost=money)
    @if_any(_has_held)
    def settle_twice_and_release_at_once(self, number: int, cost: Decimal) -> None:
        hold, end = self._held(number).hold, self._settlement(cost, 10, 10, answered=True)
        calls: list[Coroutine[Any, Any, Any]] = [self.ledger.settle(hold, end) for _ in range(2)]
        results, errors = self.run(at_once(*calls, self.ledger.release(hold)))
        assert errors == []
        settled = [result for result in results if isinstance(result, Settled)]
        if settled:
            (only,) = settled
            self._settled(hold, end, only)
        else:
            self._released(hold)

    @rule(number=which, call=st.sampled_from(["settle", "release", "renew", "pend"]), cost=money)
    @if_any(_has_ended)
    def come_too_late(self, number: int, call: str, cost: Decimal) -> None:
        hold = self.model.ended[number % len(self.model.ended)]
        self._touch(hold)
        match call:
            case "settle":
                assert self.run(self.ledger.settle(hold, self._settlement(cost, 1, 1, answered=True))) is None
            case "release":
                self.run(self.ledger.release(hold))
            case "renew":
                self.run(self.ledger.renew([hold], lease_until=self.model.now + LEASE))
            case "pend":
                self.run(self.ledger.pend(hold, provider_response_id="resp_late", model="gpt-4o"))

    def _settlement(self, cost: Decimal, sent: int, received: int, *, answered: bool) -> Settlement:
        return settlement(
            status="completed" if answered else "failed",
            usage=Usage(input_tokens=sent, output_tokens=received),
            cost=str(cost),
            answered=answered,
            messages=exchange("Hello", "Hi") if answered else (),
            at=self.model.now,
        )

    def _settled(self, hold: Hold, end: Settlement, settled: Settled | None) -> None:
        self._end(hold)
        conversation = self.model.conversations[hold.conversation_id]
        conversation.revision += 1
        conversation.answered += end.answered
        conversation.cost += end.cost
        conversation.input += end.usage.input_tokens
        conversation.output += end.usage.output_tokens
        day = self.model.day(payer_of(hold), hold.created_at)
        day.spent += end.cost
        day.excess += max(ZERO, end.cost - hold.amount)
        day.tokens += end.usage.total_tokens
        day.entries += 1
        if end.estimated:
            self.model.estimates[hold.response_id] = hold, end
        assert settled == Settled(message_number=conversation.answered, spent=exact(day.spent))

    def _released(self, hold: Hold) -> None:
        was_running = self.model.conversations[hold.conversation_id].running == hold.response_id
        if self._end(hold).made_conversation and was_running:
            del self.model.conversations[hold.conversation_id]

    def _end(self, hold: Hold) -> ModelHold:
        conversation = self.model.conversations[hold.conversation_id]
        if conversation.running == hold.response_id:
            conversation.running = None
        self.model.ended.append(hold)
        return self.model.holds.pop(hold.response_id)

    # Keep for a time only

    @rule()
    def forget_the_year_before(self) -> None:
        if day_of(self.model.now) < NEW_YEAR:
            return
        model = self.model
        self.run(self.storage.upkeep.forget_entries(before=NEW_YEAR, limit=1_000))
        self.run(self.storage.upkeep.forget_sessions(before=NEW_YEAR, limit=1_000))
        model.since = NEW_YEAR
        for (_, date_), day in model.days.items():
            if date_ < NEW_YEAR:
                day.entries = 0
        for kept in model.holds.values():
            kept.is_pending &= kept.hold.day >= NEW_YEAR
        gone = {id_ for id_, (hold, _) in model.estimates.items() if hold.day < NEW_YEAR}
        model.too_old |= gone
        for id_ in gone:
            del model.estimates[id_]
        for hold in (*model.ended, *(kept.hold for kept in model.holds.values())):
            self._touch(hold)

    # Crash, and recover

    @rule(seconds=st.sampled_from([1, 20, 31, 100]))
    def time_passes(self, seconds: int) -> None:
        self.model.now += timedelta(seconds=seconds)

    @rule(number=which)
    @if_any(_has_held)
    def crash(self, number: int) -> None:
        self._held(number).is_lost = True

    @rule(limit=st.integers(1, 4), cost=money, is_settled=st.booleans())
    def recover(self, limit: int, cost: Decimal, is_settled: bool) -> None:
        model, until = self.model, self.model.now + LEASE
        dead = {id_: kept for id_, kept in model.holds.items() if kept.lease_until < model.now}
        found = self.run(self.ledger.abandoned(at=model.now, lease_until=until, limit=limit))
        assert len(found) == min(limit, len(dead))
        assert all(dead[hold.response_id].hold == hold for hold in found)
        left = dead.keys() - {hold.response_id for hold in found}
        oldest = max((dead[hold.response_id].lease_until for hold in found), default=BEFORE_MIDNIGHT)
        assert all(dead[id_].lease_until >= oldest for id_ in left)
        for hold in found:
            self._touch(hold)
            self._leased(model.holds[hold.response_id], until)
            if is_settled:
                end = self._settlement(cost, 1, 1, answered=False)
                self._settled(hold, end, self.run(self.ledger.settle(hold, end)))

    # After each step

    @invariant()
    def the_books_of_whoever_was_touched_are_those_of_the_model(self) -> None:
        if self.touched:
            users, payers, conversations = map(set, zip(*self.touched, strict=True))
            self.run(self._check(users | payers, conversations))
        self.touched.clear()

    async def _check(self, payers: Iterable[str], conversation_ids: Iterable[str]) -> None:
        entries = [entry for user in USERS for entry in await self.ledger.entries(self.tenant_id, user)]
        settled = [entry for entry in entries if entry.status != "pending"]
        pending = {entry.response_id for entry in entries if entry.status == "pending"}
        assert pending == {id_ for id_, kept in self.model.holds.items() if kept.is_pending}
        assert len(settled) == sum(day.entries for day in self.model.days.values())
        for (payer, date_), day in self.model.days.items():
            if payer in payers:
                of_day = [e for e in entries if (payer_of(e), day_of(e.created_at)) == (payer, date_)]
                held = self.model.held(payer, date_)
                session = await self.storage.sessions.of_day(self.tenant_id, payer, date_)
                spent = session.total_cost if session else ZERO
                if date_ < self.model.since:  # some of its entries are gone, and it stays while a turn needs it
                    assert session is not None or not held
                    assert session is None or (spent, session.total_tokens) == (exact(day.spent), day.tokens)
                    continue
                assert spent == exact(day.spent)
                assert spent == exact(sum((e.cost for e in of_day), ZERO))
                assert (session.total_tokens if session else 0) == day.tokens
                counted = {of.conversation_id for of in of_day} | {of.conversation_id for of in held}
                assert (session.conversation_count if session else 0) == len(counted)
                assert (session is not None) == bool(counted)
                assert spent + self.model.reserved(payer, date_) <= CAP + day.excess
        for conversation_id in conversation_ids:
            known = self.model.conversations.get(conversation_id)
            found = await self.storage.conversations.get(self.tenant_id, conversation_id)
            if known is None:
                assert found is None
            else:
                assert found is not None
                assert (found.total_cost, found.message_count) == (exact(known.cost), known.answered)
                assert (found.total_tokens_input, found.total_tokens_output) == (known.input, known.output)
        for payer in payers:
            assert await self.audit.repair(self.tenant_id, payer) == []

    def teardown(self) -> None:
        for kept in list(self.model.holds.values()):
            self.run(self.ledger.release(kept.hold))
            self._released(kept.hold)
        self.run(self._check((*USERS, KEY), self.model.conversations))


def prove(runner: asyncio.Runner, books: Callable[[], tuple[Storage, Audit]], *, examples: int) -> None:
    def machine() -> RuleBasedStateMachine:
        return LedgerMachine(runner.run, books())

    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # any maker of machines will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Iterator[AsyncEngine]:
    opening = open_sqlite_engine if request.param == "sqlite" else open_postgres_engine
    engine = opening(request.getfixturevalue(f"{request.param}_url"))
    yield engine
    runner.run(engine.dispose())


def in_memory() -> tuple[Storage, Audit]:
    store = MemoryStore()
    return storage_of(store), MemoryAudit(store)


def test_the_books_in_memory_follow_the_model(runner: asyncio.Runner) -> None:
    prove(runner, in_memory, examples=200)


def test_the_books_in_sql_follow_the_model(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    prove(runner, lambda: (sql_storage(engine), SqlAudit(engine)), examples=12)


@pytest.mark.slow
def test_the_books_in_sql_follow_the_model_for_long(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    prove(runner, lambda: (sql_storage(engine), SqlAudit(engine)), examples=2_000)
