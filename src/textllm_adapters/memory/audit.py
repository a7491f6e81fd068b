"""The audit in memory."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from msgspec.structs import replace

from textllm_adapters.memory.store import KeptConversation, KeptSession, Key, MemoryStore
from textllm_core.money import ZERO
from textllm_core.records.audit import BooksSize, Drift
from textllm_core.records.ledger import Hold
from textllm_core.records.sessions import day_of
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import booked
from textllm_core.rules.books import added, model_of_day
from textllm_core.usage import LedgerEntry

_Counters = Mapping[str, Decimal | int]


@dataclass(frozen=True, slots=True)
class MemoryAudit:
    """An `Audit` of a store in memory."""

    store: MemoryStore

    async def drifts(self) -> AsyncGenerator[Drift, None]:
        for drift in list(self._drifts()):
            yield drift

    async def repair(self, tenant_id: str, user_id: str) -> Sequence[Drift]:
        user = (tenant_id, user_id)
        drifts = [d for d in self._drifts() if (d.tenant_id, d.user_id) == user and d.table != "ledger"]
        for key, kept in list(self.store.conversations.items()):
            if key[:2] == user:
                conversation = replace(kept.conversation, **self._of_conversation(key))
                kept = kept if self._is_held(key, kept.turn_id) else replace(kept, turn_id=None, turn_until=None)
                self.store.conversations[key] = replace(kept, conversation=conversation)
        for day, today in list(self.store.sessions.items()):
            if day[:2] == user:
                actual = dict(self._of_session(day))
                reserved = Decimal(actual.pop("reserved"))
                self.store.sessions[day] = replace(today, session=replace(today.session, **actual), reserved=reserved)
        self.store.daily_usage.update({day: used for day, used in self._used().items() if day[:2] == user})
        return drifts

    async def size(self) -> BooksSize:
        store = self.store
        return BooksSize(
            entries=len(store.entries),
            holds=len(store.holds),
            sessions=len(store.sessions),
            conversations=len(store.conversations),
        )

    def _drifts(self) -> Iterator[Drift]:
        for key, kept in self.store.conversations.items():
            running = {"running": int(kept.turn_id is not None)}, {"running": int(self._is_held(key, kept.turn_id))}
            yield from _compared("conversations", key, key[2], _recorded(kept), self._of_conversation(key))
            yield from _compared("conversations", key, key[2], *running)
        for day, today in self.store.sessions.items():
            yield from _compared("sessions", day, today.session.id, _recorded_of(today), self._of_session(day))
        for used, actual in self._used().items():
            recorded = self.store.daily_usage.get(used) or DailyUsage(*used[2:], 0, 0, 0, ZERO)
            yield from _compared("daily_usage", used[:3], f"{used[2]} {used[3]}", _used(recorded), _used(actual))
        for key, entry in self.store.entries.items():
            running = {"running": int(entry.status == "pending")}, {"running": int(key in self.store.holds)}
            if entry.status == "pending":
                yield from _compared("ledger", key, key[2], *running)

    def _is_held(self, key: Key, turn_id: str | None) -> bool:
        return turn_id is not None and (*key[:2], turn_id) in self.store.holds

    def _of_conversation(self, key: Key) -> _Counters:
        kept = self.store.conversations[key]
        is_whole = day_of(kept.conversation.created_at) >= self.store.ledger_since
        return _expected(_recorded(kept), self._entries_of(key), is_whole=is_whole)

    def _entries_of(self, key: Key) -> _Counters:
        entries = [e for e in self.store.entries.values() if (e.tenant_id, e.user_id, e.conversation_id) == key]
        imported = self.store.conversations[key].imported_turns
        return {
            "total_cost": _cost(entries),
            "total_tokens_input": sum(entry.usage.input_tokens for entry in entries),
            "total_tokens_output": sum(entry.usage.output_tokens for entry in entries),
            "message_count": sum(entry.answered for entry in entries) + imported,
        }

    def _of_session(self, day: tuple[str, str, date]) -> _Counters:
        actual = self._spent_on(day)
        expected = _expected(_recorded_of(self.store.sessions[day]), actual, is_whole=day[2] >= self.store.ledger_since)
        return {**expected, "reserved": actual["reserved"]}  # no hold is ever too old

    def _spent_on(self, day: tuple[str, str, date]) -> _Counters:
        entries = [entry for entry in self.store.entries.values() if _day(entry) == day]
        holds = [kept.hold for kept in self.store.holds.values() if _day(kept.hold) == day]
        return {
            "total_cost": _cost(entries),
            "total_tokens": sum(entry.usage.total_tokens for entry in entries),
            "reserved": sum((hold.amount for hold in holds), ZERO),
            "conversation_count": len({_conversation(of) for of in entries} | {_conversation(of) for of in holds}),
        }

    def _used(self) -> dict[tuple[str, str, date, str], DailyUsage]:
        """What each row of daily usage should say, where there is one or should be."""
        used = {day: DailyUsage(*day[2:], 0, 0, 0, ZERO) for day in self.store.daily_usage}
        for entry in self.store.entries.values():
            if entry.status != "pending":
                day = (*_day(entry), model_of_day(entry.model))
                used[day] = added(used.get(day), *day[2:], booked(entry))
        for day, kept in self.store.daily_usage.items():
            expected = _expected(_used(kept), _used(used[day]), is_whole=day[2] >= self.store.ledger_since)
            used[day] = replace(used[day], **expected)
        return used


def _day(of: LedgerEntry | Hold) -> tuple[str, str, date]:
    """Whose day pays."""
    return of.tenant_id, of.payer, day_of(of.created_at)


def _conversation(of: LedgerEntry | Hold) -> tuple[str, str]:
    return of.user_id, of.conversation_id


def _expected(recorded: _Counters, actual: _Counters, *, is_whole: bool) -> _Counters:
    """What counters should say: no less than what is left, where some entries may have been removed."""
    return actual if is_whole else {counter: max(value, recorded[counter]) for counter, value in actual.items()}


def _used(row: DailyUsage) -> _Counters:
    counters = ("messages", "input_tokens", "output_tokens", "cost", "estimated_cost")
    return {counter: getattr(row, counter) for counter in counters}


def _cost(entries: Iterable[LedgerEntry]) -> Decimal:
    return sum((entry.cost for entry in entries), ZERO)


def _recorded(kept: KeptConversation) -> _Counters:
    conversation = kept.conversation
    return {
        "total_cost": conversation.total_cost,
        "total_tokens_input": conversation.total_tokens_input,
        "total_tokens_output": conversation.total_tokens_output,
        "message_count": conversation.message_count,
    }


def _recorded_of(today: KeptSession) -> _Counters:
    session = today.session
    return {
        "total_cost": session.total_cost,
        "total_tokens": session.total_tokens,
        "reserved": today.reserved,
        "conversation_count": session.conversation_count,
    }


def _compared(
    table: str, of: tuple[str, str, object], key: str, recorded: _Counters, actual: _Counters
) -> Iterator[Drift]:
    for counter, value in actual.items():
        if recorded[counter] != value:
            yield Drift(
                table=table,
                tenant_id=of[0],
                user_id=of[1],
                key=key,
                counter=counter,
                recorded=recorded[counter],
                actual=value,
            )
