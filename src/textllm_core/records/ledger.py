"""The books' own records: what a turn asks for, what it is promised, how it ended."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec.structs import asdict

from textllm_core.money import Price, Rates
from textllm_core.records.messages import Idempotency, Message
from textllm_core.records.sessions import day_of
from textllm_core.records.stored_responses import AskedResponse, StoredResponse
from textllm_core.usage import EntryStatus, Kind, Usage
from textllm_core.wire import Record

# Leases and pauses last for seconds, and clocks of one service differ by less than this: what ends later than so long
# from now was written by a clock that has been set back since, and nobody is to wait until it has caught up.
WRONG_CLOCK_FROM: Final = timedelta(minutes=10)
GIVEN_UP: Final = "This turn took so long to prepare that it was given up; send it again."


class Demand(Record, frozen=True):
    """What a turn may cost, in USD: at `least` with the shortest reply worth asking for, at `most` with the longest."""

    least: Decimal
    most: Decimal
    limit: Decimal


class Reservation(Record, frozen=True, kw_only=True):
    """What an exchange asks for before it may start.

    Args:
        revision: that of the conversation when it was read; None: it does not exist yet and is made.
        title: of a conversation that has none yet and in which no turn was answered.
        price: what the model charges now; whatever happens to price lists, the exchange can be settled by it.
        input_estimate: about how many tokens are sent, for an entry whose usage the provider never states.
        keeps_messages: of a new conversation: our own copy of its messages is kept.
        expires_at: of a new conversation: when it goes by itself, and so is in no list; None: it stays.
        at: time of the turn, aware UTC; its UTC day says which session pays.
        lease_until: when others may take the exchange for dead, unless it is renewed.
        message: the turn as its conversation is to keep it; where it keeps no copy of its own the files alone, if any.
        said_before: what is said right before it, likewise.
        metadata: the caller's, for the entry.
        is_asked: the provider is asked at once; False where `ask` says so first.
        payer_id: whose session pays, in the user's place; None: the user's own.
        idempotency: the turn's key; taken with the reservation, and given back with a release.
        is_resumable: how it ends is kept for a while, for readers in other processes; see `ReplyJournal`.
        response: what `StoredResponses` has of it from then on; None: nobody can ask for it again.
    """

    tenant_id: str
    user_id: str
    conversation_id: str
    revision: int | None
    title: str | None
    response_id: str
    kind: Kind
    model: str
    price: Price
    input_estimate: int
    keeps_messages: bool
    demand: Demand
    at: datetime
    lease_until: datetime
    message: Message | None = None
    said_before: tuple[Message, ...] = ()
    metadata: Mapping[str, str] | None = None
    is_asked: bool = True
    payer_id: str | None = None
    idempotency: Idempotency | None = None
    is_resumable: bool = False
    expires_at: datetime | None = None
    response: AskedResponse | None = None

    @property
    def stored_response(self) -> StoredResponse | None:
        """What is kept of its response, if anything."""
        if self.response is None:
            return None
        return StoredResponse(
            **asdict(self.response),
            tenant_id=self.tenant_id,
            user_id=self.user_id,
            id=self.response_id,
            conversation_id=self.conversation_id,
            created_at=self.at,
        )

    @property
    def payer(self) -> str:
        """Whose session and daily usage it counts in."""
        return self.payer_id or self.user_id

    def granted(self, amount: Decimal, *, session_id: str) -> "Hold":
        """The hold of an exchange that got `amount` USD."""
        return Hold(
            tenant_id=self.tenant_id,
            user_id=self.user_id,
            payer_id=self.payer_id,
            conversation_id=self.conversation_id,
            session_id=session_id,
            response_id=self.response_id,
            kind=self.kind,
            model=self.model,
            price=self.price,
            input_estimate=self.input_estimate,
            amount=amount,
            created_at=self.at,
            message=self.message,
            said_before=self.said_before,
            metadata=self.metadata,
            is_asked=self.is_asked,
        )


class Replay(Record, frozen=True):
    """What an earlier exchange with the same idempotency key came to, as its settlement left it.

    Args:
        remembered: `Settlement.remembered`.
        message_number, spent: as `Settled` had them.
    """

    remembered: bytes
    message_number: int
    spent: Decimal


class AlreadySettledError(Exception):
    """A reservation repeats one that is settled. Never leaves the core."""

    def __init__(self, replay: Replay) -> None:
        super().__init__("settled before")
        self.replay = replay


class Hold(Record, frozen=True, kw_only=True):
    """Money promised to an exchange that is still running.

    Args:
        amount: USD.
        model, price, input_estimate, payer_id, message, said_before, metadata: as the reservation had them.
        is_asked: the provider may have been asked, so that it may cost something.
        transcript_id: the provider's side of the conversation, where it was made for this turn.
        provider_response_id, reported_model: the provider's names for the reply and for its model, once it told us.
        thought: characters of reasoning that had come with the reply when the exchange was last renewed.
        counted: what the provider had stated by then that it has used; None: nothing.
    """

    tenant_id: str
    user_id: str
    conversation_id: str
    session_id: str
    response_id: str
    kind: Kind
    model: str
    price: Price
    input_estimate: int
    amount: Decimal
    created_at: datetime
    message: Message | None = None
    said_before: tuple[Message, ...] = ()
    metadata: Mapping[str, str] | None = None
    is_asked: bool = True
    transcript_id: str | None = None
    payer_id: str | None = None
    provider_response_id: str | None = None
    reported_model: str | None = None
    thought: int = 0
    counted: Usage | None = None

    @property
    def payer(self) -> str:
        """Whose session and daily usage it counts in."""
        return self.payer_id or self.user_id

    @property
    def said(self) -> tuple[Message, ...]:
        """All that the turn says, oldest first, as its conversation is to keep it."""
        return self.said_before if self.message is None else (*self.said_before, self.message)

    @property
    def day(self) -> date:
        """The UTC day whose session pays."""
        return day_of(self.created_at)


class Settlement(Record, frozen=True, kw_only=True):
    """How an exchange ended, and all that is to be written down about it.

    Args:
        messages: the turn and its reply where the conversation keeps them; none where it shall not.
        answered: the turn counts as one of the conversation's; False for a failure.
        last_image: the key of the newest image that the turn brought into the conversation; None: it brought none.
        transcript_id: the provider's side of the conversation from now on; None: it is to be made anew.
        transcripts: all that the exchange found or made; what the conversation does not go on with is to be erased.
        rates: what `cost` was computed with.
        context_tokens: what the next turn sends as its past, in tokens.
        remembered: what a repeat with the exchange's idempotency key, and a reader who resumes it, is told, as UTF-8
            text; kept where it has one, or is resumable.
        summary: of the conversation from now on; None: it keeps the one it has.
        unsaid: the title that the turn gives, where nothing of it stays: a conversation in which nothing was answered
            has it no longer. None: it keeps its title.
        end_number: the number of its terminal event, for a reader who resumes it.
        open_calls: as the conversation's state has them from now on.
        open_until: it is an estimate, and until then the provider is asked again; see `Ledger.estimated`.
        is_untold: it failed before its caller was told of a reply, so that nobody will ask for its response, unless
            that is one in the background.
    """

    status: EntryStatus
    estimated: bool
    usage: Usage
    cost: Decimal
    price_source: str
    rates: Rates
    model: str
    service_tier: str | None
    metadata: Mapping[str, str] | None
    messages: Sequence[Message]
    answered: bool
    last_image: str | None = None
    transcript_id: str | None
    transcripts: Sequence[str] = ()
    context_tokens: int
    at: datetime
    time_to_first_token_ms: int | None
    remembered: bytes = b""
    summary: str | None = None
    unsaid: str | None = None
    end_number: int = 1
    open_calls: tuple[str, ...] | None = None
    open_until: datetime | None = None
    is_untold: bool = False

    @property
    def leaves_files(self) -> bool:
        """Its conversation knows the files of the turn."""
        return self.answered or self.last_image is not None


class Settled(Record, frozen=True):
    """The counters after a settlement: answered turns of the conversation, and USD spent in the session."""

    message_number: int
    spent: Decimal
