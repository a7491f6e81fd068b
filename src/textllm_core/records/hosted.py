"""Tools that run on the provider's own servers: which ones a turn offers, what they cost, and what they did."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from textllm_core.wire import Record

# By the types that requests name: what their operator allows, and prices, is the same for all dated versions of one.
KINDS: Final[Mapping[str, str]] = {
    "web_search": "web_search",
    "web_search_2025_08_26": "web_search",
    "web_search_preview": "web_search",
    "web_search_preview_2025_03_11": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_interpreter",
    "mcp": "mcp",
}
# Items of an output that tell of one call each, and of which tool; lists of what a server offers are none.
CALLS: Final[Mapping[str, str]] = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "mcp_call": "mcp",
}
ITEMS: Final = frozenset({*CALLS, "mcp_list_tools"})


class HostedTerms(Struct, frozen=True, kw_only=True):
    """What an operator says of a tool that it allows.

    Args:
        price: USD for one call.
        tokens: that what comes of one call adds to what the model reads, at most.
    """

    price: Decimal
    tokens: int


class HostedTool(Record, frozen=True):
    """A tool that is offered to the model.

    Args:
        definition: as its caller sent it; it may hold keys of the caller's.
        place: where it stood in the request, for what is refused.
    """

    definition: Mapping[str, Any]
    place: str = "tools"

    @property
    def type(self) -> str:
        """As the request names it."""
        return str(self.definition.get("type"))

    @property
    def kind(self) -> str:
        """What its operator allows and prices; its type, where nobody knows that."""
        return KINDS.get(self.type, self.type)

    def __repr__(self) -> str:
        return f"HostedTool({self.type})"


class HostedTools(Record, frozen=True, kw_only=True):
    """The tools that a turn offers.

    Args:
        choice: which of them the model is to use, as the caller sent it; None: as `TurnOptions.tool_choice` says.
        include: what their items are to have besides, in the words of the Responses API.
        most_calls: of all of them together; None: as the policy has it.
    """

    tools: Sequence[HostedTool]
    choice: Mapping[str, Any] | None = None
    include: Sequence[str] = ()
    most_calls: int | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """What their operator is to allow."""
        return frozenset(tool.kind for tool in self.tools)


class HostedItem(Record, frozen=True, tag="hosted_tool"):
    """What a tool did for a reply, as an item of the provider's output."""

    item: Annotated[Mapping[str, Any], Meta(description="What the tool did, as an item of OpenAI's Responses API.")]

    @property
    def type(self) -> str:
        return str(self.item.get("type"))

    @property
    def id(self) -> str:
        """The provider's; empty: it gave none."""
        return str(self.item.get("id") or "")


class ToolStep(Record, frozen=True):
    """A tool of the provider's is at work for the reply; `is_done`: its item is whole."""

    item: HostedItem
    is_done: bool


class HostedOutput(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a reply has from tools of the provider's.

    Args:
        before, after: items that stand before its text, and behind it.
        annotations: of its text, such as the pages that it cites, in the words of the Responses API.
    """

    before: tuple[HostedItem, ...] = ()
    after: tuple[HostedItem, ...] = ()
    annotations: tuple[Mapping[str, Any], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.annotations)

    def of(self, kept: str, said: str) -> "HostedOutput":
        """The same for what is kept of a text: its annotations are of the whole one alone."""
        return self if kept == said else HostedOutput(before=self.before, after=self.after)

    @property
    def items(self) -> tuple[HostedItem, ...]:
        return (*self.before, *self.after)

    @property
    def calls(self) -> Mapping[str, int]:
        """How many calls they were, by tool."""
        return counted_calls(self.items)


NOTHING_HOSTED: Final = HostedOutput()


def counted_calls(items: Iterable[HostedItem]) -> Mapping[str, int]:
    """How many calls the items tell of, by tool."""
    counts: dict[str, int] = {}
    for item in items:
        if (kind := CALLS.get(item.type)) is not None:
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def most_of(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    """What two counts of the same calls say together: the larger number of each."""
    return {kind: max(one.get(kind, 0), other.get(kind, 0)) for kind in (*one, *(set(other) - set(one)))}
