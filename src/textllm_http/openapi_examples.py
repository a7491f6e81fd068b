"""What the service sends, by example."""

from typing import Final

CONVERSATION_ID: Final = "conv_5f0c2b9a7d31e8640c1f9b22"
REPLY: Final = {
    "text": "The Rhine, the Rhône and the Inn.",
    "conversation_id": CONVERSATION_ID,
    "user_id": "ada",
    "message_number": 1,
    "usage": {"input": 12, "output": 15, "total": 27, "cached": 0, "reasoning": 0},
    "cost": 0.00018,
    "estimated": False,
    "response_id": "resp_9b1c0d2e3f4a5b6c7d8e9f0a",
    "session_id": "sess_7c1d2e3f4a5b6c7d8e9f0a1b",
    "model": "gpt-4o-2024-08-06",
    "finish_reason": "stop",
    "warnings": [],
}
STREAMED: Final = {
    "text": "data: The Rhine,\n\ndata:  the Rhône\n\ndata: [DONE]\n\n",
    "events": (
        'id: 1\nevent: reply.started\ndata: {"response_id":"resp_9b1c0d2e3f4a5b6c7d8e9f0a","conversation_id":'
        f'"{CONVERSATION_ID}","user_id":"ada","session_id":"sess_7c1d2e3f4a5b6c7d8e9f0a1b","model":"gpt-4o-2024-08-06"}}'
        '\n\nid: 2\nevent: reply.delta\ndata: {"text":"The Rhine,"}\n\n'
        'id: 3\nevent: reply.completed\ndata: {"text":"The Rhine,","finish_reason":"stop"}\n\n'
    ),
}
CONVERSATION: Final = {
    "id": CONVERSATION_ID,
    "user_id": "ada",
    "session_id": "sess_7c1d2e3f4a5b6c7d8e9f0a1b",
    "created_at": "2026-03-14T09:26:53Z",
    "updated_at": "2026-03-14T09:26:53Z",
    "message_count": 1,
    "total_tokens_input": 12,
    "total_tokens_output": 15,
    "total_cost": 0.00018,
    "title": "Name three rivers.",
    "summary": None,
    "tags": ["geo"],
    "metadata": {"topic": "support"},
    "is_deleted": False,
    "last_image_url": None,
}
MESSAGE: Final = {
    "id": "msg_0a1b2c3d4e5f60718293a4b5",
    "role": "user",
    "text": "Name three rivers.",
    "content": [{"type": "input_text", "text": "Name three rivers."}],
    "created_at": "2026-03-14T09:26:53Z",
    "status": "completed",
}
REPLY_MESSAGE: Final = MESSAGE | {
    "id": "msg_1b2c3d4e5f60718293a4b5c6",
    "role": "assistant",
    "text": "The Rhine, the Rhône and the Inn.",
    "content": [{"type": "output_text", "text": "The Rhine, the Rhône and the Inn."}],
}
SESSION: Final = {
    "id": "sess_7c1d2e3f4a5b6c7d8e9f0a1b",
    "user_id": "ada",
    "created_at": "2026-03-14T09:26:53Z",
    "last_activity": "2026-03-14T09:26:53Z",
    "total_tokens": 27,
    "total_cost": 0.00018,
    "conversation_count": 1,
    "is_active": True,
    "estimated_cost": 0,
}
_USED: Final = {"messages": 1, "tokens_input": 12, "tokens_output": 15, "cost": 0.00018, "estimated_cost": 0}
STATS: Final = {
    "total_conversations": 1,
    "total_messages": 1,
    "total_tokens_input": 12,
    "total_tokens_output": 15,
    "total_cost": 0.00018,
    "estimated_cost": 0,
    "by_day": [{"day": "2026-03-14", **_USED}],
    "by_model": [{"model": "gpt-4o-2024-08-06", **_USED}],
}
USED_BY_CONVERSATION: Final = {
    "data": [
        {"conversation_id": CONVERSATION_ID, "title": "Name three rivers.", **_USED},
        {"conversation_id": None, "title": None, **_USED},
    ]
}
FILE_KEY: Final = "LLM/uploads/ada/20260314_092653_5a1b2c3d_report.pdf"
FILE_VIEW: Final = {
    "success": True,
    "key": FILE_KEY,
    "url": f"http://localhost:8000/files/{FILE_KEY}/content?tenant=default&expires=1773483000&signature=9f2c",
    "size": 48213,
    "content_type": "application/pdf",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_at": "2026-03-14T09:26:53Z",
}
API_KEY: Final = {
    "id": "key_0b7d5f1e9c3a82466ad1c0e7",
    "tenant_id": "default",
    "role": "user",
    "user_id": "ada",
    "name": "Ada's phone",
    "hint": "tllm_4fG7",
    "created_at": "2026-03-14T09:26:53Z",
    "revoked_at": None,
    "models": None,
}
READY: Final = {"status": "ready", "checks": {"database": {"status": "healthy"}}}
NOT_READY: Final = {"status": "not_ready", "checks": {"database": {"status": "unhealthy"}}}
