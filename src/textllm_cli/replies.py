"""A reply as it is printed while it comes, and what scripts learn of its end."""

from enum import Enum
from typing import Final

import typer

from textllm_cli.render import Screen
from textllm_core.problem_details import problem_of_error
from textllm_core.records.hosted import ToolStep
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta
from textllm_core.records.thoughts import Thought, ThoughtDelta

CUT_SHORT: Final = 7
REFUSED: Final = 4


class Shown(Enum):
    """What is printed of a reply: its text as it comes, nothing before it is whole, or each event as JSON."""

    TEXT = "text"
    WHOLE = "whole"
    EVENTS = "events"


def print_event(screen: Screen, event: ReplyEvent, shown: Shown) -> None:
    """One event, as it comes."""
    if isinstance(event, ToolStep | ThoughtDelta | Thought):  # of a reply that was asked for elsewhere
        return
    if shown is Shown.EVENTS:
        screen.json(_as_record(event))
    elif shown is Shown.TEXT and isinstance(event, TextDelta):
        screen.delta(event.text)


def _as_record(event: ReplyStarted | TextDelta | ReplyCompleted | ReplyFailed) -> dict[str, object]:
    """The event as the server's streams have it: its name, and its data."""
    match event:
        case ReplyStarted():
            ids = ("response_id", "conversation_id", "user_id", "session_id", "model")
            return {"event": "reply.started", "data": {name: getattr(event, name) for name in ids}}
        case TextDelta(text):
            return {"event": "reply.delta", "data": {"text": text}}
        case ReplyCompleted(reply):
            return {"event": "reply.completed", "data": reply}
        case ReplyFailed(_, error):
            return {"event": "reply.failed", "data": problem_of_error(error)}


def say_how_it_ended(reply: Reply, screen: Screen) -> int:
    """Tell of a reply that is not all that was asked for; the exit code that belongs to it."""
    match reply.finish_reason:
        case "length":
            screen.warn(
                f"the answer was cut short after {reply.usage.output} tokens: raise --max-tokens, or the setting "
                "max_output_tokens; where little is left of the day's budget, cost_limit_per_session"
            )
            return CUT_SHORT
        case "refusal":
            screen.warn("the model refused to answer")
            return REFUSED
    return 0


def finish(reply: Reply, screen: Screen) -> None:
    """End a command with what its reply came to.

    Raises:
        typer.Exit: with a code of failure, for a reply that is not all that was asked for.
    """
    code = say_how_it_ended(reply, screen)
    if code:
        raise typer.Exit(code)
