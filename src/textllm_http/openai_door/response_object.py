"""A response as OpenAI's API has it: what was asked, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct

from textllm_core.records.messages import ReplyCompleted, ReplyUsage, reply_message_id
from textllm_core.records.response_turns import KeptResponse
from textllm_http.openai_door.client_tools import as_called
from textllm_http.openai_door.items import Item
from textllm_http.openai_door.reasoning import reply_items

_WHOLE: Final = ("stop", "tool_calls", "refusal")
# OpenAI's own words for why a response failed; our code stands beside them.
_CODES: Final = {"rate_limited": "rate_limit_exceeded"}


class Shown(Struct, frozen=True):
    """What is told of a response in each of its events, and whenever it is asked for.

    Args:
        told: `ResponseRequest.told`.
        conversation_id: of the conversation that was named; None: none was.
        named: makes the name of the model that the client can send again.
        returns: as `reply_items` has it.
    """

    response_id: str
    told: Mapping[str, Any]
    conversation_id: str | None
    named: Callable[[str], str]
    returns: bool = False

    @property
    def sums_up(self) -> bool:
        """As `reply_items` has it."""
        return (self.told.get("reasoning") or {}).get("summary") is not None

    def as_of_now(
        self,
        status: str,
        model: str,
        *,
        output: Sequence[Item | Raw] = (),
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        reason: str | None = None,
        completed_at: int | None = None,
    ) -> dict[str, Any]:
        """The whole object.

        Args:
            reason: why it is incomplete; completed_at: seconds since 1970, of one that is completed.
        """
        named = self.conversation_id
        return {
            "id": self.response_id,
            **self.told,
            "status": status,
            "model": self.named(model),
            "conversation": None if named is None else {"id": named},
            "output": output,
            "usage": usage,
            "error": error,
            "incomplete_details": None if reason is None else {"reason": reason},
            "completed_at": completed_at,
        }

    def ended(self, end: ReplyCompleted, output: Sequence[Item | Raw] | None = None) -> dict[str, Any]:
        """The object of a reply that has come to its end; `output`: None: `output_of` it."""
        reply = end.reply
        status, reason = _end_of(reply.finish_reason)
        return self.as_of_now(
            status,
            reply.model,
            output=self.output_of(end) if output is None else output,
            usage=usage_of(reply.usage, reply.cost, estimated=reply.estimated),
            reason=reason,
            completed_at=seconds(end.at) if status == "completed" and end.at is not None else None,
        )

    def output_of(self, end: ReplyCompleted) -> list[Item]:
        """What a reply says, as items; as its message is kept."""
        status = "completed" if end.reply.finish_reason in _WHOLE else "incomplete"
        message_id, sums_up = reply_message_id(self.response_id), self.sums_up
        items = reply_items(message_id, end.parts, status=status, returns=self.returns, sums_up=sums_up)
        return as_called(items, self.told["tools"])


def failure(code: str, message: str) -> dict[str, Any]:
    """Why a response failed."""
    return {"code": _CODES.get(code, "server_error"), "message": message, "type": code}


def usage_of(usage: ReplyUsage, cost: Decimal, *, estimated: bool) -> dict[str, Any]:
    """What a response has used; `cost`, in USD, and whether it is an estimate are ours."""
    written = 0 if usage.cache_write is UNSET else usage.cache_write
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
        "cost": cost,
        **({"estimated": True} if estimated else {}),
    }


def kept_object(
    kept: KeptResponse, naming: Callable[[str], Callable[[str], str]], *, returns: bool = False
) -> dict[str, Any]:
    """A response that was asked for again, as far as it is.

    Args:
        naming: makes `Shown.named` of the model asked for; returns: as `reply_items` has it.
    """
    stored, entry, reply = kept.stored, kept.entry, kept.reply
    told = msgspec.json.decode(stored.asked, type=dict[str, Any])
    told.pop("is_of_conversation", None)  # as earlier versions wrote it
    model = told.pop("asked_model", "")
    shown = Shown(stored.id, told, stored.conversation_id if stored.is_of_conversation else None, naming(model))
    status, error = kept.status, None
    reason, said = None, list[Item]()
    if reply is not None:
        said = reply_items(reply.id, reply.content, status=reply.status, returns=returns, sums_up=shown.sums_up)
    if status == "failed":
        failed = stored.failure
        error = failure(*((failed.code, failed.message) if failed else ("provider_error", "The reply broke off.")))
    if status == "incomplete":
        filtered = stored.failure is not None and stored.failure.code == "content_refused"
        reason = "content_filter" if filtered else "max_output_tokens"
    used = None
    if entry is not None and kept.is_over:
        used = usage_of(ReplyUsage.of(entry.usage), entry.cost, estimated=entry.estimated)
    settled = entry.settled_at if entry is not None and status == "completed" else None
    return shown.as_of_now(
        status,
        model if entry is None else entry.model,
        output=as_called(said, told["tools"]),
        usage=used,
        error=error,
        reason=reason,
        completed_at=None if settled is None else seconds(settled),
    )


def as_begun(shown: Mapping[str, Any]) -> dict[str, Any]:
    """A response as it was when it began."""
    ends = dict.fromkeys(("usage", "error", "incomplete_details", "completed_at"))
    return {**shown, **ends, "status": "queued", "output": []}


def seconds(moment: datetime) -> int:
    """Since 1970."""
    return int(moment.timestamp())


def _end_of(finish_reason: str) -> tuple[str, str | None]:
    """The status that a reply ends with, and why it is incomplete."""
    if finish_reason in _WHOLE:
        return "completed", None
    return ("cancelled", None) if finish_reason == "cancelled" else ("incomplete", "max_output_tokens")
