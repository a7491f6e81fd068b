"""Sessions: a user's usage in one UTC day, and the day's budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from textllm_core.errors import SessionNotFoundError
from textllm_core.ports.clock import Clock
from textllm_core.ports.session_repository import SessionRepository
from textllm_core.records.sessions import Session, day_of, first_of_last
from textllm_core.tenancy import Caller

MAX_SESSION_DAYS: Final = 366


@dataclass(frozen=True, slots=True)
class GetSession:
    """One session by its id."""

    sessions: SessionRepository

    async def __call__(self, caller: Caller, session_id: str) -> Session:
        """
        Raises:
            SessionNotFoundError: not the caller's, or unknown.
        """
        session = await self.sessions.get(caller.tenant_id, session_id, user_id=caller.user_id)
        if session is None:
            raise SessionNotFoundError
        return session


@dataclass(frozen=True, slots=True)
class TodaysSession:
    """A user's session of the current UTC day."""

    sessions: SessionRepository
    clock: Clock

    async def __call__(self, caller: Caller, user_id: str) -> Session:
        """
        Raises:
            SessionNotFoundError: before the user's first turn of the day.
            InvalidRequestError: `user_id` is malformed.
            NotFoundError: the caller may not act for the user.
        """
        user = caller.acts_for(user_id) or user_id
        user = caller.pays_for(user) or user
        if (session := await self.sessions.of_day(caller.tenant_id, user, day_of(self.clock.now()))) is None:
            raise SessionNotFoundError
        return session


@dataclass(frozen=True, slots=True)
class ListSessions:
    """A user's sessions of the last UTC days."""

    sessions: SessionRepository
    clock: Clock

    async def __call__(self, caller: Caller, user_id: str, *, days: int) -> Sequence[Session]:
        """Those of today and of the days before it, `days` in all, newest first; a day without turns has none.

        Raises:
            InvalidRequestError: `days` is not 1 to 366, or `user_id` is malformed.
            NotFoundError: the caller may not act for the user.
        """
        user = caller.acts_for(user_id) or user_id
        user = caller.pays_for(user) or user
        first = first_of_last(days, self.clock.now(), at_most=MAX_SESSION_DAYS)
        return await self.sessions.since(caller.tenant_id, user, first)


@dataclass(frozen=True, slots=True)
class EndSession:
    """Mark a session as ended. The budget of its day stays spent, and the next turn of that day reopens it."""

    sessions: SessionRepository

    async def __call__(self, caller: Caller, session_id: str) -> Session:
        """The ended session; the same again where it had ended before.

        Raises:
            SessionNotFoundError: not the caller's, or unknown.
        """
        session = await GetSession(self.sessions)(caller, session_id)
        if (ended := await self.sessions.end(caller.tenant_id, session.user_id, session_id)) is None:
            raise SessionNotFoundError
        return ended
