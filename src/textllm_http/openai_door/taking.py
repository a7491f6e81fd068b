"""What messages bring, made content: their files are looked at, and stored or held."""

from collections.abc import Sequence
from typing import Any, Final, cast

from litestar import Request
from msgspec import Struct

from textllm_core.chat.given_parts import GivenPart, TakenParts, has_files
from textllm_core.errors import Allowance
from textllm_core.file_tokens import FileTokens
from textllm_core.records.parts import ContentPart
from textllm_http.auth import caller_of
from textllm_http.openai_door.bodies import DoorBody
from textllm_http.services import services_of

_NO_FILES: Final = FileTokens(0, 0)


class Taken(Struct, frozen=True):
    """Content of messages; `allowance`: what is left of the user's rate limit, where it was counted for their files."""

    parts: TakenParts
    allowance: Allowance | None = None


def texts_alone(said: Sequence[Sequence[GivenPart]]) -> Taken | None:
    """What `taken` makes of messages without files; None: they have some."""
    if any(map(has_files, said)):
        return None
    contents = cast("tuple[tuple[ContentPart, ...], ...]", tuple(map(tuple, said)))
    return Taken(TakenParts(contents=contents, kind="text", tokens=_NO_FILES))


async def taken(
    request: Request[Any, Any, Any],
    body: DoorBody,
    said: Sequence[Sequence[GivenPart]],
    *,
    user_id: str,
    model: str | None,
    keeps: bool,
    is_counted: bool = False,
) -> Taken:
    """The content of messages; texts alone cost nothing, files count as a turn does in the user's rate limit.

    Args:
        keeps: their files are stored, as those of `/chat/image` are; else they go with the turn.
        is_counted: the request has been counted already.
    Raises:
        TextLLMError: what `TakeParts` raises; or there are too many requests.
    """
    if (texts := texts_alone(said)) is not None:
        return texts
    textllm, caller = services_of(request).textllm, caller_of(request)
    allowance = None if is_counted else await textllm.files.admit(caller, user_id)
    held = None if keeps else body.held_in(services_of(request).spool)
    return Taken(await textllm.take_parts(caller, said, user_id=user_id, model=model, held=held), allowance)
