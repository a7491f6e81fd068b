"""What a stored file is called, and what it is: strangers' names and bytes in, harmless keys, names and types out."""

import hashlib
import re
import unicodedata
from datetime import UTC, datetime
from secrets import token_hex
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

Folder: TypeAlias = Literal["chat_images", "documents", "uploads"]

NAMELESS: Final = "file"
OCTETS: Final = "application/octet-stream"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
SNIFFED_BYTES: Final = 4096  # the beginning that tells what a file is

_ROOT: Final = "LLM/"
_FILE_ID: Final = "file-"
_PART_LENGTH: Final = 100  # keys stay below 255 characters
_DIGEST_LENGTH: Final = 10  # 40 bits, for the users of a tenant; and not the end of a UUID, which has 12
_LIKE_A_DIGEST: Final = re.compile(r"-[0-9a-f]{10}\Z")
_NAME_LENGTH: Final = 255
_EXTENSION_LENGTH: Final = 16  # its dot included
# Categories of Unicode that no name needs: controls, surrogates, and separators of lines and paragraphs.
_UNNAMED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks that make a name look like another one by turning its direction.
_DIRECTIONS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NOT_IN_QUOTES: Final = re.compile(r'[^ -~]|["%\\]')
_SIGNATURES: Final = (
    (re.compile(rb"%PDF-"), "application/pdf"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb".{4}ftyp(?:avi[fs]|mif1.{4,64}?avif)", re.DOTALL), "image/avif"),
    (re.compile(rb".{4}ftyp(?:he[iv][cmsx]|mif1|msf1)", re.DOTALL), "image/heic"),
    (re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}", re.DOTALL), "image/bmp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "image/tiff"),
    (re.compile(rb"PK\x03\x04(?=.*word/)", re.DOTALL), DOCX),
    (re.compile(rb"PK(?:\x03\x04|\x05\x06)"), "application/zip"),
)
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")


def new_key(folder: Folder, user_id: str, name: str, at: datetime) -> str:
    """A key that was never used: `LLM/{folder}/{user}/{YYYYMMDD_HHMMSS}_{8 random}_{name}`, in UTC.

    It has at most 255 characters of `[A-Za-z0-9._/-]`, and no part of it begins with a dot. No two users have the same
    `{user}`: one that is not the id itself ends in a digest of it.
    """
    user = _safe(user_id)[:_PART_LENGTH]
    if user != user_id or _LIKE_A_DIGEST.search(user):  # the latter would else pass for the safe name of another one
        digest = hashlib.sha256(user_id.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
        user = f"{user[: _PART_LENGTH - _DIGEST_LENGTH - 1]}-{digest}"
    moment = at.astimezone(UTC).strftime("%Y%m%d_%H%M%S")
    return f"{_ROOT}{folder}/{user}/{moment}_{token_hex(4)}_{_cut(_safe(_last_part(name)), _PART_LENGTH)}"


def file_id_of(key: str) -> str:
    """The key as an id in OpenAI's API, which has no slash in it."""
    return f"{_FILE_ID}{key.removeprefix(_ROOT).replace('/', '~')}"


def key_of(file_id: str) -> str | None:
    """The key that an id stands for; None where it is none."""
    parts = file_id.removeprefix(_FILE_ID).split("~")
    return _ROOT + "/".join(parts) if file_id.startswith(_FILE_ID) and len(parts) == 3 else None


def clean_name(name: str) -> str:
    """A name as its sender wrote it, without folders, control characters and tricks; 1 to 255 characters."""
    visible = "".join(character for character in _last_part(name) if unicodedata.category(character) not in _UNNAMED)
    return _cut(_DIRECTIONS.sub("", visible).strip(), _NAME_LENGTH).strip(". ") or NAMELESS


def as_attachment(name: str) -> str:
    """The `Content-Disposition` of what is to be saved under a name, whatever is in it.

    Source: RFC 6266: the name, and one in ASCII for clients that do not understand it.
    """
    plain = _NOT_IN_QUOTES.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def media_type_of(beginning: bytes) -> str:
    """What bytes that begin like this are; HTML and all other text is `text/plain`, so that nobody runs it.

    Args:
        beginning: the first `SNIFFED_BYTES` bytes, or all of them.
    """
    for signature, media_type in _SIGNATURES:
        if signature.match(beginning):
            return media_type
    return "text/plain" if _is_text(beginning) else OCTETS


def _is_text(beginning: bytes) -> bool:
    beginning = beginning.rstrip(b"\x1a")  # the end of the file, as DOS marks it
    if _NO_TEXT.search(beginning):
        return False
    try:
        beginning.decode()
    except UnicodeDecodeError as error:  # a character may be cut in two at the end
        return len(beginning) >= SNIFFED_BYTES and error.reason == "unexpected end of data"
    return True


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _safe(text: str) -> str:
    """Letters without their accents, and `_` for all that is not harmless everywhere."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    harmless = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "_", plain))
    return harmless.lstrip(".") or NAMELESS


def _cut(name: str, length: int) -> str:
    """At most `length` characters, of which the last are its extension."""
    stem, dot, extension = name.rpartition(".")
    if len(name) <= length or not stem or len(extension) >= _EXTENSION_LENGTH:
        return name[:length]
    return stem[: length - len(extension) - 1] + dot + extension
