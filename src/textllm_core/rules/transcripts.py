"""The rule of transcripts: when a turn stands in one already. No storage."""

from collections.abc import Sequence
from itertools import takewhile

from textllm_core.records.messages import Message
from textllm_core.records.parts import words_of


def ends_with(newest: Sequence[Message], turn: Sequence[Message]) -> bool:
    """Whether a turn is the last thing that stands in a transcript, by what the user says in it and by its reply.

    What is known of a reply that broke off may be its beginning alone, and what stands there may be no more than that:
    one of the two begins the other. A turn without a reply is told by the user's words alone.

    Args:
        newest: the last messages of the transcript, oldest first; at least the user's last one and all behind it.
        turn: what the user says, and the reply, if there are any words of it.
    """
    asked = [message for message in turn if message.role == "user"]
    there = [message for message in newest if message.role == "user"]
    if not asked or not there or _words(asked[-1]) != _words(there[-1]):
        return False
    known, kept = _reply(turn), _reply(newest)
    return not known or (bool(kept) and (known.startswith(kept) or kept.startswith(known)))


def _reply(messages: Sequence[Message]) -> str:
    """What the model says behind the user's last message."""
    replies = list(takewhile(lambda message: message.role != "user", reversed(messages)))
    return "".join(_words(message) for message in reversed(replies) if message.role == "assistant")


def _words(message: Message) -> str:
    """All that it says in words, and the text of files as the model is sent it, however that is cut in parts."""
    return "".join(words for part in message.content if (words := words_of(part)) is not None)
