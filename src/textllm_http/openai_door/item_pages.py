"""Items of a conversation, page by page."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from textllm_core.errors import InvalidRequestError, NotFoundError
from textllm_core.list_messages import ListedMessage, ListMessages, Order
from textllm_core.tenancy import Caller
from textllm_http.openai_door.items import Item, ItemId, items_of

Shown = Callable[[ListedMessage], Sequence[Item]]


class Asked(NamedTuple):
    """Which items: at most `limit` of those behind the item `after`."""

    limit: int
    order: Order
    after: str | None


async def page_of(
    messages: ListMessages, caller: Caller, conversation_id: str, asked: Asked
) -> tuple[list[Item], bool]:
    """The items that are asked for, and whether more follow.

    Raises:
        InvalidRequestError: no item of the conversation is called `asked.after`.
        TextLLMError: what `ListMessages` raises.
    """
    items: list[Item] = []
    last, has_more = None, True
    if asked.after is not None:
        last = ItemId.of(asked.after).message
        try:
            message = await messages.one(caller, conversation_id, last)
        except NotFoundError as error:
            if error.code != "not_found":
                raise
            raise _no_such_item() from error
        its_own = _ordered(message, asked.order)
        places = [place for place, item in enumerate(its_own) if item["id"] == asked.after]
        if not places:
            raise _no_such_item()
        items += its_own[places[0] + 1 :]
    while has_more and len(items) <= asked.limit:
        page = await messages(caller, conversation_id, limit=asked.limit + 1, order=asked.order, after=last)
        for message in page.data:
            items += _ordered(message, asked.order)
            last = message.id
        has_more = page.has_more
    return items[: asked.limit], len(items) > asked.limit


def part_of(items: Sequence[Item], asked: Asked) -> tuple[Sequence[Item], bool]:
    """The same of items that are all here, oldest first.

    Raises:
        InvalidRequestError: none of them is called `asked.after`.
    """
    ordered = list(items) if asked.order == "asc" else list(reversed(items))
    if asked.after is not None:
        ids = [item["id"] for item in ordered]
        if asked.after not in ids:
            raise _no_such_item()
        ordered = ordered[ids.index(asked.after) + 1 :]
    return ordered[: asked.limit], len(ordered) > asked.limit


def _ordered(message: ListedMessage, order: Order) -> list[Item]:
    items = items_of(message)
    return items if order == "asc" else items[::-1]


def _no_such_item() -> InvalidRequestError:
    return InvalidRequestError.of("after", "must be the id of an item of this list")
