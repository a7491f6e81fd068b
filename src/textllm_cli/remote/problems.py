"""What a server refuses, as the error that the engine would have raised here."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from textllm_core.errors import Charge, InvalidRequestError, TextLLMError


class StrangeError(TextLLMError):
    """What a server of another version tells of, under a code that is not known here."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.__dict__["code"] = code


def error_of(document: bytes) -> TextLLMError | None:
    """The error that a problem document tells of, or what stands for it below `/v1`; None where it is neither.

    Any server with OpenAI's API has the shape of the latter: ours is known by its code.
    """
    try:
        told = json.loads(document, parse_float=Decimal)  # money is exact
        is_of_openai = "error" in told
        if is_of_openai:
            told = told["error"] | {"detail": told["error"]["message"]}
        code, detail = str(told["code"]), str(told["detail"])
        charge = Charge(Decimal(told["cost"]), told.get("estimated") is True) if "cost" in told else None
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None
    kind = _KINDS.get(code)
    error: TextLLMError
    if kind is None:
        if is_of_openai:
            return None
        error = StrangeError(code, detail)
    elif kind is InvalidRequestError:
        error = InvalidRequestError(detail, [(each["field"], each["message"]) for each in told.get("errors", ())])
    else:
        error = kind.__new__(kind)  # its words are those of the server
        error.args = (detail,)
        for name in kind.tells:
            setattr(error, name, told.get(name))
    error.charge = charge
    return error


def _descendants(kind: type[TextLLMError]) -> Iterator[type[TextLLMError]]:
    for child in kind.__subclasses__():
        if "code" in vars(child):
            yield child
        yield from _descendants(child)


_KINDS: Final[Mapping[str, type[TextLLMError]]] = {kind.code: kind for kind in _descendants(TextLLMError)}
