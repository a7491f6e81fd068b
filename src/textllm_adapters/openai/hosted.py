"""Tools that run on the provider's own servers: what is asked of them over the Responses API, and what they did."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from textllm_adapters.openai.decoding import decoded, object_in
from textllm_adapters.openai.http import too_much
from textllm_adapters.openai.reasoning import ENCRYPTED
from textllm_core.records.hosted import APPROVAL_REQUEST, ITEMS, HostedItem, HostedOutput, ToolStep
from textllm_core.records.model import ModelRequest
from textllm_core.texts import well_formed

_ADDED: Final = b"response.output_item.added"
_DONE: Final = b"response.output_item.done"
# Signs of life while a tool runs, such as response.web_search_call.searching.
_AT_WORK: Final = tuple(f"response.{kind}".encode() for kind in ITEMS)
_KINDS: Final = (b"_call", b"mcp_list_tools", APPROVAL_REQUEST.encode())
_MOST_CHARS: Final = 1_000_000  # of one item: fifty results of a search of files have a fifth of that
_MOST_ITEMS: Final = 1_000  # of one reply, of which callers may ask for a hundred calls
_ANNOTATIONS: Final = ("url_citation", "file_citation", "container_file_citation", "file_path")
_PLACES: Final = ("start_index", "end_index", "index")  # in the text of their part


class _Event(Struct):
    item: object = None


_event: Final = msgspec.json.Decoder(_Event)


def hosted_options(request: ModelRequest, options: Mapping[str, object], *, encrypts: bool) -> dict[str, object]:
    """The options of a request with the tools that it offers, how often they may be used, and what is told of them.

    Args:
        encrypts: what the model thinks is told, too.
    """
    hosted = request.hosted
    include = [*(hosted.include if hosted else ()), *([ENCRYPTED] if encrypts else ())]
    options = {**options, "include": include} if include else {**options}
    if hosted is None:
        return options
    functions = options.get("tools")
    tools = [*(functions if isinstance(functions, list) else ()), *(tool.definition for tool in hosted.tools)]
    chosen = {} if hosted.choice is None else {"tool_choice": hosted.choice}
    return {**options, "tools": tools, "max_tool_calls": hosted.most_calls, **chosen}


class ToolSteps:
    """What the events of a response tell of tools at work: each item when it begins, and when it is whole."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._done: set[str] = set()

    def of(self, name: bytes, data: bytes) -> ToolStep | None:
        """What an event tells; None: nothing of a tool."""
        if name not in (_ADDED, _DONE) or not any(kind in data for kind in _KINDS):
            return None
        item = hosted_item(decoded(_event, data).item)
        if item is None or not item.id or item.id in self._done:  # it cannot be told from others
            return None
        self._begun.add(item.id)
        if len(self._begun) > _MOST_ITEMS:
            raise too_much()
        if name == _DONE:
            self._done.add(item.id)
        return ToolStep(item, is_done=name == _DONE)


def is_at_work(name: bytes) -> bool:
    """Whether an event is a sign of life of such a tool."""
    return name.startswith(_AT_WORK)


def hosted_item(item: object) -> HostedItem | None:
    """What a tool did, where an item of an output says so; None for any other one."""
    if not isinstance(item, dict) or item.get("type") not in ITEMS:
        return None
    written = well_formed(json.dumps(item, ensure_ascii=False))
    kept = object_in(written) if len(written) <= _MOST_CHARS else _without_results(item)
    return None if kept is None else HostedItem(kept)


def _without_results(item: Mapping[str, Any]) -> dict[str, object]:
    """What is left of an item that is too long to be kept: that there was a call, and how it ended."""
    kept = {name: item.get(name) for name in ("id", "type", "status", "server_label", "name", "container_id")}
    return {name: well_formed(value) for name, value in kept.items() if isinstance(value, str)}


def hosted_in(output: object, text: str) -> HostedOutput:
    """What tools did for a response.

    Args:
        text: of the reply; annotations of any other are left out.
    """
    before: list[HostedItem] = []
    after: list[HostedItem] = []
    annotations: list[Mapping[str, object]] = []
    said = ""
    for each in output if isinstance(output, list) else ():
        if (item := hosted_item(each)) is not None:
            (after if said else before).append(item)
        for part, notes in _texts(each):
            annotations += _moved(notes, len(said))
            said += part
    return HostedOutput(
        before=tuple(before), after=tuple(after), annotations=tuple(annotations) if said == text else ()
    )


def _texts(item: object) -> Iterator[tuple[str, Sequence[object]]]:
    """The texts of a message, each with its annotations."""
    content = item.get("content") if isinstance(item, dict) and item.get("type") == "message" else None
    for part in content if isinstance(content, list) else ():
        match part:
            case {"text": str(text), "annotations": list(notes)}:
                yield text, notes
            case {"text": str(text)} | {"refusal": str(text)}:
                yield text, ()


def _moved(notes: Sequence[object], by: int) -> Iterator[Mapping[str, object]]:
    """Annotations of a text that comes so many characters later among those of the reply."""
    for note in notes:
        if isinstance(note, dict) and note.get("type") in _ANNOTATIONS:
            kept = object_in(well_formed(json.dumps(note, ensure_ascii=False)))
            if kept is not None:
                places = {name: at + by for name in _PLACES if type(at := kept.get(name)) is int}
                yield {**kept, **places}
