"""Any state of the accounts that the rules of the books decide about, put into a database and read from it again."""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql import ledger_rows as rows
from textllm_adapters.sql import tables
from textllm_adapters.sql.accounts import CONVERSATIONS, DAYS, SESSIONS
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.testing.books import LEASE, NOON, PRICE, TODAY, exchange, reservation
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.errors import TextLLMError
from textllm_core.ids import new_id
from textllm_core.money import ZERO
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.ledger import Demand, Hold, Reservation, Settlement
from textllm_core.records.messages import Idempotency
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before
from textllm_core.rules.books import Opening, opening, settled_entry
from textllm_core.usage import LedgerEntry, Usage

EARLIER = NOON - timedelta(hours=1)
MODEL = "gpt-4o-2024-11-20"
IDEMPOTENCY = Idempotency("key", "POST /chat", "digest")

money = st.sampled_from([Decimal(0), Decimal("0.25"), Decimal("0.9999999999"), Decimal(3)]) | st.integers(
    0, 30_000_000_000
).map(lambda units: Decimal(units).scaleb(-10))
counts = st.integers(0, 5)
tokens = st.integers(0, 5_000)

sessions = st.builds(
    SessionAccount,
    id=st.just("sess_today"),
    last_activity=st.sampled_from([EARLIER, NOON]),
    total_tokens=tokens,
    total_cost=money,
    reserved=money,
    conversation_count=st.integers(1, 5),
    is_active=st.booleans(),
    is_reopened=st.booleans(),
)
conversations = st.builds(
    ConversationAccount,
    updated_at=st.just(EARLIER),
    session_id=st.sampled_from(["sess_today", "sess_old", None]),
    title=st.sampled_from(["Hello", "Theirs", None]),
    summary=st.sampled_from([None, "Before"]),
    last_image_url=st.sampled_from([None, "LLM/before.png"]),
    message_count=counts,
    total_tokens_input=tokens,
    total_tokens_output=tokens,
    total_cost=money,
    is_deleted=st.booleans(),
    transcript_id=st.sampled_from([None, "conv_theirs"]),
    context_tokens=tokens,
    revision=counts,
    last_message=counts,
    turn_id=st.sampled_from([None, "resp_other"]),
    turn_until=st.just(NOON),
)
usages = st.builds(
    DailyUsage,
    day=st.just(TODAY),
    model=st.just(MODEL),
    messages=counts,
    input_tokens=tokens,
    output_tokens=tokens,
    cost=money,
    estimated_cost=money,
)
befores = st.none() | st.builds(
    Before, st.sampled_from([None, "sess_old"]), st.sampled_from([None, "Hello", "He\0llo"]), st.booleans()
)
last_activities = st.none() | st.just(EARLIER)


@st.composite
def reservations(draw: st.DrawFn, conversation: ConversationAccount | None = None) -> Reservation:
    """Asks for a turn of that conversation; where there is none, for a new one."""
    least, more = draw(money), draw(money)
    return reservation(
        tenant_id=new_id("tenant"),
        payer_id=draw(st.sampled_from([None, "key"])),
        revision=None if conversation is None else conversation.revision,
        title=draw(st.sampled_from(["Hello", "He\0llo", None])),
        demand=Demand(least=least, most=least + more, limit=Decimal(100)),
        idempotency=draw(st.sampled_from([None, IDEMPOTENCY])),
        is_resumable=draw(st.booleans()),
    )


ODDS = ("new", "first of day", "elsewhere", "untitled", "deleted", "busy", "stale", "ended", "poor", "short", "keyed")
FEW_ODDS = ((), *((odd,) for odd in ODDS), *combinations(ODDS, 2))


@st.composite
def states(
    draw: st.DrawFn, odd: Collection[str]
) -> tuple[ConversationAccount | None, SessionAccount | None, bool, Reservation]:
    """A conversation, a session, whether there is an entry of the one in the other, and who asks.

    All is as in any turn but for what is odd, so that each of `ODDS` is met where it alone decides.
    """
    conversation: ConversationAccount | None = draw(conversations)
    session: SessionAccount | None = draw(sessions)
    assert conversation is not None
    assert session is not None
    asked: Reservation = draw(reservations(conversation))
    spent = session.total_cost + session.reserved
    enough = spent + asked.demand.least
    limits = {"poor": enough - Decimal("1e-10"), "short": enough}
    limit = next((limits[each] for each in limits if each in odd), Decimal(100))
    revision = conversation.revision
    asked = replace(
        asked,
        revision=draw(st.sampled_from([None, revision + 1])) if "stale" in odd else revision,
        demand=replace(asked.demand, limit=limit),
        idempotency=IDEMPOTENCY if "keyed" in odd else None,
    )
    title = None if "untitled" in odd else draw(st.sampled_from(["Hello", "Theirs"]))
    conversation = replace(
        conversation,
        session_id=draw(st.sampled_from(["sess_old", None])) if "elsewhere" in odd else "sess_today",
        title=title,
        message_count=draw(st.sampled_from([0, 0, 3])),
        is_deleted="deleted" in odd,
        turn_id="resp_other" if "busy" in odd else None,
    )
    session = replace(session, is_active="ended" not in odd)
    if "new" in odd:
        conversation, asked = None, asked if "stale" in odd else replace(asked, revision=None)
    if "first of day" in odd:
        session = None
    has_entry = conversation is not None and session is not None and draw(st.booleans())
    return conversation, session, has_entry, asked


@st.composite
def settlements(draw: st.DrawFn) -> Settlement:
    """How an exchange may end."""
    answered, estimated = draw(st.booleans()), draw(st.booleans())
    return Settlement(
        status="completed" if answered else draw(st.sampled_from(["failed", "cancelled"])),
        estimated=estimated,
        usage=Usage(draw(tokens), draw(tokens), draw(counts), draw(counts), draw(counts)),
        cost=draw(money),
        price_source="table",
        rates=PRICE.rates,
        model=draw(st.sampled_from([MODEL, MODEL, "a\0" + "b" * 300])),
        service_tier=draw(st.sampled_from([None, "default"])),
        metadata=None,
        messages=exchange("Hello", "Hi") if answered and draw(st.booleans()) else (),
        answered=answered,
        last_image=draw(st.sampled_from([None, "LLM/after.png"])),
        transcript_id=draw(st.sampled_from([None, "conv_theirs", "conv_new"])),
        transcripts=draw(st.lists(st.sampled_from(["conv_theirs", "conv_new", "conv_made"]), unique=True)),
        context_tokens=draw(tokens),
        at=NOON + timedelta(seconds=3),
        time_to_first_token_ms=draw(st.sampled_from([None, 321])),
        remembered=b"{}",
        summary=draw(st.sampled_from([None, "Af\0ter"])),
        open_until=NOON + LEASE if estimated and draw(st.booleans()) else None,
    )


class Books:
    """The rows of one exchange and of what it moves, which no other exchange touches."""

    def __init__(self, engine: AsyncEngine, asked: Reservation) -> None:
        self.asked = asked
        self.ledger = ledger_of(engine)
        self._database = Database(engine)
        self._at = asked.tenant_id, asked.user_id, asked.conversation_id
        self._day = asked.tenant_id, asked.payer, TODAY

    async def put(
        self,
        conversation: ConversationAccount | None,
        session: SessionAccount | None,
        used: DailyUsage | None = None,
    ) -> None:
        async with self._database.transaction(EVERYONE) as connection:
            if conversation is not None:
                await CONVERSATIONS.add(connection, rows.conversation_row(self.asked, conversation))
            if session is not None:
                await SESSIONS.add(connection, rows.session_row(self.asked, session))
            if used is not None:
                await DAYS.add(connection, rows.usage_row(self.hold(), used))

    async def put_hold(
        self,
        hold: Hold,
        *,
        before: Before | None = None,
        last_activity: datetime | None = None,
        was_ended: bool = False,
    ) -> None:
        async with self._database.transaction(EVERYONE) as connection:
            row = rows.hold_row(hold, self.asked, before, last_activity) | {"session_was_active": not was_ended}
            await connection.execute(insert(tables.holds), row)
            if (key := self.asked.idempotency) is not None:
                named = {"tenant_id": hold.tenant_id, "scope": key.scope, "key": key.key, "created_at": NOON}
                taken = named | {"fingerprint": key.fingerprint, "response_id": hold.response_id}
                await connection.execute(insert(tables.idempotency_keys), taken)

    async def put_entry(self, entry: LedgerEntry, *, held: Decimal = ZERO) -> None:
        async with self._database.transaction(EVERYONE) as connection:
            await connection.execute(insert(tables.ledger), rows.entry_row(entry) | {"held": held})

    def hold(self, amount: Decimal = ZERO, *, session_id: str = "sess_today") -> Hold:
        return self.asked.granted(amount, session_id=session_id)

    async def put_earlier_entry(self) -> None:
        """Of this conversation, in the session of today."""
        earlier = replace(self.hold(), response_id=new_id("resp"), created_at=EARLIER)
        end = Settlement(
            status="completed",
            estimated=False,
            usage=Usage(),
            cost=ZERO,
            price_source="table",
            rates=PRICE.rates,
            model=MODEL,
            service_tier=None,
            metadata=None,
            messages=(),
            answered=True,
            transcript_id=None,
            context_tokens=0,
            at=EARLIER,
            time_to_first_token_ms=None,
        )
        await self.put_entry(settled_entry(earlier, end))

    async def accounts(self) -> tuple[ConversationAccount | None, SessionAccount | None]:
        async with self._database.transaction(EVERYONE) as connection:
            conversation = await CONVERSATIONS.locked(connection, *self._at)
            return conversation, await SESSIONS.locked(connection, *self._day)

    async def used(self, model: str) -> DailyUsage | None:
        async with self._database.transaction(EVERYONE) as connection:
            return await DAYS.locked(connection, *self._day, model)

    async def rows_of(self, table: str) -> list[RowMapping]:
        """Those of this tenant."""
        of = tables.metadata.tables[table]
        async with self._database.single(EVERYONE) as connection:
            found = await connection.execute(select(of).where(of.c.tenant_id == self.asked.tenant_id))
            return [row._mapping for row in found]


def ruled(
    asked: Reservation, conversation: ConversationAccount | None, session: SessionAccount | None, *, has_entry: bool
) -> Opening | TextLLMError:
    """What the rules make of a reservation: its opening, or its refusal."""
    try:
        return opening(asked, conversation, session, has_entry=has_entry)
    except TextLLMError as refusal:
        return refusal


def prove(run: asyncio.Runner, examples: int, law: Any, **drawn: st.SearchStrategy[Any]) -> None:
    """Try a law, a coroutine function, with what is drawn."""

    @settings(max_examples=examples, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(**drawn)
    def tried(**values: Any) -> None:
        run.run(law(**values))

    tried()
