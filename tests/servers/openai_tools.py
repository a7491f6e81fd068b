"""Tools that run on the provider's servers: what a reply says that they did, and the events of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tests.servers.openai_script import Json

KINDS = {
    "web_search_call": ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
    "file_search_call": ("file_search",),
    "code_interpreter_call": ("code_interpreter",),
    "mcp_call": ("mcp",),
    "mcp_list_tools": ("mcp",),
}
RESULT_TOKENS = 500  # which each call adds to what the model reads
# What is told of a call only where the request includes it.
INCLUDED = {"file_search_call": "results", "code_interpreter_call": "outputs"}
STEPS = {
    "web_search_call": ("in_progress", "searching"),
    "file_search_call": ("in_progress", "searching"),
    "code_interpreter_call": ("in_progress", "interpreting"),
    "mcp_call": ("in_progress",),
    "mcp_list_tools": ("in_progress",),
}
SEARCH: Json = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
SEARCH |= {"action": {"type": "search", "query": "rain in Oslo", "queries": ["rain in Oslo"]}}


def played(items: Sequence[Json], body: Json) -> tuple[Json, ...]:
    """The items that a reply to this request has: only calls of what it offers, and no more than it lets.

    Raises:
        AssertionError: the script has a call of a tool that is not offered.
    """
    offered = {tool["type"] for tool in body.get("tools") or []}
    room = body.get("max_tool_calls")
    kept: list[Json] = []
    for item in items:
        assert offered & set(KINDS[item["type"]]), f"{item['type']} was scripted, and the request offers {offered}"
        calls = sum(each["type"].endswith("_call") for each in kept)
        if item["type"].endswith("_call") and room is not None and calls >= room:
            continue  # further attempts of the model are ignored
        kept.append(_as_included(item, body.get("include") or []))
    return tuple(kept)


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
    known = {"type": kind, "id": item["id"], "status": "in_progress"}
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
    yield event(f"response.{kind}.completed", **where)
    yield event("response.output_item.done", output_index=index, item=item)
