"""Calls of functions and their results: what a turn may ask for, and that each call in a history has its result."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, get_args

import msgspec
from msgspec.structs import replace

from textllm_core.chat.approvals import approvals_in, waits_for_approval
from textllm_core.errors import InvalidRequestError
from textllm_core.records.hosted import Approval
from textllm_core.records.messages import Message, TurnOptions
from textllm_core.records.parts import ContentPart, InputText
from textllm_core.records.tools import (
    MAX_NAME_CHARS,
    MAX_TOOLS,
    JsonSchemaFormat,
    NamedFunction,
    ReasoningEffort,
    ReasoningSummary,
    ToolCall,
    ToolMode,
    ToolResult,
)
from textllm_core.texts import well_formed
from textllm_core.usage import estimated_tokens
from textllm_core.wire import to_json

_NAME: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_CHARS}}}")
_MODES: Final[tuple[str, ...]] = get_args(ToolMode)
_EFFORTS: Final[tuple[str, ...]] = get_args(ReasoningEffort)
_SUMMARIES: Final[tuple[str, ...]] = get_args(ReasoningSummary)
_NAMED: Final = f"must have 1 to {MAX_NAME_CHARS} letters, digits, _ and -"
_NO_RESULT: Final = "There is no result: this call was not run."
_TOKENS_BESIDE: Final = 32  # which a provider writes around a function, or a result, for its model


def check_tools(options: TurnOptions) -> None:
    """Refuse functions and formats that no provider takes.

    Raises:
        InvalidRequestError
    """
    names, hosted = [tool.name for tool in options.tools], options.hosted
    if len(names) > MAX_TOOLS:
        raise InvalidRequestError.of("tools", f"may be {MAX_TOOLS} at most")
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidRequestError.of("tools", f"the name of a function {_NAMED}")
    if len(set(names)) < len(names):
        raise InvalidRequestError.of("tools", "must have different names")
    if hosted is not None:
        if not hosted.tools or len(names) + len(hosted.tools) > MAX_TOOLS:
            raise InvalidRequestError.of("tools", f"may be {MAX_TOOLS} at most, and one at least")
        if hosted.most_calls is not None and hosted.most_calls < 1:
            raise InvalidRequestError.of("max_tool_calls", "must be at least 1")
    if not names and hosted is None and (options.tool_choice is not None or options.parallel_tool_calls is not None):
        field = "parallel_tool_calls" if options.tool_choice is None else "tool_choice"
        raise InvalidRequestError.of(field, "needs tools beside it")
    if isinstance(options.tool_choice, NamedFunction) and options.tool_choice.name not in names:
        raise InvalidRequestError.of("tool_choice", "names a function that is not among the tools")
    # A caller in Python may say anything; over REST the shape of the body is looked at before.
    for field, said, may_be in (
        ("tool_choice", options.tool_choice, _MODES),
        ("reasoning_effort", options.reasoning_effort, _EFFORTS),
        ("reasoning_summary", options.reasoning_summary, _SUMMARIES),
    ):
        if isinstance(said, str) and said not in may_be:
            raise InvalidRequestError.of(field, f"must be one of {', '.join(may_be)}")
    shape = options.response_format
    if isinstance(shape, JsonSchemaFormat) and not _NAME.fullmatch(shape.name):
        raise InvalidRequestError.of("response_format", f"the name of a schema {_NAMED}")
    offered = (options.tools, hosted) if names or hosted is not None else None
    for field, value in (("tools", offered), ("response_format", shape)):
        if value is None:
            continue
        try:
            json.dumps(msgspec.to_builtins(value), allow_nan=False, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidRequestError.of(field, "has half of a surrogate pair, which is no character") from None
        except (TypeError, ValueError, RecursionError):  # which a caller in Python may bring along
            raise InvalidRequestError.of(field, "has what JSON cannot hold") from None


def check_record(options: TurnOptions, *, keeps_messages: bool) -> None:
    """Functions need a record of our own: after a reply that broke off it alone says which calls have their results.

    So do calls that wait for approvals.
    Raises:
        InvalidRequestError: there is none.
    """
    if keeps_messages:
        return
    if options.tools:
        raise InvalidRequestError.of("tools", "need a copy of the messages here (the setting store_messages)")
    for tool in options.hosted.tools if options.hosted else ():
        if tool.may_ask:
            raise InvalidRequestError.of(
                f"{tool.place}.require_approval",
                "must be never: approvals need a copy of the messages here (the setting store_messages)",
            )


def options_bound(options: TurnOptions) -> int:
    """An upper bound of the tokens that functions and formats make."""
    if not options.tools and options.response_format is None and options.hosted is None:
        return 0
    said = (options.tools, options.response_format, options.hosted)
    hosted = options.hosted.tools if options.hosted else ()
    return len(msgspec.json.encode(said)) + _TOKENS_BESIDE * (len(options.tools) + len(hosted) + 1)


def results_bound(content: Sequence[ContentPart]) -> int:
    """An upper bound of the tokens that the results among the parts make, and the approvals."""
    results = [part for part in content if isinstance(part, ToolResult)]
    approvals = sum(len(to_json(part)) + _TOKENS_BESIDE for part in content if isinstance(part, Approval))
    return approvals + sum(len(part.output.encode()) + len(part.call_id.encode()) + _TOKENS_BESIDE for part in results)


def results_estimate(content: Sequence[ContentPart]) -> int:
    """About how many tokens the results among the parts make."""
    return estimated_tokens(*(part.output for part in content if isinstance(part, ToolResult)))


def check_results(results: Sequence[ToolResult], *, field: str = "tool_results") -> None:
    """
    Raises:
        InvalidRequestError: one has half of a character, or two are of the same call.
    """
    if not results:
        return
    if any(text != well_formed(text) for result in results for text in (result.call_id, result.output)):
        raise InvalidRequestError.of(field, "has half of a surrogate pair, which is no character")
    check_ids(results, field=field)


def check_ids(content: Sequence[object], *, field: str) -> None:
    """Refuse a message that no provider takes.

    Raises:
        InvalidRequestError: two of its calls, or two of its results, have the same id.
    """
    for kind, wrong, remedy in (
        (ToolCall, "two calls with the id", "give each call an id of its own"),
        (ToolResult, "two results of the call", "send one result for each call"),
    ):
        counts = Counter(part.call_id for part in content if isinstance(part, kind))
        twice = next((call_id for call_id, count in counts.items() if count > 1), None)
        if twice is not None:
            raise InvalidRequestError.of(field, f"has {wrong} {twice[:MAX_NAME_CHARS]}; {remedy}")


def answering(content: Sequence[ContentPart], open_calls: Sequence[str]) -> tuple[ContentPart, ...]:
    """The content of a turn, with a word for each call of the last reply that it brings no result of.

    Raises:
        InvalidRequestError: it has the result of a call that nobody waits for.
    """
    approved = waits_for_approval(open_calls)
    open_calls = [call for call in open_calls if call not in approved]
    given = {part.call_id for part in content if isinstance(part, ToolResult)}
    if not given <= {*open_calls}:
        waiting = ", ".join(open_calls) or "no call at all"
        raise InvalidRequestError.of(
            "tool_results", f"has the result of a call that the last reply did not ask for; it waits for {waiting}"
        )
    missing = (ToolResult(call_id=call, output=_NO_RESULT) for call in open_calls if call not in given)
    return (*missing, *content)


def told_again(content: Sequence[ContentPart], said: Sequence[Message]) -> tuple[ContentPart, ...] | None:
    """The content of a turn that brings results once more, as words; None where it is no such turn.

    The reply to the first ones broke off, and the turn was kept: no provider takes the result of a call twice.

    Args:
        said: the last two messages of its conversation.
    """
    if len(said) != 2 or said[1].status != "incomplete":
        return None
    known = {result.call_id for result in said[0].tool_results}
    if approvals_in(content) or not {part.call_id for part in content if isinstance(part, ToolResult)} <= known:
        return None
    return tuple(
        InputText(f"Once more, the result of the call {part.call_id}: {part.output}\n")
        if isinstance(part, ToolResult)
        else part
        for part in content
    )


def paired(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, each result behind its call and each call with its result, as providers demand it.

    Those of the last message stay open. A history that was cut may begin with a result, whose call nobody sees. What
    instructs the model between calls and their results goes behind these, and before all else that the user says.
    """
    whole: list[Message] = []
    between: list[Message] = []
    open_calls: dict[str, None] = {}
    for message in messages:
        content = message.content
        if message.role == "user":
            known = tuple(part for part in content if not isinstance(part, ToolResult) or part.call_id in open_calls)
            content, open_calls = answering(known, tuple(open_calls)), {}
            if between:
                results = tuple(part for part in content if isinstance(part, ToolResult))
                content = tuple(part for part in content if not isinstance(part, ToolResult))
                whole += [replace(message, content=results), *between]
                between.clear()
        elif message.role == "assistant":
            if open_calls:
                whole[-1] = _without_calls(whole[-1])
            whole += between
            between.clear()
            open_calls = dict.fromkeys(call.call_id for call in message.tool_calls)
        elif open_calls:
            between.append(message)
            continue
        whole.append(message if content == message.content else replace(message, content=content))
    return tuple(message for message in (*whole, *between) if message.content)


def _without_calls(message: Message) -> Message:
    return replace(message, content=tuple(part for part in message.content if not isinstance(part, ToolCall)))
