"""Text of EML files: a message as it travels (RFC 5322). Runs in the child alone."""

from email import message_from_bytes
from email.policy import default
from typing import Final, cast

from textllm_adapters.documents.html import add_html
from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.plain_text import decode

_SHOWN: Final = ("From", "To", "Cc", "Date", "Subject")


def read_eml(content: bytes, *, max_chars: int) -> Found:
    """Who wrote to whom, when and what; the names of what came with it."""
    message = message_from_bytes(content, policy=default)
    lines = Lines(max_chars)
    warnings: tuple[str, ...] = ()
    for name in _SHOWN:
        for value in message.get_all(name, ()):
            lines.add(f"{name}: {' '.join(str(value).split())}")
    body = message.get_body(("plain", "html"))
    if body is not None:
        payload = cast(bytes, body.get_payload(decode=True) or b"")
        declared = body.get_content_charset()
        if body.get_content_subtype() == "html":
            warnings = add_html(payload, lines, declared=_known(declared))
        else:
            text, warnings = decode(payload, declared=_known(declared))
            lines.add(text.strip())
    for attachment in message.iter_attachments():
        lines.add(f"[attachment: {attachment.get_filename() or attachment.get_content_type()}]")
    return Found(lines.text(), file_type="eml", warnings=warnings)


def _known(charset: str | None) -> str | None:
    """The encoding, where Python knows it."""
    try:
        return None if charset is None else str(b"".decode(charset) or charset)
    except (LookupError, ValueError):
        return None
