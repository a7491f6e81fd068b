"""What an image is, told by its first bytes, and whether it is whole. Nothing is ever decoded."""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from textllm_core.errors import ImageTooLargeError, UnsupportedMediaTypeError
from textllm_core.file_names import SNIFFED_BYTES, media_type_of
from textllm_core.uploads import Upload

MAX_PIXELS: Final = 50_000_000
HEAD_BYTES: Final = 64 * 1024
JPEG_HEAD_BYTES: Final = 2 * 1024 * 1024  # colour profiles and previews may come before the frame
_MAX_JPEG_SEGMENTS: Final = 1000
_ANIMATED_WEBP: Final = 0x02  # a flag
_GIF_TAIL_BYTES: Final = 1024
_POLYGLOT_BYTES: Final = 1445  # as far as browsers look for HTML, and further than readers of PDF look for its mark

_ANOTHER_TYPE: Final = re.compile(rb"%PDF-|<(?:!doctype|html|head|body|script|iframe|svg|\?php)", re.IGNORECASE)

# Images of other kinds, which a refusal names.
_OTHERS: Final = (
    (
        re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg", re.DOTALL),
        "an SVG image",
    ),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "a JPEG XL image"),
    (re.compile(rb"\0\0\0\x0cjP {2}|\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"\0\0[\1\2]\0[^\0]"), "an icon (ICO)"),
    (re.compile(rb"%PDF-"), "a PDF"),
)

_Size = tuple[int, int]


class Image(Struct, frozen=True):
    """An image's type by its content, and its width and height in pixels, both at least 1."""

    media_type: str
    width: int
    height: int


async def inspect_image(upload: Upload) -> Image:
    """What the upload is. Its type and size are looked for in its first 64 KiB, and in 2 MiB of a JPEG file.

    Raises:
        UnsupportedMediaTypeError: it is no image of these types, whatever its name is, or cut short.
        ImageTooLargeError: it has more than `MAX_PIXELS`.
    """
    head = await upload.beginning(HEAD_BYTES)
    if not head:
        raise UnsupportedMediaTypeError("The file is empty; send PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF.")
    if head.startswith(b"\xff\xd8\xff") and _jpeg_size(head, upload.size) is None:
        head = await upload.beginning(JPEG_HEAD_BYTES)
    image = image_in(head, size=upload.size)
    if not await _is_whole(upload, head, image.media_type):
        raise UnsupportedMediaTypeError(f"The file begins as {image.media_type}, but is cut short.")
    return image


async def kind_to_turn(upload: Upload) -> str | None:
    """The media type of an image that models take in another form alone; None: of no image, or one that they take.

    These are HEIC, AVIF, BMP and TIFF; PNG, WebP and GIF that are animated; and JPEG without the mark of its end.
    """
    head = await upload.beginning(HEAD_BYTES)
    media_type = media_type_of(head[:SNIFFED_BYTES])
    match media_type:
        case "image/heic" | "image/avif" | "image/bmp" | "image/tiff":
            is_to_turn = not _ANOTHER_TYPE.search(head, 0, _POLYGLOT_BYTES)
        case "image/png":
            is_to_turn = 0 <= head.find(b"acTL") < head.find(b"IDAT")
        case "image/webp":
            is_to_turn = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & _ANIMATED_WEBP != 0
        case "image/gif":  # what tells how often its frames are shown again
            is_to_turn = b"NETSCAPE2.0" in head or b"ANIMEXTS1.0" in head
        case "image/jpeg":
            head = await upload.beginning(JPEG_HEAD_BYTES)
            frame = _jpeg_frame(head)
            is_to_turn = frame is not None and not await upload.contains(b"\xff\xd9", start=frame)
        case _:
            is_to_turn = False
    return media_type if is_to_turn else None


async def _is_whole(upload: Upload, head: bytes, media_type: str) -> bool:
    """Whether the mark of its end is there; cameras and editors may leave something of their own behind it."""
    match media_type:
        case "image/png":
            return await upload.contains(b"IEND\xaeB`\x82")
        case "image/jpeg":  # a preview before the frame has an end, too
            return await upload.contains(b"\xff\xd9", start=_jpeg_frame(head) or 0)
        case "image/gif":  # the mark is short: near the end of a cut file pixels look like it once in some sixty files
            return await upload.contains(b"\0;", start=max(0, upload.size - _GIF_TAIL_BYTES))
    return True  # WebP states its length at its beginning


def image_in(head: bytes, *, size: int) -> Image:
    """The image that begins with `head`, in a file of `size` bytes.

    Raises:
        UnsupportedMediaTypeError, ImageTooLargeError: as `inspect_image` raises them.
    Source: PNG (W3C, 3rd edition) 5 and 11.2.1; GIF89a 17 to 20; ITU-T T.81 B.1 and B.2.2; RFC 9649 2.
    """
    media_type = media_type_of(head[:SNIFFED_BYTES])
    size_of = _SIZES.get(media_type)
    if size_of is None:
        name = next((name for mark, name in _OTHERS if mark.match(head)), "no image that can be read")
        raise UnsupportedMediaTypeError(
            f"The file is {name}; send PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF. "
            "A document is sent in a turn with one."
        )
    if _ANOTHER_TYPE.search(head, 0, _POLYGLOT_BYTES):
        raise UnsupportedMediaTypeError("The file is an image and something else at once; save the image again.")
    found = size_of(head, size)
    if found is None or 0 in found:
        raise damaged(media_type)
    if (refusal := too_many_pixels(*found)) is not None:
        raise refusal
    return Image(media_type, *found)


def too_many_pixels(width: int, height: int) -> ImageTooLargeError | None:
    """The refusal of an image of that size, if it is one."""
    if width * height <= MAX_PIXELS:
        return None
    return ImageTooLargeError(
        f"The image has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} megapixels are allowed.",
        limit=MAX_PIXELS,
        counts="pixels",
    )


def damaged(media_type: str) -> UnsupportedMediaTypeError:
    """The refusal of an image that does not go on as it begins."""
    return UnsupportedMediaTypeError(f"The file begins as {media_type}, but is damaged or cut short.")


# Each tells width and height, or None where the head does not hold them.


def _png_size(head: bytes, _size: int) -> _Size | None:
    header = head[8:33]
    if header[:8] != b"\0\0\0\x0dIHDR" or zlib.crc32(header[4:21]).to_bytes(4, "big") != header[21:]:
        return None
    return int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")


def _gif_size(head: bytes, _size: int) -> _Size | None:
    """The larger of the screen and the first frame, which need not agree."""
    screen = (int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
    if len(head) < 13 or 0 in screen:
        return None
    at = 13 + (3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0)  # behind the colours
    while head[at : at + 1] == b"!":  # an extension: its kind, then blocks that state their length, then an empty one
        at += 2
        while at < len(head) and head[at]:
            at += head[at] + 1
        at += 1
    frame = head[at : at + 10]
    if len(frame) < 10 or frame[:1] != b",":
        return None
    width, height = int.from_bytes(frame[5:7], "little"), int.from_bytes(frame[7:9], "little")
    return max(screen[0], width), max(screen[1], height)


def _jpeg_size(head: bytes, _size: int) -> _Size | None:
    at = _jpeg_frame(head)
    if at is None:
        return None
    frame = head[at + 5 : at + 9]
    is_whole = int.from_bytes(head[at + 2 : at + 4], "big") >= 11 and len(frame) == 4
    return (int.from_bytes(frame[2:], "big"), int.from_bytes(frame[:2], "big")) if is_whole else None


def _jpeg_frame(head: bytes) -> int | None:
    """Where the frame begins."""
    at = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        if len(head) < at + 4 or head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:  # a marker may have any number of these before it
            at += 1
            continue
        length = int.from_bytes(head[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # these three are tables
            return at
        if marker in (0xD8, 0xD9, 0xDA) or length < 2:  # pixels, or the end, before any frame
            return None
        at += 2 + length
    return None


def _webp_size(head: bytes, size: int) -> _Size | None:
    stated, chunk, length = int.from_bytes(head[4:8], "little"), head[12:16], int.from_bytes(head[16:20], "little")
    body = head[20:30]
    if len(body) < 10 or not 20 + length <= stated + 8 <= size <= stated + 9:  # cut short, or something comes after it
        return None
    bits = int.from_bytes(body[1:5], "little")
    match chunk:
        case b"VP8 " if body[3:6] == b"\x9d\x01\x2a":
            return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        case b"VP8L" if body[0] == 0x2F:
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    return None


_SIZES: Final[Mapping[str, Callable[[bytes, int], _Size | None]]] = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/webp": _webp_size,
    "image/gif": _gif_size,
}
