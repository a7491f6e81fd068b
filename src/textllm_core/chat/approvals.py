"""Calls of MCP servers that somebody is to approve: what answers what, and which of it a provider is told.

OpenAI refuses a request for an approval that is not answered, and an answer whose request is not in the same input. So
both go there side by side, for as long as the reply to one question is not complete, and are left out of all that is
older.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from textllm_core.errors import InvalidRequestError
from textllm_core.records.hosted import APPROVAL_REQUEST, MCP_ITEMS, Approval, HostedItem, HostedTools
from textllm_core.records.messages import Message
from textllm_core.records.parts import ContentPart, approvals_asked
from textllm_core.records.tools import ToolResult
from textllm_core.texts import listing, well_formed

_UNDECIDED: Final = "Nobody has decided about this call."
_SERVER_AGAIN: Final = "must have the mcp server again, whose calls mcp_approval_response is of"


def approvals_in(content: Sequence[ContentPart]) -> Sequence[Approval]:
    """What is decided there."""
    return [part for part in content if isinstance(part, Approval)]


def answers_calls(content: Sequence[ContentPart]) -> bool:
    """Whether it has what came of calls, or decides about some."""
    return any(isinstance(part, ToolResult | Approval) for part in content)


def is_of_server(part: ContentPart) -> bool:
    """Whether it says what an MCP server did, or was to do, or what was decided of that."""
    return isinstance(part, Approval) or (isinstance(part, HostedItem) and part.type in MCP_ITEMS)


def check_approvals(
    content: Sequence[ContentPart], hosted: HostedTools | None, *, asked: Sequence[str], field: str = "input"
) -> None:
    """
    Args:
        asked: the ids of what waits for an answer, and may be others beside.
    Raises:
        InvalidRequestError: it decides about what nobody waits for, twice about the same, or does not bring the server
            that is to be asked.
    """
    approvals = approvals_in(content)
    if not approvals:
        return
    ids = [approval.approval_request_id for approval in approvals]
    if any(text != well_formed(text) for each in approvals for text in (each.approval_request_id, each.reason or "")):
        raise InvalidRequestError.of(field, "has half of a surrogate pair, which is no character")
    if not {*ids} <= {*asked}:
        waiting = listing(waits_for_approval(asked)) or "none"
        raise InvalidRequestError.of(
            field,
            "has an mcp_approval_response to what no mcp_approval_request of the last reply asks for, or to what was "
            f"answered before; it waits for {waiting}",
        )
    if len({*ids}) < len(ids):
        raise InvalidRequestError.of(field, "has two mcp_approval_response to one mcp_approval_request; send one")
    if hosted is None or "mcp" not in hosted.kinds:
        raise InvalidRequestError.of("tools", _SERVER_AGAIN)


def waits_for_approval(open_calls: Sequence[str]) -> Sequence[str]:
    """Those of the calls that a reply leaves open which wait for an approval, and not for a result."""
    return [call for call in open_calls if call.startswith("mcpr_")]


def renamed(messages: Sequence[Message]) -> list[Message]:
    """Messages that a caller brought along, whose approvals name what they answer as it is called here from now on."""
    names: dict[str, str] = {}
    told: list[Message] = []
    for message in messages:
        requests = [part for part in message.content if isinstance(part, HostedItem) and part.asks_approval]
        names |= {part.id: part.id_in(message.id) for part in requests}
        content = tuple(_naming(part, names) for part in message.content)
        told.append(message if content == message.content else replace(message, content=content))
    return told


def _naming(part: ContentPart, names: Mapping[str, str]) -> ContentPart:
    if isinstance(part, Approval):
        return replace(part, approval_request_id=names.get(part.approval_request_id, part.approval_request_id))
    if isinstance(part, HostedItem) and part.answers in names:
        return HostedItem({**part.item, "approval_request_id": names[part.answers]})
    return part


def with_live_tools(messages: Sequence[Message], hosted: HostedTools | None) -> tuple[Message, ...]:
    """The messages without what tools of the provider's did.

    Where the last one goes on with a question that MCP servers were asked about, all that these did for it stays, with
    an answer to each request for an approval.

    Args:
        messages: oldest first; the last is the new turn.
        hosted: the tools that this turn offers.
    Raises:
        InvalidRequestError: they have not the server of a call that is decided about.
    """
    if not any(isinstance(part, HostedItem | Approval) for message in messages for part in message.content):
        return tuple(messages)
    *before, last = messages
    asks = (at for at, message in enumerate(before) if message.role == "user" and not _only_answers(message))
    question = max(asks, default=-1)
    is_live = (
        hosted is not None
        and "mcp" in hosted.kinds
        and answers_calls(last.content)
        and any(approvals_in(message.content) for message in messages[question + 1 :])
    )
    told: list[Message] = []
    open_requests: dict[str, None] = {}
    over = _untold(before)
    for at, message in enumerate(messages):
        stays = is_live and at > question
        kept = tuple(part for part in message.content if _stays(part, message, over, stays=stays))
        if stays and message.role == "assistant":
            open_requests |= dict.fromkeys(approvals_asked(message.id, kept))
        elif stays and message.role == "user":
            decided = {approval.approval_request_id: approval for approval in approvals_in(kept)}
            others = (part for part in kept if not isinstance(part, Approval))
            kept = (*(decided.get(it) or _undecided(it) for it in open_requests), *others)
            open_requests = {}
        told.append(message if kept == message.content else replace(message, content=kept))
    if is_live:
        _check_servers(told, hosted)
    return tuple(told)


def _check_servers(told: Sequence[Message], hosted: HostedTools | None) -> None:
    """Providers refuse what is asked of a server that the request does not have, and do not say of which."""
    labels = [tool.definition.get("server_label") for tool in hosted.tools] if hosted else []
    parts = (part for message in told for part in message.content if isinstance(part, HostedItem))
    if any(part.asks_approval and part.item["server_label"] not in labels for part in parts):
        raise InvalidRequestError.of("tools", _SERVER_AGAIN)


def open_requests_in(messages: Sequence[Message]) -> Sequence[str]:
    """The ids of what waits for an approval behind the last of the messages."""
    waiting: list[str] = []
    for message in messages:
        if message.role == "user":
            waiting.clear()
        elif message.role == "assistant" and message.status == "completed":
            waiting += approvals_asked(message.id, message.content)
    return waiting


def first_live(messages: Sequence[Message]) -> int | None:
    """Where the first of the messages stands that `with_live_tools` has left something of tools in; None: nowhere."""
    return next((at for at, message in enumerate(messages) if any(map(is_of_server, message.content))), None)


def _untold(messages: Sequence[Message]) -> set[str]:
    """The ids of requests that were approved, of which no call says what came of them: none is to run again."""
    parts = [part for message in messages for part in message.content]
    approved = {part.approval_request_id for part in approvals_in(parts) if part.approve}
    return approved - {part.answers for part in parts if isinstance(part, HostedItem)}


def _undecided(request_id: str) -> Approval:
    return Approval(approval_request_id=request_id, approve=False, reason=_UNDECIDED)


def _only_answers(message: Message) -> bool:
    return bool(message.content) and all(isinstance(part, ToolResult | Approval) for part in message.content)


def _stays(part: ContentPart, message: Message, over: Container[str], *, stays: bool) -> bool:
    if not isinstance(part, HostedItem | Approval):
        return True
    if not stays or not is_of_server(part) or message.status != "completed":
        return False
    if isinstance(part, Approval):
        return part.approval_request_id not in over
    return part.type != APPROVAL_REQUEST or (part.asks_approval and part.id_in(message.id) not in over)
