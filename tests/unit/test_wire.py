"""Records as plain dicts: what any JSON encoder, and so any web framework, can send."""

import json
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import TypeAdapter

import textllm_core
from textllm_core import (
    Conversation,
    DocumentReply,
    InputText,
    InputTooLongError,
    Message,
    Record,
    Reply,
    ReplyFailed,
    ReplyUsage,
)
from textllm_core.wire import to_json

REPLY = {
    "text": "Hi.",
    "conversation_id": "conv_1",
    "user_id": "ada",
    "message_number": 1,
    "usage": ReplyUsage(1, 2, 3, 0, 0),
    "cost": Decimal("0.0000075"),
    "response_id": "resp_1",
    "session_id": "sess_1",
    "model": "gpt-4o",
    "finish_reason": "stop",
}


def test_a_reply_is_the_document_that_rest_shows() -> None:
    reply = Reply(**REPLY)  # type: ignore[arg-type]
    assert json.loads(json.dumps(reply.to_dict())) == json.loads(to_json(reply))
    assert reply.to_dict()["cost"] == 0.0000075
    assert reply.to_dict()["usage"] == {"input": 1, "output": 2, "total": 3, "cached": 0, "reasoning": 0}


def test_a_framework_can_send_a_record_as_it_is() -> None:
    reply = Reply(**REPLY)  # type: ignore[arg-type]
    assert dict(reply) == reply.to_dict()
    fastapi_takes = TypeAdapter(Reply)
    assert fastapi_takes.dump_python(fastapi_takes.validate_python(reply)) == reply.to_dict()
    assert fastapi_takes.json_schema() == {"type": "object", "title": "Reply"}


def test_what_is_left_out_there_is_left_out_here() -> None:
    reply = DocumentReply(**REPLY, file_url=None, file_type=".txt")  # type: ignore[arg-type]
    assert reply.to_dict()["file_url"] is None
    assert "pages" not in reply.to_dict()


def test_times_and_parts_are_those_of_the_wire() -> None:
    message = Message(id="msg_1", role="user", content=(InputText("Hi"),), created_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert message.to_dict()["content"] == [{"type": "input_text", "text": "Hi"}]
    assert message.to_dict()["created_at"] == "2026-01-02T00:00:00Z"


def test_a_reply_that_broke_off_says_why() -> None:
    failed = ReplyFailed("resp_1", InputTooLongError(length=11, limit=10))
    assert failed.to_dict() == {
        "response_id": "resp_1",
        "code": "input_too_long",
        "detail": "The message has 11 characters; at most 10 are allowed (the setting max_input_length).",
        "limit": 10,
    }


def test_what_users_are_given_has_it() -> None:
    assert issubclass(Conversation, Record)
    for name in ("LedgerEntry", "Usage", "UsageReport", "Session", "MessagePage", "FileView", "ApiKeyPage"):
        assert issubclass(getattr(textllm_core, name), Record), name
