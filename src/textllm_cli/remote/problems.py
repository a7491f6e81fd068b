"""What a server refuses, as the error that the engine would have raised here."""

import json
from decimal import Decimal

from textllm_core.errors import Charge, TextLLMError
from textllm_core.errors.retold import retold


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
    error = retold(code, detail, told)
    if error is None:
        if is_of_openai:
            return None
        error = StrangeError(code, detail)
    error.charge = charge
    return error
