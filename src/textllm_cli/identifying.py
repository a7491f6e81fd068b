"""Conversations by the first characters of their ids."""

import re
from typing import Final

from textllm_cli.engine import Conversations
from textllm_core.conversations import MAX_LISTED
from textllm_core.errors import ConversationNotFoundError, InvalidRequestError
from textllm_core.records.conversations import ConversationFilter
from textllm_core.tenancy import Caller

_PREFIX: Final = "conv_"
_BEGINNING: Final = re.compile(r"[0-9a-f]{1,23}")  # of an id, whose 24 characters behind the prefix are all of it
_MOST_READ: Final = 10_000  # conversations, in pages of a hundred; who has more names them by their whole ids
_MOST_SHOWN: Final = 5


async def whole_id(conversations: Conversations, caller: Caller, named: str, *, include_deleted: bool = False) -> str:
    """The id of the one conversation whose id begins so, with or without `conv_`.

    Raises:
        ConversationNotFoundError: none does.
        InvalidRequestError: several do.
    """
    beginning = named.removeprefix(_PREFIX)
    if not _BEGINNING.fullmatch(beginning):
        return named  # all of an id, or none of ours
    found: list[str] = []
    wanted = ConversationFilter(include_deleted=include_deleted)
    for offset in range(0, _MOST_READ, MAX_LISTED):
        page = await conversations.list(caller, wanted, limit=MAX_LISTED, offset=offset)
        found += [each.id for each in page.data if each.id.startswith(_PREFIX + beginning)]
        if offset + len(page.data) >= page.total or not page.data:
            break
    if not found:
        raise ConversationNotFoundError
    if len(found) > 1:
        some = ", ".join(found[:_MOST_SHOWN]) + (", …" if len(found) > _MOST_SHOWN else "")
        raise InvalidRequestError(f"{len(found)} conversations begin with {named}: {some}. Give more of the id.")
    return found[0]
