"""Parts of messages as OpenAI's APIs have them, of both: Responses and Chat Completions."""

import re
from collections.abc import Sequence
from typing import Final, Literal, NoReturn, cast, get_args

from msgspec import Struct

from textllm_core.chat.given_parts import GivenFile, GivenPart
from textllm_core.errors import InvalidRequestError
from textllm_core.file_names import key_of
from textllm_core.records.parts import Detail, InputText, OutputText, Refusal
from textllm_http.openai_door.bodies import DoorBody
from textllm_http.openai_door.shaping import host_of

_TEXTS: Final = ("text", "input_text", "output_text")
_DETAILS: Final = frozenset(get_args(Detail))
_MOST_ADDRESS_CHARS: Final = 8192  # as long as servers of the web take one
_NO_ADDRESS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class ImageAddress(Struct, frozen=True):
    """Where an image is, in the Chat Completions API."""

    url: str | None = None
    detail: str | None = None


class FileContent(Struct, frozen=True):
    """A file, in the Chat Completions API."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class WirePart(Struct, frozen=True):
    """One part, of any type; what it says beside this is ignored."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageAddress | None = None
    detail: str | None = None
    file: FileContent | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


def parts_of(
    content: str | Sequence[WirePart] | None, body: DoorBody, *, role: str, place: str
) -> tuple[GivenPart, ...]:
    """The content of a message, ready for `TakeParts`, or for the model where it has no files.

    Args:
        body: that it stood in.
        role: who says it; only users bring files.
        place: where it stands in the body, such as `messages[3].content`, for what is refused.
    Raises:
        InvalidRequestError: a part is of a type that is not taken, or says nothing.
    """
    if isinstance(content, str):
        return _said(content, role)
    parts: list[GivenPart] = []
    for number, part in enumerate(content or ()):
        where = f"{place}[{number}]"
        if part.type in _TEXTS:
            parts += _said(_given(part.text, f"{where}.text"), role)
        elif part.type == "refusal":
            parts.append(Refusal(_given(part.refusal, f"{where}.refusal")))
        elif part.type not in _FILES:
            _refuse(part.type, where)
        elif role != "user":
            raise InvalidRequestError.of(where, "is an image or a file, which only messages of users may have")
        else:
            parts.append(_file(part, body, where))
    return tuple(parts)


def _said(text: str, role: str) -> tuple[GivenPart, ...]:
    if not text:
        return ()
    return (OutputText(text) if role == "assistant" else InputText(text),)


def _file(part: WirePart, body: DoorBody, where: str) -> GivenFile:
    match part.type:
        case "image_url":
            image = part.image_url
            address = image if isinstance(image, ImageAddress) else ImageAddress(image, part.detail)
            field = f"{where}.image_url.url" if isinstance(image, ImageAddress) else f"{where}.image_url"
            return _image(address.url, None, address.detail, body, field)
        case "input_image":
            image = part.image_url
            url = image.url if isinstance(image, ImageAddress) else image
            return _image(url, part.file_id, part.detail, body, f"{where}.image_url")
        case "file":
            file = part.file or FileContent()
            return _document(file, None, body, f"{where}.file")
        case _:
            return _document(FileContent(part.file_id, part.file_data, part.filename), part.file_url, body, where)


def _image(url: str | None, file_id: str | None, detail: str | None, body: DoorBody, field: str) -> GivenFile:
    if detail is not None and detail not in _DETAILS:
        raise InvalidRequestError.of(f"{field.removesuffix('.url')}.detail", "must be auto, low, high or original")
    closely = cast("Detail", detail or "auto")
    if file_id is not None:
        field = f"{field.removesuffix('.image_url')}.file_id"
        return GivenFile(kind="image", key=_key(file_id, field), detail=closely, place=field)
    return _sent("image", _given(url, field), None, body, field, detail=closely)


def _document(file: FileContent, url: str | None, body: DoorBody, where: str) -> GivenFile:
    if file.file_id is not None:
        return GivenFile(kind="file", key=_key(file.file_id, f"{where}.file_id"), place=f"{where}.file_id")
    if file.file_data is None and url is not None:
        return _sent("file", url, None, body, f"{where}.file_url")
    data = _given(file.file_data, f"{where}.file_data")
    return _sent("file", data, file.filename, body, f"{where}.file_data")


def _sent(
    kind: Literal["image", "file"], text: str, name: str | None, body: DoorBody, field: str, *, detail: Detail = "auto"
) -> GivenFile:
    """What stood there: a file, or the address of one."""
    upload = body.upload(text, name)
    if upload is not None:
        return GivenFile(kind=kind, upload=upload, detail=detail, place=field)
    if not text.lower().startswith(("https://", "http://")):
        raise InvalidRequestError.of(field, "must be a data URL in base64, or begin with https://")
    if len(text) > _MOST_ADDRESS_CHARS:
        raise InvalidRequestError.of(field, f"may have {_MOST_ADDRESS_CHARS} characters at most")
    if _NO_ADDRESS.search(text):
        raise InvalidRequestError.of(field, "has a control character, or half of a character, which no address has")
    if host_of(text) is None:
        raise InvalidRequestError.of(field, "must name a host behind https://")
    return GivenFile(kind=kind, url=text, detail=detail, place=field)


def _key(file_id: str, field: str) -> str:
    key = key_of(file_id)
    if key is None:
        raise InvalidRequestError.of(field, "names a file that does not exist; upload it first")
    return key


def _given(text: str | None, field: str) -> str:
    if text is None:
        raise InvalidRequestError.of(field, "is required")
    return text


_FILES: Final = frozenset({"image_url", "input_image", "file", "input_file"})
_UNSERVED: Final = {
    "input_audio": "is audio, which is not taken here; send its text",
    "input_video": "is a video, which is not taken here; send images of it",
    "computer_screenshot": "is a screenshot of a hosted tool, which is not served here; send it as input_image",
}


def _refuse(kind: str, where: str) -> NoReturn:
    known = "it must be text, an image, a file or a refusal"
    raise InvalidRequestError.of(f"{where}.type", _UNSERVED.get(kind, f"is no type of a part; {known}"))
