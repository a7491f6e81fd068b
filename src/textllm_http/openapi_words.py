"""What the OpenAPI document says of fields, beyond what their types say."""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

_ID: Final = "^[A-Za-z0-9_-]{1,64}$"
_USER: Final = "^[A-Za-z0-9._:@+-]{1,255}$"
_NOT_BLANK: Final = r"\S"

_METADATA: Final[Schema] = {
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}

# What is counted as messages; `/messages` lists both parts of a turn.
_TURNS: Final = "Turns that were answered; a turn is what the user said together with its reply."

# By the field's name; it means the same wherever it occurs.
FIELDS: Final[Mapping[str, str]] = {
    "after": "The last one of the page before; left out, the list begins at its beginning.",
    "by_day": "By UTC day, oldest first, without the days on which nothing was used.",
    "by_model": "By model, by the name the provider gave it; dearest first.",
    "cached": "Those of `input` that the provider had in its cache.",
    "checks": "By part of the service: `healthy` or `unhealthy`.",
    "code": "What went wrong, for programs; it never changes.",
    "config": "By setting: its value, without secrets.",
    "content": "Its parts: texts, and the files that came with it.",
    "content_type": "What it is, told by its content.",
    "conversation_count": "Conversations that had a turn in the session, each counted once.",
    "conversation_id": "The conversation.",
    "cost": "USD, exact.",
    "counts": "What `limit` counts; `stored_bytes`: those of all files of the tenant together.",
    "created_at": "When it was made, UTC.",
    "data": "What was asked for, in order.",
    "day": "A UTC day.",
    "days": "How many UTC days, today included.",
    "deleted": "Always true.",
    "detail": "What went wrong, for people.",
    "errors": "What is wrong with which field.",
    "estimated": "Whether the provider did not state the usage, so that it and the cost are an estimate.",
    "estimated_cost": "The part of the cost that is an estimate: its usage was not stated by the provider.",
    "expires": "Of a signed link: when it ends, in seconds since 1970.",
    "extracted": "Always null: the text of a document is for the model.",
    "field": "The name of the field.",
    "file": "The file.",
    "file_type": "What the document is, such as `.pdf`.",
    "file_url": "A link to the document that can be followed for a while; null once it is deleted.",
    "finish_reason": (
        "`stop`: the model had said all; `length`: it reached a limit of tokens; `refusal`: it would not answer; "
        "`cancelled`: the stream was cancelled, and `text` is what had been written; `error`, of messages alone: it "
        "broke off, and `text` is what was read of it."
    ),
    "folder": "Which kind of files.",
    "has_more": "Whether there are more behind the last one: ask for them with `after`.",
    "hint": "The first characters of the secret, to tell keys from each other.",
    "id": "Its id.",
    "image_count": "How many images the turn had.",
    "image_urls": "Links to the images that can be followed for a while.",
    "images": "1 to 10 images: PNG, JPEG, WebP or GIF, told by their content.",
    "include_deleted": "Also those that are deleted and could be restored.",
    "input": "Tokens that the model read.",
    "instance": "The id of the request, as in `X-Request-ID`.",
    "instructions": "A system prompt for this turn, in place of the operator's; not together with `prompt`.",
    "is_active": "False once it was ended, until the user's next turn of that day.",
    "is_deleted": "Whether it is deleted, and could be restored.",
    "key": "Its name in the storage, by which it is asked for.",
    "last_activity": "The newest turn of that day, UTC.",
    "last_image_url": "A link to the newest image of the conversation; null where there is none.",
    "limit": "At most so many.",
    "max_output_tokens": "The most the reply may have; lowered to the operator's ceiling and the budget.",
    "media_type": "What the file is, by its content.",
    "message": "What is wrong with it, for people.",
    "message_count": _TURNS,
    "message_number": "Which turn of the conversation it is: 1 for the first.",
    "messages": _TURNS,
    "metadata": "Pairs of strings that mean something to you: at most 16, keys of 64 and values of 512 characters.",
    "model": "The name of the model.",
    "name": "What its owner calls it.",
    "offset": "How many are left out at the beginning.",
    "order": "`asc`: the oldest first; `desc`: the newest first.",
    "output": "Tokens that the model wrote.",
    "pages": "How many pages the document has, where that is known.",
    "prompt": "The name of one of the operator's system prompts.",
    "q": "A part of the title; capital letters are as small ones.",
    "reason": "Why the document cannot be read.",
    "reasoning": "Those of `output` that were thought and not said.",
    "refusal": "The model's words for why it would not answer.",
    "reserved": "True where only turns that are still running stand in the way, so that a retry may pass.",
    "resets_at": "When the budget resets: the next UTC midnight.",
    "response_id": "The id of the reply.",
    "retry_after_s": "After how many seconds the same request may pass, as in `Retry-After`.",
    "revoked_at": "When it was revoked, UTC; null while it is in force.",
    "role": "Who: of a message `user` or `assistant`; of a key what it may do.",
    "secret": "The key itself, shown this once.",
    "session_id": "The session: the user's UTC day. Null before the first turn.",
    "sha256": "Of its bytes, in hex.",
    "signature": "Of a signed link: what makes it valid.",
    "size": "In bytes.",
    "soft": "True: it can be restored. False: it is erased for good, here and at the provider.",
    "spent": "USD that the user has spent today.",
    "status": "How it stands.",
    "stream": "True: the reply comes as server-sent events.",
    "stream_format": "`text`: an event a piece of text, and `[DONE]`; `events`: named and numbered events with JSON.",
    "success": "Always true.",
    "summary": "What was said in it, in a few sentences; null until it is asked for.",
    "tag": "One of its tags.",
    "tags": "Words to find it by: at most 16 of 1 to 64 characters, none twice.",
    "temperature": "0 to 2; reasoning models refuse it.",
    "tenant": "Of a signed link: whose file it is.",
    "tenant_id": "The tenant that the key belongs to.",
    "text": "What was said.",
    "title": "Its title; of a conversation the first words of its first message unless another one was set.",
    "tokens_input": "Tokens that the models read.",
    "tokens_output": "Tokens that the models wrote.",
    "total": "All of them together.",
    "total_conversations": "Conversations in which the user spoke in these days: deleted ones too, erased ones not.",
    "total_cost": "USD, exact.",
    "total_messages": _TURNS,
    "total_tokens": "Tokens read and written.",
    "total_tokens_input": "Tokens that the models read.",
    "total_tokens_output": "Tokens that the models wrote.",
    "type": "What kind it is.",
    "updated_at": "The newest turn, UTC.",
    "url": "A link that anyone can follow for a while.",
    "usage": "Tokens, as the provider counts them.",
    "user_id": "The user; of a session and its sums whoever is charged.",
    "warnings": "Sentences for the user, such as that most of the day's budget is spent.",
}

# Of requests, where a field means something else there than in a response.
REQUESTS: Final[Mapping[str, str]] = {
    "conversation_id": "The conversation to go on with; left out, a new one begins.",
    "message": "What the user says.",
    "user_id": (
        "For whom; left out, the one that the key is bound to, or a new user, in whose place limits and budget count "
        "the key, without keys the client's address."
    ),
}

# What requests are held to, by the name of the Struct or of the parameter, and of the field.
LIMITS: Final[Mapping[str, Schema]] = {
    "user_id": {"pattern": _USER},
    "conversation_id": {"pattern": _ID},
    "message": {"minLength": 1, "pattern": _NOT_BLANK},
    "model": {"pattern": "^[A-Za-z0-9._:/@+-]{1,200}$"},
    "max_output_tokens": {"minimum": 16},
    "temperature": {"minimum": 0, "maximum": 2},
    "metadata": _METADATA,
    "title": {"minLength": 1, "maxLength": 500, "pattern": _NOT_BLANK},
    "tags": {"maxItems": 16, "uniqueItems": True, "items": {"type": "string", "maxLength": 64, "pattern": _NOT_BLANK}},
    "name": {"minLength": 1, "maxLength": 200},
}

# Of queries, where a field means something else there than in a body.
QUERIES: Final = {"user_id": "Whose; left out, of all for whom the key acts."}

# Of addresses.
PATHS: Final[Mapping[str, tuple[str, Schema]]] = {
    "code": ("The `code` of a problem document.", {"pattern": "^[a-z_]{1,64}$", "examples": ["budget_exceeded"]}),
    "conversation_id": ("The id of the conversation.", {"pattern": _ID, "examples": ["conv_5f0c2b9a7d31e8640c1f9b22"]}),
    "key": (
        "The key of the file; its slashes may be escaped as `%2F`.",
        {"pattern": "^[A-Za-z0-9._/-]{1,255}$", "examples": ["LLM/uploads/ada/20250314_092653_5a1b2c3d_report.pdf"]},
    ),
    "key_id": ("The id of the key.", {"pattern": _ID, "examples": ["key_0b7d5f1e9c3a82466ad1c0e7"]}),
    "name": ("The name of the file.", {"pattern": "^[a-z.-]{1,64}$", "examples": ["docs.js"]}),
    "response_id": ("The id of the reply, from `X-Response-ID`.", {"pattern": _ID, "examples": ["resp_1a2b3c"]}),
    "session_id": ("The id of the session.", {"pattern": _ID, "examples": ["sess_7c1d2e3f4a5b6c7d8e9f0a1b"]}),
    "user_id": ("The user.", {"pattern": _USER, "examples": ["ada"]}),
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
