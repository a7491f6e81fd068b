"""What MCP servers did for a reply, and what was decided of their calls, as the Responses API is told it again."""

import re
from collections.abc import Container
from hashlib import sha256
from typing import Final

from textllm_core.records.hosted import MCP_ITEMS, Approval, HostedItem
from textllm_core.records.messages import Message
from textllm_core.records.parts import OutputText, Refusal

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as OpenAI takes one


def server_items(
    message: Message, *, besides: Container[object]
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """What stands before the text of a reply, and behind it.

    The ids are our own: by one that it knows, OpenAI takes the item that it keeps, and wants what was thought before.

    Args:
        besides: the provider's ids of those which go along with what was thought.
    """
    before: list[dict[str, object]] = []
    behind: list[dict[str, object]] = []
    is_said = False
    for part in message.content:
        is_said = is_said or isinstance(part, OutputText | Refusal)
        if isinstance(part, HostedItem) and part.type in MCP_ITEMS and part.id not in besides:
            (behind if is_said else before).append({**part.item, "id": _sendable(part.id_in(message.id))})
    return before, behind


def approval_items(message: Message) -> list[dict[str, object]]:
    """What is decided of calls that wait for that."""
    return [
        {
            "type": "mcp_approval_response",
            "approval_request_id": _sendable(part.approval_request_id),
            "approve": part.approve,
            **({"reason": part.reason} if part.reason else {}),
        }
        for part in message.content
        if isinstance(part, Approval)
    ]


def _sendable(item_id: str) -> str:
    """An id that OpenAI takes."""
    if _ID.fullmatch(item_id):
        return item_id
    prefix = item_id.partition("_")[0]
    digest = sha256(item_id.encode(errors="replace")).hexdigest()[:32]
    return f"{prefix if _ID.fullmatch(prefix) else 'mcp'}"[:16] + f"_{digest}"
