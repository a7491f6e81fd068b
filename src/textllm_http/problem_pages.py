"""`/problems/<code>`: what each problem means in plain words, and what to do about it. Every `type` leads to one."""

from collections.abc import Mapping
from html import escape
from typing import Final, NamedTuple


class Explained(NamedTuple):
    """What happened, and what to do next."""

    happened: str
    to_do: str


EXPLAINED: Final[Mapping[str, Explained]] = {
    "budget_exceeded": Explained(
        "The user has spent the day's budget, or the rest of it is promised to replies that are still being written.",
        "If `reserved` is true, try again when those replies have ended. If not, wait until `resets_at`, the next "
        "midnight in UTC, or ask whoever runs the service to raise `cost_limit_per_session`. Nothing was charged.",
    ),
    "content_refused": Explained(
        "The content filter of the model's provider refused the message or the reply.",
        "Say it in other words. Sending the same again will be refused again.",
    ),
    "context_too_long": Explained(
        "The conversation and the new message together are longer than the model can read at once.",
        "Shorten the message, send less of a document, begin a new conversation, or choose a model that reads more.",
    ),
    "conversation_busy": Explained(
        "Another message is being answered in this conversation. This one was not sent to the model and cost nothing.",
        "Wait for the reply, or for as many seconds as `retry_after_s` says, and send it again.",
    ),
    "conversation_lost": Explained(
        "The model's provider no longer has this conversation, or the service does not ask it for conversations any "
        "more, and keeps no copy of the messages itself.",
        "Begin a new conversation. Whoever runs the service and has changed its settings can put back what the message "
        "names. With `store_messages: true` copies are kept here.",
    ),
    "conversation_not_found": Explained(
        "There is no conversation of this id for you: it was never there, was deleted, or belongs to someone else.",
        "Check the id. One that was deleted can be restored unless it was erased.",
    ),
    "document_too_large": Explained(
        "The document has more pages or characters than the service takes, or unpacks to too much.",
        "Send a part of it. `limit` says how much is taken, and `counts` of what.",
    ),
    "file_not_found": Explained(
        "There is no file of this key for you, or the link to it has expired.",
        "Check the key, or ask for the file's record or list again: each answer has a fresh link.",
    ),
    "file_too_large": Explained(
        "A file has too many bytes or pixels, or there is no room left for the files of your tenant.",
        "Send a smaller file, or delete files that are no longer needed. `limit` says how much is taken, and `counts` "
        "of what.",
    ),
    "forbidden": Explained(
        "Your key is in force, but its role does not allow this.",
        "Use a key of the role that the message names, or ask an admin of your tenant for one.",
    ),
    "idempotency_in_progress": Explained(
        "The first request with this `Idempotency-Key` is still being worked on.",
        "Wait for as many seconds as `retry_after_s` says and send the same request again: it gets the first result.",
    ),
    "idempotency_mismatch": Explained(
        "This `Idempotency-Key` was used before, for a request that asked for something else.",
        "Use a new key for each new request, and the same key only to repeat the same request.",
    ),
    "input_too_long": Explained(
        "The message has more characters than one message may have, or the request has too many bytes.",
        "Shorten it, or send long text as a document. `limit` says how many are taken.",
    ),
    "internal_error": Explained(
        "Something went wrong in the service that nobody foresaw. It is not your request's fault.",
        "Try again. If it happens again, tell whoever runs the service the request id, which is in `instance`.",
    ),
    "invalid_configuration": Explained(
        "The service cannot start with its settings, or cannot do this with them.",
        "Whoever runs the service finds each wrong setting in the message, and can check all with "
        "`textllm config check`.",
    ),
    "invalid_request": Explained(
        "The request is malformed: it is no valid JSON, a field is missing, unknown or has a wrong value.",
        "Correct what `errors` names, field by field. The fields of every request are described under /docs.",
    ),
    "not_found": Explained(
        "There is nothing at this address, or what it names does not exist for you.",
        "Check the address and the ids in it. All addresses are described under /docs.",
    ),
    "provider_error": Explained(
        "The model's provider gave an answer that makes no sense, or refuses the service: a wrong key or model name.",
        "Try again. If it happens again, tell whoever runs the service the request id, which is in `instance`: the "
        "log has the provider's reason.",
    ),
    "provider_timeout": Explained(
        "The model's provider was silent for longer than the service waits.",
        "Try again, perhaps with a shorter message. What was surely sent may have been charged.",
    ),
    "provider_unavailable": Explained(
        "The model's provider is overloaded, limits the service, or cannot be reached.",
        "Wait for as many seconds as `retry_after_s` says and try again.",
    ),
    "rate_limited": Explained(
        "There were too many requests in a minute.",
        "Wait for as many seconds as `retry_after_s` says and send it again. The `RateLimit` headers say what is left.",
    ),
    "service_unavailable": Explained(
        "The service is stopping, or has as much to do as it can.",
        "Wait for as many seconds as `retry_after_s` says and try again.",
    ),
    "session_not_found": Explained(
        "There is no such session for you: it belongs to someone else, or the user has said nothing that day.",
        "Check the id. A user's session of today begins with the first message.",
    ),
    "storage_unavailable": Explained(
        "The service's database or file storage does not answer. Nothing was started, and nothing is lost.",
        "Try again in a moment. Whoever runs the service sees under /health which of them it is, and in the log of the "
        "service why, and what to do.",
    ),
    "unauthenticated": Explained(
        "The request brings no key, something that is no key, or one that is unknown or revoked: the message says "
        "which of the three.",
        "Send a key in force as `Authorization: Bearer tllm_…`. An admin makes keys with `textllm keys create` or "
        "`POST /keys`.",
    ),
    "unreadable_document": Explained(
        "The document's text cannot be had: it is damaged, encrypted, empty, or too much work to read.",
        "`reason` says which. Save it again without a password; turn scanned pages into text first; or send the text.",
    ),
    "unsupported_media_type": Explained(
        "The request, or a file in it, is of a kind that is not taken. What a file is is told by its content.",
        "Send JSON or a form as /docs describes it; images as PNG, JPEG, WebP, GIF, "
        "HEIC, AVIF, BMP or TIFF; documents as PDF, DOCX, PPTX, XLSX, ODT, RTF, EPUB, EML or text.",
    ),
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body>
<h1>{title}</h1>
<p>A program finds this as the code <code>{code}</code>.</p>
<h2>What happened</h2>
<p>{happened}</p>
<h2>What to do</h2>
<p>{to_do}</p>
<p><a href="/docs">All about the service</a></p>
</body>
</html>
"""


def page_of(code: str) -> bytes:
    """The page of one of the codes of `EXPLAINED`, in HTML."""
    happened, to_do = (_marked_up(text) for text in EXPLAINED[code])
    return _PAGE.format(title=title_of(code), code=code, happened=happened, to_do=to_do).encode()


def title_of(code: str) -> str:
    """A code in words, as problem documents have it."""
    return code.replace("_", " ").capitalize()


def _marked_up(text: str) -> str:
    """Text for people, whose words in backticks are those of programs."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
