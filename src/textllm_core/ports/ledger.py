"""The books: money promised, money spent, and every counter that follows from them, moved together or not at all."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from textllm_core.records.journal import JournalEntry, RefusedEnd
from textllm_core.records.ledger import Hold, Replay, Reservation, Settled, Settlement
from textllm_core.records.messages import Idempotency
from textllm_core.records.stored_responses import ResponseFailure
from textllm_core.usage import LedgerEntry


class Ledger(Protocol):
    """Each method is one transaction: it happens as a whole, or not at all.

    Calls that run at once act as if made one by one. Every method raises StorageUnavailableError when the storage does
    not answer; nothing has happened then, or, where a commit was cut off, calling again finds out.
    """

    async def replay(self, tenant_id: str, idempotency: Idempotency) -> Replay | None:
        """What the exchange with this key came to; None: nobody has the key now, though `reserve` may find it taken.

        Raises:
            IdempotencyInProgressError, IdempotencyMismatchError: the key is taken; the former says by which exchange.
        """
        ...

    async def reserve(self, reservation: Reservation) -> Hold:
        """Promise money to an exchange, and make it the only one of its conversation.

        Opens the conversation, and the user's session of the day, where they do not exist. What the reservation has of
        a response is in `StoredResponses` from then on.
        Raises:
            AlreadySettledError: an exchange with the same idempotency key came to an end; nothing else has happened.
            IdempotencyInProgressError, IdempotencyMismatchError: as `replay`; this comes before all that follows.
            ConversationNotFoundError: not this user's, deleted, or unknown.
            ConversationBusyError: another exchange holds the conversation, and its lease has not run out; or one has
                ended since the conversation was read, so that its revision is another.
            BudgetExceededError: see `budgets.grant`.
        """
        ...

    async def ask(self, hold: Hold, *, transcript_id: str | None) -> Hold:
        """Write down, right before the call, that the provider is asked, and what was made there for it.

        The model that is asked, and its price, are from now on those of `hold`.

        Raises:
            ServiceUnavailableError: the exchange was given up meanwhile, so that nobody would account for the call.
        """
        ...

    async def pend(
        self, hold: Hold, *, provider_response_id: str | None, model: str, said: JournalEntry | None = None
    ) -> Hold:
        """Write down that the provider took the exchange: from here on it has a ledger entry, `pending`.

        Args:
            model: what the provider says it is, for the entry; beside it the hold keeps what was asked for.
            said: of a resumable exchange, for its `ReplyJournal`; written unless it is settled or released already.
        """
        ...

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        """Say that the exchanges are alive; nothing where one is settled already.

        Of each it keeps `thought` and `counted`, which `abandoned` then has: what is charged if its process dies.
        """
        ...

    async def settle(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        """End the exchange with its one entry, and move every counter and the conversation's revision.

        None where it was settled or released before; nothing happens then. The entry names the provider's response
        that `hold` names, also where `pend` never came through. Where nobody was told of its response
        (`Settlement.is_untold`), `StoredResponses` has that no more, unless it is one in the background.

        Args:
            said: of a resumable exchange, what its `ReplyJournal` has not got yet.
        """
        ...

    async def correct(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        """Put what the provider says at last in the place of an estimate: every counter moves by the difference.

        None where the entry is no estimate (any more), so that it happens once; nothing happens then. See
        `bookkeeping.corrected`. The conversation's last reply to the exchange becomes that of the settlement, where it
        has one; and what it remembers, if anything, is what a repeat and a reader who resumes are told from now on,
        unless the conversation is gone. Of a reply whose message an edit of the conversation has changed or removed
        only the money is set right; so it is of a summary, once something was said or changed in the conversation.

        Args:
            said: as `settle` has it.
        """
        ...

    async def estimated(self, *, at: datetime, next_at: datetime, limit: int) -> Sequence[Hold]:
        """At most `limit` exchanges that are still open, without what they say, and now not due before `next_at`.

        Those whose time was over at `at` are open no more. One not due for longer than `WRONG_CLOCK_FROM` is due.
        """
        ...

    async def release(
        self,
        hold: Hold,
        *,
        transcripts: Sequence[str] = (),
        replies: Sequence[str] = (),
        unless_asked: bool = False,
        failure: ResponseFailure | None = None,
        end: RefusedEnd | None = None,
    ) -> bool:
        """Undo the reservation: the provider surely did nothing. A conversation made for it goes too.

        So do a session that nothing else uses, the exchange's events in the `ReplyJournal`, and what `StoredResponses`
        has of it, unless it is a response in the background: of that one its failure is still to be told.

        Args:
            failure: what is told of such a response; written with the release, so that no crash leaves it queued.
            end: what takes the place of the exchange's events in its journal, where that has some; None: nothing does.
            transcripts: what the exchange had made on the provider's side, to be erased; `replies`: the same.
            unless_asked: do nothing if the provider may have been asked by now.
        Returns:
            whether it was undone now.
        """
        ...

    async def forget_repeats(self, *, before: datetime, limit: int) -> int:
        """Give up at most `limit` idempotency keys of settled exchanges that were reserved before then; how many."""
        ...

    async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
        """At most `limit` exchanges whose lease had run out at `at`, now leased to the caller until `lease_until`.

        One that runs on for longer than `WRONG_CLOCK_FROM` has run out, too.
        """
        ...

    async def entry(self, tenant_id: str, response_id: str, *, user_id: str | None = None) -> LedgerEntry | None:
        """The entry of one exchange, of the user where one is named; None: there is none, or it has been removed."""
        ...

    async def entries(self, tenant_id: str, user_id: str) -> Sequence[LedgerEntry]:
        """All entries of one user, oldest first."""
        ...
