"""Tools that run on the provider's own servers: which ones a turn offers, what they cost, and what they did."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from msgspec import UNSET, Meta, Struct, UnsetType

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
APPROVAL_REQUEST: Final = "mcp_approval_request"
# Those of servers of MCP: what such a server offers, what it is to be asked once somebody approves, what it was asked.
MCP_ITEMS: Final = frozenset({"mcp_list_tools", APPROVAL_REQUEST, "mcp_call"})
ITEMS: Final = frozenset({*CALLS, *MCP_ITEMS})
# How the ids of items begin, by which callers know them; as OpenAI's do.
ID_PREFIXES: Final[Mapping[str, str]] = {
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    APPROVAL_REQUEST: "mcpr",
}
OTHER_PREFIX: Final = "ht"


class HostedTerms(Struct, frozen=True, kw_only=True):
    """What an operator says of a tool that it allows.

    Args:
        price: USD for one call.
        tokens: that what comes of one call adds to what the model reads, at most.
        allowed: what requests may name: vector stores, containers and files by their ids, MCP servers by their hosts or
            addresses; `*` is all. None: only what is not the operator's own.
        tenants: what those of one tenant may name besides.
    """

    price: Decimal
    tokens: int
    allowed: Sequence[str] | None = None
    tenants: Mapping[str, Sequence[str]] = {}

    def permits(self, thing: "NamedThing", tenant_id: str) -> bool:
        """Whether requests of the tenant may name it."""
        if self.allowed is None and not self.tenants:
            return not thing.is_operators
        return any(thing.is_of(entry) for entry in (*(self.allowed or ()), *self.tenants.get(tenant_id, ())))


class NamedThing(Record, frozen=True):
    """What a request names beside a tool.

    Args:
        name: its id, or the address of a server.
        place: where it stood in the request.
        is_operators: it is in the operator's own account at the provider, so that whoever names it reads what is there.
        is_address: its name is one; ids are anything that callers send.
    """

    name: str
    place: str
    is_operators: bool = True
    is_address: bool = False

    def is_of(self, entry: str) -> bool:
        """Whether it is what the operator names so: all, one by its name, or servers by their host."""
        if entry in ("*", self.name):
            return True
        if not self.is_address or "://" in entry:
            return False
        return entry.lower() in (self.told.lower(), urlsplit(self.name).hostname)

    @property
    def told(self) -> str:
        """What may be told of it: of an address, which may hold a key, the host alone."""
        return urlsplit(self.name).netloc.rpartition("@")[2] if self.is_address else self.name


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

    @property
    def may_ask(self) -> bool:
        """Some of its calls may wait for an approval: those of a server of MCP, unless the caller wants none to."""
        return self.kind == "mcp" and self.definition.get("require_approval") != "never"

    @property
    def things(self) -> Sequence[NamedThing]:
        """What the request names beside it."""
        given = self.definition
        match self.kind:
            case "file_search":
                return _things(given.get("vector_store_ids"), f"{self.place}.vector_store_ids")
            case "code_interpreter":
                container = given.get("container")
                if isinstance(container, Mapping):
                    return _things(container.get("file_ids"), f"{self.place}.container.file_ids")
                return _things(container, f"{self.place}.container")
            case "mcp":
                return [
                    NamedThing(str(name), f"{self.place}.{field}", field == "tunnel_id", field == "server_url")
                    for field in ("server_url", "connector_id", "tunnel_id")
                    if (name := given.get(field))
                ]
        return ()

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

    @property
    def asks_approval(self) -> bool:
        """It says what a server of MCP is to be asked once somebody approves; one that does not say it all is none."""
        says = (self.item.get(name) for name in ("id", "server_label", "name", "arguments"))
        return self.type == APPROVAL_REQUEST and all(isinstance(each, str) for each in says)

    @property
    def answers(self) -> str:
        """The id of the request that was approved for this call; empty: none was."""
        return str(self.item.get("approval_request_id") or "")

    def id_in(self, message_id: str, *, number: int = 0) -> str:
        """By which callers know it; of a message that is not kept, and has no id, its own.

        Args:
            number: of the parts before it.
        """
        if not message_id:
            return self.id
        prefix = ID_PREFIXES.get(self.type, OTHER_PREFIX)
        return f"{prefix}_{short_digest(self.id or str(number))}_{message_id}"


class Approval(Record, frozen=True, kw_only=True, tag="mcp_approval_response"):
    """What somebody decides of a call that waits for an approval: the provider makes it, or does not."""

    approval_request_id: Annotated[str, Meta(description="The id of the item that asks for it.")]
    approve: Annotated[bool, Meta(description="Whether the call is to be made.")]
    reason: Annotated[str | UnsetType, Meta(description="Why, in any words; left out where nobody says.")] = UNSET


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


def _things(named: object, place: str) -> Sequence[NamedThing]:
    names = named if isinstance(named, list | tuple) else [named] if named else []
    return [NamedThing(str(name), place) for name in names]


def short_digest(provider_id: str) -> str:
    """What stands for an id in which providers and clients write what they like."""
    return sha256(provider_id.encode(errors="surrogatepass")).hexdigest()[:12]


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
