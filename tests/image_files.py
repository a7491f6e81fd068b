"""Image files as small as they can be: headers that state a size, and next to nothing behind them."""

import zlib


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    crc = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + crc


def png(width: int, height: int, *, padding: int = 0) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    more = chunk(b"teXt", bytes(padding)) if padding else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg(width: int, height: int, *, before: bytes = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0") -> bytes:
    """A JPEG file whose frame comes behind the segments `before`."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"\xff\xd8" + before + b"\xff\xc2\0\x0b\x08" + size + b"\x01\x01\x11\0" + b"\xff\xda\0\x02\xff\xd9"


def jpeg_segment(length: int) -> bytes:
    """A segment of `length` bytes, at least 4, that says nothing of the image."""
    return b"\xff\xe2" + (length - 2).to_bytes(2, "big") + bytes(length - 4)


def gif(width: int, height: int, *, frame: tuple[int, int] | None = None, before: bytes = b"") -> bytes:
    """A GIF file with four colours, and the blocks `before` its first frame."""
    screen = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    frame_size = b"".join(side.to_bytes(2, "little") for side in frame or (width, height))
    return b"GIF89a" + screen + b"\x81\0\0" + bytes(12) + before + b",\0\0\0\0" + frame_size + b"\0\x02\x02D\x01\0;"


def webp(width: int, height: int, kind: bytes = b"VP8 ") -> bytes:
    """A WebP file: lossy (`VP8 `), lossless (`VP8L`) or extended (`VP8X`)."""
    match kind:
        case b"VP8 ":
            body = b"\x30\x01\0\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
        case b"VP8L":
            body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(5)
        case _:
            body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    riff = b"WEBP" + kind + len(body).to_bytes(4, "little") + body
    return b"RIFF" + len(riff).to_bytes(4, "little") + riff
