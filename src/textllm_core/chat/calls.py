"""How a turn may be asked for: `(caller, turn)`, or the turn alone, which is then the default caller's."""

from typing import Final, TypeVar

from textllm_core.records.messages import TextTurn
from textllm_core.tenancy import Caller

DEFAULT_CALLER: Final = Caller()  # whoever embeds the library is its only tenant, until it says otherwise

AnyTurn = TypeVar("AnyTurn")


def call_of(kind: type[AnyTurn], caller: object, turn: object) -> tuple[Caller, AnyTurn]:
    """Who asks, and what; a text is a turn of that text.

    Args:
        turn: None: `caller` is the turn.
    Raises:
        TypeError: they are something else.
    """
    if turn is None:
        caller, turn = DEFAULT_CALLER, caller
    if kind is TextTurn and isinstance(turn, str):
        turn = TextTurn(turn)
    if isinstance(caller, Caller) and isinstance(turn, kind):
        return caller, turn
    wanted = "a text or a TextTurn" if kind is TextTurn else f"{kind.__name__}"
    got = ", ".join(type(given).__name__ for given in (caller, turn) if given is not DEFAULT_CALLER)
    raise TypeError(f"Give {wanted}, and before it, if you like, the Caller who asks; this call gave {got}.")
