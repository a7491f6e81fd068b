"""Functions, their calls and their results, as OpenAI's two APIs write them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain, count
from typing import Final

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from textllm_adapters.openai.decoding import object_in, word
from textllm_core.records.messages import Message, TurnOptions
from textllm_core.records.model import ModelRequest
from textllm_core.records.tools import JsonSchemaFormat, NamedFunction, ToolCall
from textllm_core.texts import well_formed

_NO_LETTER: Final = re.compile(r"[^A-Za-z0-9_-]")
_MOST_LETTERS: Final = 64  # of a name and of an id, as OpenAI's description has it
_MOST_BESIDE: Final = 16_384  # characters; Gemini's signatures of thoughts have some hundred, at times some thousand
_ANY_OBJECT: Final = {"type": "json_object"}
_NO_PARAMETERS: Final = {"type": "object", "properties": {}, "additionalProperties": False}


def responses_options(request: ModelRequest, *, sums_up: bool) -> dict[str, object]:
    """What a request lets the model do, as the Responses API has it; nothing where it asks for nothing.

    Args:
        sums_up: the server sums up what its models think, where it is asked to.
    """
    choice, shape, effort = request.tool_choice, request.response_format, request.reasoning_effort
    verbosity = request.sampling.verbosity if request.sampling is not None else None
    form = {"type": "json_schema"} | _schema_of(shape) if isinstance(shape, JsonSchemaFormat) else _ANY_OBJECT
    # This API demands parameters and strict, though either may be null.
    tools = [
        {"type": "function", "name": tool.name, "parameters": tool.parameters or _NO_PARAMETERS, "strict": tool.strict}
        | _if_any(description=tool.description)
        for tool in request.tools
    ]
    return _if_any(
        tools=tools or None,
        tool_choice={"type": "function", "name": choice.name} if isinstance(choice, NamedFunction) else choice,
        parallel_tool_calls=request.parallel_tool_calls,
        text=_if_any(format=None if shape is None else form, verbosity=verbosity) or None,
        reasoning=_if_any(effort=effort, summary=request.reasoning_summary if sums_up else None) or None,
    )


def chat_options(request: ModelRequest | TurnOptions) -> dict[str, object]:
    """The same as the Chat Completions API has it, and `/chat`."""
    choice, shape = request.tool_choice, request.response_format
    form: Mapping[str, object] = _ANY_OBJECT
    if isinstance(shape, JsonSchemaFormat):
        form = {"type": "json_schema", "json_schema": _schema_of(shape)}
    functions = [
        {"name": tool.name} | _if_any(description=tool.description, parameters=tool.parameters, strict=tool.strict)
        for tool in request.tools
    ]
    return _if_any(
        tools=[{"type": "function", "function": function} for function in functions] or None,
        tool_choice={"type": "function", "function": {"name": choice.name}}
        if isinstance(choice, NamedFunction)
        else choice,
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=None if shape is None else form,
        reasoning_effort=request.reasoning_effort,
    )


def _schema_of(shape: JsonSchemaFormat) -> dict[str, object]:
    return {"name": shape.name, "schema": shape.schema} | _if_any(description=shape.description, strict=shape.strict)


def _if_any(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def call_item(call: ToolCall) -> dict[str, object]:
    """A call as an item of the Responses and the Conversations API."""
    return {"type": "function_call", "call_id": _short(call.call_id), **_sendable(call)}


def result_items(message: Message) -> list[dict[str, object]]:
    """The results in a message, likewise."""
    return [
        {"type": "function_call_output", "call_id": _short(result.call_id), "output": result.output}
        for result in message.tool_results
    ]


def chat_calls(message: Message, *, openai: bool = False) -> list[dict[str, object]]:
    """The calls of a message, as the Chat Completions API has them; OpenAI's own takes nothing beside them."""
    return [
        {"id": call.call_id, "type": "function", "function": _sendable(call)} | ({} if openai else _beside(call))
        for call in message.tool_calls
    ]


def shorten_call_ids(turns: Sequence[dict[str, object]]) -> None:
    """Give calls and their results ids of nine letters and digits, as Mistral's models take no others."""
    for turn in turns:
        if isinstance(call_id := turn.get("tool_call_id"), str):
            turn["tool_call_id"] = _of_nine(call_id)
        calls = turn.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            call["id"] = _of_nine(call["id"])


def _of_nine(call_id: str) -> str:
    return (
        call_id
        if re.fullmatch(r"[A-Za-z0-9]{9}", call_id)
        else sha256(call_id.encode(errors="replace")).hexdigest()[:9]
    )


def _beside(call: ToolCall) -> dict[str, object]:
    said = None if call.beside is UNSET or len(call.beside) > _MOST_BESIDE else object_in(call.beside)
    return {} if said is None else {"extra_content": said}  # an imported one may be anything


def _sendable(call: ToolCall) -> dict[str, object]:
    """What the model wrote, as APIs take it back: a name of letters they know, and arguments that are an object."""
    name = _NO_LETTER.sub("_", call.name)[:_MOST_LETTERS]
    is_object = object_in(call.arguments) is not None
    arguments = call.arguments if is_object else msgspec.json.encode({"input": call.arguments}).decode()
    return {"name": name, "arguments": arguments}


def _short(call_id: str) -> str:
    """An id that OpenAI takes, for a call and for its result."""
    return call_id if len(call_id) <= _MOST_LETTERS else _digest(call_id)


def _digest(call_id: str) -> str:
    return f"call_{sha256(call_id.encode('utf-8', 'replace')).hexdigest()[:24]}"


def calls_in(output: object) -> list[ToolCall]:
    """The calls in a response's output; one that is incomplete is none."""
    calls = []
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "function_call" and item.get("status") != "incomplete":
            call = _call(item.get("call_id") or item.get("id"), item.get("name"), item.get("arguments"))
            if call is not None:
                calls.append(call)
    return _told_apart(calls)


def calls_any(output: object) -> bool:
    """Whether a response's output has a call of a function, whole or not."""
    items = output if isinstance(output, list) else ()
    return any(isinstance(item, dict) and item.get("type") == "function_call" for item in items)


def _call(call_id: object, name: object, arguments: object, *, beside: str = "") -> ToolCall | None:
    """The call; None where it has no name, by which anybody could run it."""
    if not isinstance(name, str) or not name:
        return None
    written = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    otherwise = _digest(call_id if isinstance(call_id, str) and call_id else name)
    return ToolCall(
        call_id=word(call_id, otherwise),
        name=well_formed(name),
        arguments=well_formed(written or "{}"),
        beside=beside if 0 < len(beside) <= _MOST_BESIDE else UNSET,
    )


def _told_apart(calls: Iterable[ToolCall | None]) -> list[ToolCall]:
    """Calls whose ids differ, by a number behind those that do not."""
    found: dict[str, ToolCall] = {}
    for call in calls:
        if call is not None:
            ids = chain(
                [call.call_id], (f"{call.call_id[:190]}_{n}" for n in count(2))
            )  # none has more than 200 letters
            call_id = next(each for each in ids if each not in found)
            found[call_id] = replace(call, call_id=call_id)
    return list(found.values())


class CallsInPieces:
    """The calls of a chat completion, which come in pieces; some servers number none of them, or send each whole."""

    def __init__(self) -> None:
        self._calls: dict[object, _Pieces] = {}
        self._last: object = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, pieces: object) -> int:
        """Hear the pieces of a chunk; how many characters they have."""
        characters = 0
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                characters += self._take(piece)
        return characters

    def _take(self, piece: Mapping[str, object]) -> int:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name, arguments = piece.get("id"), function.get("name"), function.get("arguments")
        place = piece.get("index")
        if not isinstance(place, int):
            place = self._last if not call_id and self._last is not None else f"{len(self._calls)} of no number"
        known = self._calls.get(place)
        if known is not None and call_id and known.call_id and call_id != known.call_id:  # numbered alike
            place, known = f"{place} {call_id}", None
        if known is not None and not call_id and arguments and name == known.name and known.is_whole:
            place, known = f"{place} again {len(self._calls)}", None  # what is whole already was another
        if known is None:
            known = self._calls[place] = _Pieces()
        self._last = place
        if isinstance(beside := piece.get("extra_content"), dict):
            known.beside = well_formed(json.dumps(beside, ensure_ascii=False))
        known.call_id = known.call_id or (call_id if isinstance(call_id, str) else "")
        if isinstance(name, str) and name != known.name:
            known.name += name
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if not isinstance(arguments, str):
            return 0
        known.arguments.append(arguments)
        return len(arguments)

    def all(self) -> Sequence[ToolCall]:
        """The calls, in the order in which they began."""
        found = (
            _call(each.call_id or f"call_{place}", each.name, "".join(each.arguments), beside=each.beside)
            for place, each in enumerate(self._calls.values())
        )
        return _told_apart(found)


class _Pieces(Struct):
    beside: str = ""
    call_id: str = ""
    name: str = ""
    arguments: list[str] = msgspec.field(default_factory=list)  # thousands of them, put together once

    @property
    def is_whole(self) -> bool:
        """Its arguments are an object by now. It is read where it may be one: some say the name with each piece."""
        return (
            bool(self.arguments)
            and self.arguments[-1].rstrip()[-1:] == "}"
            and bool(object_in("".join(self.arguments)))
        )
