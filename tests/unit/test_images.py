"""What an image is, by its first bytes; and that nothing else passes for one."""

from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.image_files import gif, jpeg, jpeg_segment, png, webp

from textllm_core.errors import ImageTooLargeError, UnsupportedMediaTypeError
from textllm_core.images import HEAD_BYTES, JPEG_HEAD_BYTES, Image, image_in, inspect_image
from textllm_core.uploads import Upload

Maker = Callable[[int, int], bytes]
MAKERS: dict[str, tuple[Maker, str]] = {
    "png": (png, "image/png"),
    "jpg": (jpeg, "image/jpeg"),
    "gif": (gif, "image/gif"),
    "webp": (webp, "image/webp"),
    "lossless.webp": (lambda width, height: webp(width, height, b"VP8L"), "image/webp"),
    "extended.webp": (lambda width, height: webp(width, height, b"VP8X"), "image/webp"),
}
SIDES = st.integers(1, 7000)
FROM_ONE = ("lossless.webp", "extended.webp")  # which cannot state a zero


def uploaded(name: str, content: bytes, *, piece_bytes: int = 1000) -> tuple[Upload, list[int]]:
    """An upload, and how many bytes of it were read each time."""
    read_bytes: list[int] = []

    async def read() -> AsyncIterator[bytes]:
        read_bytes.append(0)
        for start in range(0, len(content), piece_bytes):
            read_bytes[-1] += piece_bytes
            yield content[start : start + piece_bytes]

    return Upload(name, len(content), read), read_bytes


@pytest.mark.parametrize("kind", MAKERS)
@given(width=SIDES, height=SIDES)
def test_type_and_size_are_in_the_header(kind: str, width: int, height: int) -> None:
    make, media_type = MAKERS[kind]
    content = make(width, height)
    assert image_in(content, size=len(content)) == Image(media_type, width, height)


@pytest.mark.parametrize("kind", MAKERS)
async def test_an_upload_is_told_by_its_content_whatever_its_name_is(kind: str) -> None:
    make, media_type = MAKERS[kind]
    for name in (f"cat.{kind}", f"CAT.{kind.upper()}", "cat", "", ".", "cat.png", "cat.jpg", "cat.pdf", "page.html"):
        upload, _ = uploaded(name, make(640, 480))
        assert await inspect_image(upload) == Image(media_type, 640, 480)


async def test_an_empty_file_is_said_to_be_empty() -> None:
    upload, _ = uploaded("cat.png", b"")
    with pytest.raises(UnsupportedMediaTypeError, match="The file is empty"):
        await inspect_image(upload)


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
def test_a_header_that_is_cut_short_is_refused(kind: str, data: st.DataObject) -> None:
    content = MAKERS[kind][0](640, 480)
    header_bytes = {"png": 33, "jpg": 29, "gif": 34}.get(kind, len(content))
    head = content[: data.draw(st.integers(0, header_bytes - 1))]
    with pytest.raises(UnsupportedMediaTypeError):
        image_in(head, size=len(head))


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind not in FROM_ONE])
@pytest.mark.parametrize(("width", "height"), [(0, 480), (640, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(kind: str, width: int, height: int) -> None:
    content = MAKERS[kind][0](width, height)
    with pytest.raises(UnsupportedMediaTypeError):
        image_in(content, size=len(content))


@pytest.mark.parametrize("kind", MAKERS)
def test_more_than_fifty_megapixels_are_too_many(kind: str) -> None:
    make, _ = MAKERS[kind]
    content = make(10_000, 5_000)
    assert image_in(content, size=len(content)).width == 10_000
    with pytest.raises(ImageTooLargeError, match="10000 x 5001 pixels; at most 50 megapixels"):
        image_in(make(10_000, 5_001), size=len(content))


@pytest.mark.parametrize(
    "content",
    [
        png(2**31 - 1, 2**31 - 1),
        jpeg(65_535, 65_535),
        gif(65_535, 65_535),
        gif(1, 1, frame=(65_535, 65_535)),
        webp(16_383, 16_383),
        webp(16_384, 16_384, b"VP8L"),
        webp(2**24, 2**24, b"VP8X"),
    ],
)
def test_the_largest_sizes_that_headers_can_state_are_too_large(content: bytes) -> None:
    with pytest.raises(ImageTooLargeError):
        image_in(content, size=len(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        b"\0\0\0\x1cftypavif" + bytes(60),
        b"%PDF-1.7",
        b"PK\x03\x04" + bytes(60),
        b" " + png(1, 1),
        b"\x89PNG\n\x1a\n" + bytes(60),
        b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR" + bytes(40),  # a chunk of two gigabytes
        png(640, 480)[:20] + b"\1" + png(640, 480)[21:],  # not what its checksum says
        png(640, 480).replace(b"IHDR", b"tEXt"),
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9" + bytes(20),
        jpeg(640, 480, before=b"\xff\xda\0\x02"),
        jpeg(640, 480, before=b"\xff\xe0\0\0"),
        jpeg(640, 480, before=b"\xff\xe0\0\1"),
        jpeg(640, 480, before=b"\xff\xe0\xff\xff"),
        b"\xff\xd8\xff\xc0\0\x05\x08\0\1\0\1" + bytes(20),
        gif(640, 480, before=b"no block"),
        gif(640, 480, before=b"!\xfe\xff"),
        webp(640, 480)[:-1],
        webp(640, 480) + b"PK\x03\x04",
        webp(640, 480).replace(b"VP8 ", b"VP9 "),
        webp(640, 480).replace(b"VP8 \x0a\0\0\0", b"VP8 \xff\xff\xff\xff"),
        webp(640, 480).replace(b"\x9d\x01\x2a", b"\0\0\0"),
        webp(640, 480, b"VP8L").replace(b"\x2f", b"\x2e"),
    ],
)
def test_what_is_no_image_or_a_damaged_one_is_refused(content: bytes) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        image_in(content, size=len(content))


@pytest.mark.parametrize(
    "other", [b"%PDF-1.7", b"<script>", b"<HTML>", b"<?php system()", b"<svg onload=", b"<!DOCTYPE h"]
)
def test_an_image_that_is_something_else_too_is_refused(other: bytes) -> None:
    comment = b"\xff\xfe" + (len(other) + 2).to_bytes(2, "big") + other
    with pytest.raises(UnsupportedMediaTypeError, match="something else"):
        image_in(jpeg(640, 480, before=comment), size=100)
    with pytest.raises(UnsupportedMediaTypeError, match="something else"):
        image_in(gif(640, 480, before=b"!\xfe" + bytes([len(other)]) + other + b"\0"), size=100)


def test_blocks_before_the_first_frame_of_an_animation_are_passed_over() -> None:
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0" + b"!\xf9\x04\0\x0a\0\0\0"
    content = gif(640, 480, before=loop)
    assert image_in(content, size=len(content)) == Image("image/gif", 640, 480)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", *(make(640, 480)[:n] for make, _ in MAKERS.values() for n in (8, 16, 26))]),
)
def test_any_bytes_are_an_image_or_refused(tail: bytes, head: bytes) -> None:
    content = head + tail
    try:
        image = image_in(content, size=len(content))
    except (UnsupportedMediaTypeError, ImageTooLargeError):
        return
    assert image.width >= 1
    assert image.height >= 1
    assert image.width * image.height <= 50_000_000


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
async def test_an_image_that_is_cut_short_anywhere_is_refused(kind: str, data: st.DataObject) -> None:
    preview = jpeg_segment(100)[:-80] + jpeg(9, 9)[:80].ljust(80, b"\0")
    content = jpeg(640, 480, before=preview) if kind == "jpg" else MAKERS[kind][0](640, 480)
    whole, _ = uploaded("cat", content + (b"" if kind.endswith("webp") else b"left by a camera"))
    assert (await inspect_image(whole)).width == 640
    cut, _ = uploaded("cat", content[: data.draw(st.integers(0, len(content) - 1))], piece_bytes=7)
    with pytest.raises(UnsupportedMediaTypeError):
        await inspect_image(cut)


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=3), st.integers(0, 70), st.integers(1, 9))
async def test_a_mark_is_found_wherever_pieces_part_it(content: bytes, mark: bytes, start: int, pieces: int) -> None:
    upload, _ = uploaded("cat", content, piece_bytes=pieces)
    assert await upload.contains(mark, start=start) == (mark in content[start:])


async def test_the_frame_of_a_jpeg_is_found_behind_a_large_colour_profile() -> None:
    upload, _ = uploaded("cat.jpg", jpeg(640, 480, before=jpeg_segment(65_000) * 20))
    assert await inspect_image(upload) == Image("image/jpeg", 640, 480)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(jpeg_segment(65_000) * 60, id="long segments"),
        pytest.param(jpeg_segment(4) * 600_000, id="short segments"),
        pytest.param(b"\xff" * 3_000_000, id="fill bytes"),
    ],
)
async def test_the_search_for_the_frame_of_a_jpeg_has_an_end(before: bytes) -> None:
    upload, read_bytes = uploaded("cat.jpg", jpeg(640, 480, before=before))
    with pytest.raises(UnsupportedMediaTypeError):
        await inspect_image(upload)
    assert sum(read_bytes) <= HEAD_BYTES + JPEG_HEAD_BYTES + 2000
