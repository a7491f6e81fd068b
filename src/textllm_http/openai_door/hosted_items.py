"""What tools on the provider's own servers did, as items and events of OpenAI's API."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from textllm_core.records.hosted import APPROVAL_REQUEST, ID_PREFIXES, OTHER_PREFIX, Approval, HostedItem

Item = dict[str, Any]
Event: TypeAlias = Callable[..., bytes]
APPROVAL_PREFIX: Final = "mcpa"
PREFIXES: Final = (*ID_PREFIXES.values(), OTHER_PREFIX, APPROVAL_PREFIX)
# What items have at least; providers leave out what they do not know yet, or never say.
_WHOLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "web_search_call": {"status": "completed", "action": {"type": "search", "query": ""}},
    "file_search_call": {"status": "completed", "queries": []},
    "code_interpreter_call": {"status": "completed", "container_id": "", "code": None, "outputs": None},
    "mcp_call": {"server_label": "", "name": "", "arguments": "", "status": "completed"},
    "mcp_list_tools": {"server_label": "", "tools": []},
    APPROVAL_REQUEST: {"server_label": "", "name": "", "arguments": ""},
}
_BEGUN: Final[Mapping[str, Mapping[str, Any]]] = {
    "web_search_call": {"status": "in_progress"},
    "file_search_call": {"status": "in_progress", "results": None},
    "code_interpreter_call": {"status": "in_progress", "code": "", "outputs": []},
    "mcp_call": {"status": "in_progress", "arguments": "", "output": None},
    "mcp_list_tools": {"tools": []},
    APPROVAL_REQUEST: {},
}
# Each by `response.` and the type of its item.
_WORKS: Final[Mapping[str, Sequence[str]]] = {
    "web_search_call": ("in_progress", "searching"),
    "file_search_call": ("in_progress", "searching"),
    "code_interpreter_call": ("in_progress",),
    "mcp_call": ("in_progress",),
    "mcp_list_tools": ("in_progress",),
    APPROVAL_REQUEST: (),
}


def item_of_hosted(item: HostedItem, item_id: str) -> Item:
    """What a tool did."""
    told = {name: value for name, value in item.item.items() if value is not None}
    return {**_WHOLE.get(item.type, {}), **told, "type": item.type, "id": item_id}


def item_of_approval(approval: Approval, item_id: str) -> Item:
    """What was decided of a call."""
    told = {"approval_request_id": approval.approval_request_id, "approve": approval.approve}
    return {"id": item_id, "type": "mcp_approval_response", **told, "reason": approval.reason or None}


def begun(item: Item, index: int, event: Event) -> bytes:
    """The events of a tool that begins."""
    kind, where = item["type"], {"item_id": item["id"], "output_index": index}
    told = event("response.output_item.added", output_index=index, item={**item, **_BEGUN[kind]})
    return told + b"".join(event(f"response.{kind}.{each}", **where) for each in _WORKS[kind])


def done(item: Item, index: int, event: Event) -> bytes:
    """Those of a tool that has ended."""
    kind, where = item["type"], {"item_id": item["id"], "output_index": index}
    told = b""
    if kind == "mcp_call":
        told += event("response.mcp_call_arguments.delta", **where, delta=item["arguments"])
        told += event("response.mcp_call_arguments.done", **where, arguments=item["arguments"])
    if kind == "code_interpreter_call":
        code = item["code"] or ""
        told += event("response.code_interpreter_call_code.delta", **where, delta=code)
        told += event("response.code_interpreter_call_code.done", **where, code=code)
        told += event("response.code_interpreter_call.interpreting", **where)
    if kind == APPROVAL_REQUEST:
        return event("response.output_item.done", output_index=index, item=item)
    has_failed = kind.startswith("mcp") and (item.get("status") == "failed" or item.get("error"))
    told += event(f"response.{kind}.{'failed' if has_failed else 'completed'}", **where)
    return told + event("response.output_item.done", output_index=index, item=item)


def cited(annotations: Sequence[Mapping[str, object]], where: Mapping[str, Any], event: Event) -> Iterator[bytes]:
    """The events of what a text cites."""
    for number, annotation in enumerate(annotations):
        yield event("response.output_text.annotation.added", **where, annotation_index=number, annotation=annotation)
