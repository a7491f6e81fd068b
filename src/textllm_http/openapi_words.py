"""What the OpenAPI document says of parts of addresses and of headers. Fields of Structs have their words with them."""

from collections.abc import Mapping
from typing import Any, Final

from textllm_http.fields import ANY_ID, ANY_USER

Schema = dict[str, Any]


PATHS: Final[Mapping[str, tuple[str, Schema]]] = {
    "code": ("The `code` of a problem document.", {"pattern": "^[a-z_]{1,64}$", "examples": ["budget_exceeded"]}),
    "conversation_id": (
        "The id of the conversation.",
        {"pattern": ANY_ID, "examples": ["conv_5f0c2b9a7d31e8640c1f9b22"]},
    ),
    "model": ("The name of the model.", {"pattern": "^[A-Za-z0-9._:/@+-]{1,200}$", "examples": ["gpt-4o"]}),
    "key": (
        "The key of the file; its slashes may be escaped as `%2F`.",
        {"pattern": "^[A-Za-z0-9._/-]{1,255}$", "examples": ["LLM/uploads/ada/20250314_092653_5a1b2c3d_report.pdf"]},
    ),
    "item_id": ("The id of the item.", {"pattern": "^[A-Za-z0-9_.:-]{1,300}$", "examples": ["msg_1a2b3c"]}),
    "file_id": (
        "The id of the file.",
        {"pattern": "^[A-Za-z0-9._~-]{1,260}$", "examples": ["file-uploads~ada~20250314_092653_5a1b2c3d_report.pdf"]},
    ),
    "key_id": ("The id of the key.", {"pattern": ANY_ID, "examples": ["key_0b7d5f1e9c3a82466ad1c0e7"]}),
    "name": ("The name of the file.", {"pattern": "^[a-z.-]{1,64}$", "examples": ["docs.js"]}),
    "response_id": ("The id of the reply, from `X-Response-ID`.", {"pattern": ANY_ID, "examples": ["resp_1a2b3c"]}),
    "session_id": ("The id of the session.", {"pattern": ANY_ID, "examples": ["sess_7c1d2e3f4a5b6c7d8e9f0a1b"]}),
    "user_id": ("The user.", {"pattern": ANY_USER, "examples": ["ada"]}),
}

REQUEST_HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "X-Request-ID": (
        "Your id for the request, kept in the response where it is sane.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    ),
    "Idempotency-Key": (
        "Makes the request safe to send again: for 24 hours a repeat is told what the first one came to.",
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
    ),
    "X-User-ID": (
        "The user, where neither `safety_identifier` nor `user` says who it is. What is of another user is 404 then.",
        {"type": "string", "minLength": 1, "examples": ["ada"]},
    ),
    "Last-Event-ID": (
        "The number of the last event that you have; left out, the stream is told from its beginning.",
        {"type": "string", "pattern": "^[0-9]{1,10}$"},
    ),
    "Range": ("A part of the file.", {"type": "string", "examples": ["bytes=0-1023"]}),
    "If-Match": ("The `ETag` of the copy that you go on with.", {"type": "string"}),
    "If-Range": ("The `ETag` of the copy that you go on with; of another file the whole comes.", {"type": "string"}),
    "If-None-Match": ("The `ETag` of the copy that you have.", {"type": "string"}),
}

RESPONSE_HEADERS: Final[Mapping[str, str]] = {
    "X-Should-Retry": "Whether the same request may pass if it is sent again; OpenAI's SDKs heed it.",
    "X-RateLimit-Limit-Requests": "The user's rate limit: requests in a minute.",
    "X-RateLimit-Remaining-Requests": "What is left of it.",
    "X-RateLimit-Reset-Requests": "How long it takes until all of it is back, such as `12s`.",
    "X-Request-ID": "The id of the request: yours where it was sane, else a new one.",
    "RateLimit": "What is left of the user's rate limit, and the seconds until all of it is back.",
    "RateLimit-Policy": "The user's rate limit: requests in a window of seconds.",
    "Retry-After": "After how many seconds the same request may pass.",
    "WWW-Authenticate": "Always `Bearer`.",
    "Idempotent-Replayed": "`true` where this is what an earlier request with the same key came to.",
    "X-Accel-Buffering": "Of a stream, `no`: proxies are to pass each event on at once.",
    "X-Conversation-ID": "The conversation.",
    "X-Response-ID": "The reply, by which its stream can be resumed or cancelled.",
    "X-User-ID": "The user.",
    "Accept-Ranges": "Always `bytes`.",
    "Cache-Control": "Who may keep it, and for how long.",
    "ETag": "Names the content.",
    "Location": "The address of what was made, or of what was asked for.",
    "Content-Range": "Which bytes these are.",
    "Content-Disposition": "The name of the file.",
}
