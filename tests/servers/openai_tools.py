"""Tools that run on the provider's servers: what a reply says that they did, and the events of it."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tests.servers.openai_script import ApiError, Json

KINDS = {
    "web_search_call": ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
    "file_search_call": ("file_search",),
    "code_interpreter_call": ("code_interpreter",),
    "mcp_call": ("mcp",),
    "mcp_list_tools": ("mcp",),
    "mcp_approval_request": ("mcp",),
}
REQUEST, APPROVAL = "mcp_approval_request", "mcp_approval_response"
RESULT_TOKENS = 500  # which each call adds to what the model reads
# What is told of a call only where the request includes it.
INCLUDED = {"file_search_call": "results", "code_interpreter_call": "outputs"}
STEPS = {
    "web_search_call": ("in_progress", "searching"),
    "file_search_call": ("in_progress", "searching"),
    "code_interpreter_call": ("in_progress", "interpreting"),
    "mcp_call": ("in_progress",),
    "mcp_list_tools": ("in_progress",),
    REQUEST: (),
}
SEARCH: Json = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
SEARCH |= {"action": {"type": "search", "query": "rain in Oslo", "queries": ["rain in Oslo"]}}


def played(items: Sequence[Json], body: Json, approved: Sequence[Json] = ()) -> tuple[Json, ...]:
    """The items that a reply to this request has: only calls of what it offers, and no more than it lets.

    A call that is to be approved is asked for, and nothing comes behind it.

    Args:
        approved: calls that were, and now run.
    Raises:
        AssertionError: the script has a call of a tool that is not offered.
    """
    offered = {tool["type"] for tool in body.get("tools") or []}
    waiting = next((n for n, item in enumerate(items) if _waits(item, body)), None)
    items = (*approved, *items) if waiting is None else (*approved, *items[:waiting], _request(items[waiting]))
    room = body.get("max_tool_calls")
    kept: list[Json] = []
    for item in items:
        assert offered & set(KINDS[item["type"]]), f"{item['type']} was scripted, and the request offers {offered}"
        calls = sum(each["type"].endswith("_call") for each in kept)
        if item["type"].endswith("_call") and room is not None and calls >= room:
            continue  # further attempts of the model are ignored
        kept.append(_as_included(item, body.get("include") or []))
    return tuple(kept)


def asks(items: Sequence[Json]) -> bool:
    """Whether a reply ends with what is to be approved."""
    return any(item["type"] == REQUEST for item in items)


def _waits(item: Json, body: Json) -> bool:
    if item["type"] != "mcp_call":
        return False
    servers = [tool for tool in body.get("tools") or [] if tool.get("server_label") == item["server_label"]]
    return any(_needs_approval(server.get("require_approval") or "always", item["name"]) for server in servers)


def _needs_approval(rule: str | Json, name: str) -> bool:
    if isinstance(rule, str):
        return rule == "always"
    always, never = (set((rule.get(each) or {}).get("tool_names") or ()) for each in ("always", "never"))
    return name in always or (name not in never and "always" not in rule)


def _request(call: Json) -> Json:
    told = {name: call[name] for name in ("server_label", "name", "arguments")}
    return {"id": f"mcpr_{secrets.token_hex(24)}", "type": REQUEST, **told}


def approved_calls(history: Sequence[Json], given: Sequence[Json], body: Json, *, in_conversation: bool) -> list[Json]:
    """The calls that run now, since this request approves them.

    Args:
        history: what was said before, there; given: the items of the request.
        in_conversation: it names one; then OpenAI knows no request for an approval but those of the same input, as is
            told at https://community.openai.com/t/1365706.
    Raises:
        ApiError: one is not answered, or what answers it stands alone, or its server is not there.
    """
    everything = (*history, *given)
    requests = {item["id"]: item for item in everything if item["type"] == REQUEST}
    answers = {item["approval_request_id"]: item for item in everything if item["type"] == APPROVAL}
    passed = {item["id"] for item in (given if in_conversation else everything) if item["type"] == REQUEST}
    if alone := [name for name in answers if name not in passed]:
        told = "The following MCP approval requests have approval responses but weren't passed as input"
        raise ApiError(400, f"{told}: {', '.join(alone)}", param="input")
    if undecided := [name for name in requests if name not in answers]:
        told = "The following MCP approval requests do not have an approval"
        raise ApiError(400, f"{told}: {', '.join(undecided)}", param="input")
    done = {item.get("approval_request_id") for item in everything if item["type"] == "mcp_call"}
    now = [requests[name] for name, answer in answers.items() if answer["approve"] and name not in done]
    servers = {tool.get("server_label") for tool in body.get("tools") or []}
    if missing := [item["server_label"] for item in now if item["server_label"] not in servers]:
        raise ApiError(400, f"MCP server '{missing[0]}' not found.", param="tools")
    return [
        {
            **item,
            "id": f"mcp_{secrets.token_hex(24)}",
            "type": "mcp_call",
            "status": "completed",
            "approval_request_id": item["id"],
            "output": f"{item['name']} ran.",
            "error": None,
        }
        for item in now
    ]


def _as_included(item: Json, include: Iterable[str]) -> Json:
    field = INCLUDED.get(item["type"])
    return item if field is None or f"{item['type']}.{field}" in include else {**item, field: None}


def counted(items: Iterable[Json]) -> Mapping[str, int]:
    """How many calls the items are, by the tools that the operator prices."""
    return dict(Counter(KINDS[item["type"]][0] for item in items if item["type"] in KINDS and "_call" in item["type"]))


def tokens_read(prompt: int, calls: int) -> int:
    """What the model reads in all: it is asked again after each call, with all that was there before."""
    return (calls + 1) * prompt + RESULT_TOKENS * calls * (calls + 1) // 2


def begun(item: Json, index: int, event: Callable[..., bytes]) -> Iterable[bytes]:
    """The events of a tool that begins."""
    kind, where = item["type"], {"output_index": index, "item_id": item["id"]}
    known = {"type": kind, "id": item["id"], **({} if kind == REQUEST else {"status": "in_progress"})}
    yield event("response.output_item.added", output_index=index, item={**item, **known} if "mcp" in kind else known)
    for step in STEPS[kind]:
        yield event(f"response.{kind}.{step}", **where)


def done(item: Json, index: int, event: Callable[..., bytes]) -> Iterable[bytes]:
    """Those of a tool that has ended."""
    kind, where = item["type"], {"output_index": index, "item_id": item["id"]}
    if kind == "code_interpreter_call":
        yield event("response.code_interpreter_call_code.done", **where, code=item["code"])
    if kind == "mcp_call":
        yield event("response.mcp_call_arguments.done", **where, arguments=item["arguments"])
    if kind != REQUEST:
        yield event(f"response.{kind}.completed", **where)
    yield event("response.output_item.done", output_index=index, item=item)
