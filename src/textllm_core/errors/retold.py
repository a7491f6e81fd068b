"""An error again, by what was written down or sent of it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from textllm_core.errors import InvalidRequestError, TextLLMError


def retold(code: str, message: str, told: Mapping[str, Any]) -> TextLLMError | None:
    """The error of this code, in these words; None where nothing is known by it.

    Args:
        told: what a client acts on besides, as `TextLLMError.details` has it.
    """
    kind = _KINDS.get(code)
    if kind is None:
        return None
    if kind is InvalidRequestError:
        return InvalidRequestError(message, [(each["field"], each["message"]) for each in told.get("errors", ())])
    error = kind.__new__(kind)  # its words are there already
    error.args = (message,)
    for name in kind.tells:
        setattr(error, name, told.get(name))
    return error


def _descendants(kind: type[TextLLMError]) -> Iterator[type[TextLLMError]]:
    for child in kind.__subclasses__():
        if "code" in vars(child):
            yield child
        yield from _descendants(child)


_KINDS: Final[Mapping[str, type[TextLLMError]]] = {kind.code: kind for kind in _descendants(TextLLMError)}
