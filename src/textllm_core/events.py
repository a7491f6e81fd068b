"""Facts for whoever counts or logs them. They hold ids, names, codes and amounts, and never what anybody said."""

from collections.abc import Mapping
from contextvars import ContextVar
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from textllm_core.errors import ProviderReport
from textllm_core.usage import EntryStatus, Kind, Usage

# Set by a shell; what a request starts has it, too, also where that goes on after the request.
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)

# All that is kept for a time only, as `RemoveExpired` counts it.
Removable: TypeAlias = Literal[
    "repeats",
    "journals",
    "rate_limits",
    "revoked_keys",
    "conversations",
    "expired_conversations",
    "idle_conversations",
    "entries",
    "sessions",
]


class RequestAnswered(Struct, frozen=True, kw_only=True):
    """A shell has answered a request, or its client has left.

    Args:
        method: "other" where no route takes it, so that callers can make up no name.
        route: the template of its address, never the address itself; None where it met none.
        status: 499 where the client left before the response began.
        code: of the problem that the response tells; None where it tells none.
        tenant_id: None where nobody was let in.
    """

    request_id: str
    method: str
    route: str | None
    status: int
    duration_s: float
    scheme: str = "http"
    code: str | None = None
    tenant_id: str | None = None


class ExchangeAdmitted(Struct, frozen=True):
    """A turn may start, and `held` USD are promised to it."""

    response_id: str
    held: Decimal


class ExchangeBegun(Struct, frozen=True):
    """The provider took the turn. Model and id are its own words; the id is None where it keeps no responses."""

    response_id: str
    model: str
    provider_response_id: str | None


class ExchangeAnswered(Struct, frozen=True, kw_only=True):
    """The provider has told how the reply ended; nothing of it is in the books yet.

    Args:
        status: "completed", "incomplete", "failed" or "cancelled".
        usage: None where the provider did not say.
        error_code: the provider's, of a failure.
    """

    response_id: str
    status: str
    finish_reason: str
    usage: Usage | None
    error_code: str | None


class ExchangeSettled(Struct, frozen=True, kw_only=True):
    """An exchange is in the books, with these values; it happens once to each.

    Args:
        held, cost: USD.
        estimated: the provider never stated the usage.
        recovered: whoever carried it out had died, or lost the storage.
        time_to_first_token_ms: None where no text came.
    """

    response_id: str
    kind: Kind
    model: str
    status: EntryStatus
    usage: Usage
    held: Decimal
    cost: Decimal
    estimated: bool
    recovered: bool
    time_to_first_token_ms: int | None

    @property
    def exceeds_hold(self) -> bool:
        """Whether it cost more than was promised, so that a limit may have been overrun."""
        return self.cost > self.held


class ExchangeCorrected(Struct, frozen=True, kw_only=True):
    """What the provider has said at last took the place of an estimate that is in the books.

    Args:
        model: by which it is priced now.
        held, estimate, cost: USD; `cost` in the place of `estimate`.
    """

    response_id: str
    model: str
    held: Decimal
    estimate: Decimal
    cost: Decimal

    @property
    def exceeds_hold(self) -> bool:
        """Whether it is only now known to have cost more than was promised."""
        return self.estimate <= self.held < self.cost


class ExchangeFailed(Struct, frozen=True, kw_only=True):
    """An admitted turn got no reply, or none to its end.

    Args:
        code: of the error that its caller is told; `reason`: as `ErasureFailed` has it.
        model: which was asked, or is at work.
        report: the provider's own account; None where it has given none.
    """

    response_id: str
    code: str
    model: str
    reason: str = ""
    report: ProviderReport | None = None


class ExchangeRerouted(Struct, frozen=True):
    """A model gave no reply, and surely charges nothing for it; another one is asked in its place.

    Args:
        code: of the error; `reason`: as `ErasureFailed` has it.
        model: which was asked; `to`: which is asked now.
        report: the provider's own account; None where it has given none.
    """

    response_id: str
    code: str
    model: str
    to: str
    report: ProviderReport | None = None
    reason: str = ""


class TurnNotKept(Struct, frozen=True):
    """A turn whose reply broke off may be missing in its conversation, which the provider alone keeps.

    Args:
        transcript_id: the provider's name of the conversation.
        code: of the error; `reason`: as `ErasureFailed` has it.
        report: the provider's own account; None where it has given none.
    """

    response_id: str
    transcript_id: str
    code: str
    reason: str
    report: ProviderReport | None = None


class ExchangesRunning(Struct, frozen=True, kw_only=True):
    """How many exchanges this process carries out now, how many of them nobody reads, and the USD that they hold."""

    count: int
    detached: int
    held: Decimal


class Removed(Struct, frozen=True):
    """What was kept for a time only is gone: so many, of what."""

    kind: Removable
    count: int


class ErasureFailed(Struct, frozen=True, kw_only=True):
    """The provider has not confirmed that something is erased.

    Args:
        provider_id: the provider's name of it.
        attempts: how often it was tried; `retry_in_s`: seconds until the next, None where it is not asked again.
        code: of the error; `reason`: our own words for it, without anything private.
        report: the provider's own account; None where it has given none.
    """

    erasure_id: str
    provider_id: str
    attempts: int
    retry_in_s: int | None
    code: str
    reason: str
    report: ProviderReport | None = None


class ErasuresWaiting(Struct, frozen=True, kw_only=True):
    """How many erasures the provider has not confirmed yet, and how many of them were tried before.

    Args:
        by_provider: all that are pending, by the provider's name; the empty one: of the provider without a name.
        absent: those of them whose provider is not asked any more, as the settings are now.
    """

    pending: int
    failing: int
    by_provider: Mapping[str, int] = {}
    absent: Mapping[str, int] = {}


Event = (
    RequestAnswered
    | ExchangeAdmitted
    | ExchangeBegun
    | ExchangeAnswered
    | ExchangeSettled
    | ExchangeCorrected
    | ExchangeFailed
    | ExchangeRerouted
    | TurnNotKept
    | ExchangesRunning
    | Removed
    | ErasureFailed
    | ErasuresWaiting
)
"""What the core tells a `Telemetry`."""


class Unheard:
    """A `Telemetry` that nobody listens to."""

    def emit(self, event: Event) -> None:
        """Keeps `Telemetry.emit`."""


UNHEARD: Final = Unheard()
