"""A turn may be asked for with and without who asks."""

import pytest

from textllm_core import Caller, ImageTurn, TextTurn
from textllm_core.chat.calls import DEFAULT_CALLER, call_of

ACME = Caller("acme")


def test_a_text_alone_is_the_default_callers_turn() -> None:
    assert call_of(TextTurn, "Hello", None) == (DEFAULT_CALLER, TextTurn("Hello"))
    assert call_of(TextTurn, TextTurn("Hello", user_id="ada"), None) == (
        DEFAULT_CALLER,
        TextTurn("Hello", user_id="ada"),
    )


def test_who_asks_stands_before_it() -> None:
    assert call_of(TextTurn, ACME, "Hello") == (ACME, TextTurn("Hello"))
    assert call_of(TextTurn, ACME, TextTurn("Hello")) == (ACME, TextTurn("Hello"))


@pytest.mark.parametrize(
    ("caller", "turn", "got"),
    [(3, None, "int"), (ACME, None, "Caller"), ("ada", "Hello", "str, TextTurn"), (ACME, b"Hello", "Caller, bytes")],
)
def test_anything_else_is_refused_with_what_is_wanted(caller: object, turn: object, got: str) -> None:
    with pytest.raises(TypeError, match=f"a text or a TextTurn, .* this call gave {got}"):
        call_of(TextTurn, caller, turn)


def test_images_do_not_come_as_a_text() -> None:
    with pytest.raises(TypeError, match="Give ImageTurn"):
        call_of(ImageTurn, "Hello", None)
