"""What all errors are, and what they may carry."""

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar, Final, Self

from msgspec import Struct

from textllm_core.usage import Usage


class TextLLMError(Exception):
    """Something TextLLM can say about what went wrong. Its text may be shown to the caller: it holds no secret.

    Args:
        tells: what a client acts on besides the code: attributes, named as on the wire.
        is_replayed: it is what an earlier call with the same idempotency key ended in; `replayed_id`: that one's
            response, for our own use; None: not known.
        allowance: what is left of the caller's rate limit, where the call has used some of it.
        report: the provider's own account of it, or by what name it knows the call; for the operator's log.
        charge: what a turn costs that ended in it, once it has been admitted; None: nothing, or nobody knows yet.
    """

    code: ClassVar[str] = "internal_error"
    tells: ClassVar[tuple[str, ...]] = ()
    is_replayed: bool = False
    replayed_id: str | None = None
    allowance: "Allowance | None" = None
    report: "ProviderReport | None" = None
    charge: "Charge | None" = None

    def details(self) -> Mapping[str, object]:
        """What a client acts on besides the code, by its wire name; None is not told."""
        told = {name: value for name in self.tells if (value := getattr(self, name)) is not None}
        charge = self.charge
        return told if charge is None else told | {"cost": charge.cost, "estimated": charge.estimated}

    def of_nothing(self) -> Self:
        """Itself, saying that the turn which ended in it costs nothing."""
        self.charge = FREE
        return self

    def tell_of(self, what: str) -> None:
        """Let its text begin with what it is about."""
        self.args = (f"{what}: {self}",)


class Charge(Struct, frozen=True):
    """What a turn is charged for that failed: USD; `estimated`: the provider has not stated what it used.

    `usage`: what it used; None: nothing, or nobody says.
    """

    cost: Decimal
    estimated: bool = False
    usage: Usage | None = None


FREE: Final = Charge(Decimal(0))


class Allowance(Struct, frozen=True):
    """A caller's rate limit of turns and of what else counts as one; what is left, and seconds until it is full."""

    limit: int
    remaining: int
    resets_in_s: int


class ProviderReport(Struct, frozen=True, kw_only=True):
    """What a provider says of a failure, without any text: names and numbers alone, None where it gives none.

    Args:
        status: of HTTP; `code`, `type`, `param`: the provider's words; `request_id`: by which its support finds it.
        address: where it was asked, which is for the operator alone.
        is_answer: the provider has stated the failure; else it broke off, and only the call is known.
    """

    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None
    request_id: str | None = None
    address: str | None = None
    is_answer: bool = True
