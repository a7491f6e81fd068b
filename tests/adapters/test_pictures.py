"""Images that no model takes, turned into such as do."""

import io
import re
from collections.abc import Callable

import pillow_heif
import pytest
from PIL import Image, ImageChops
from tests.reader_here import ReaderHere

from textllm_adapters.documents.pictures import turn_picture
from textllm_core.errors import ImageTooLargeError, UnsupportedMediaTypeError
from textllm_core.images import kind_to_turn
from textllm_core.ports.document_reader import Picture
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload


def drawn(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An image whose every row and column differ."""
    across = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (across, across.transpose(Image.Transpose.FLIP_LEFT_RIGHT), across)).convert(mode)


def file_of(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(file, **how)
    else:
        image.save(file, kind, **how)
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def is_same(one: Image.Image, other: Image.Image) -> bool:
    return (
        one.size == other.size and ImageChops.difference(one.convert("RGBA"), other.convert("RGBA")).getbbox() is None
    )


async def turned(content: bytes) -> Picture:
    upload = Upload.of_bytes("photo", content)
    media_type = await kind_to_turn(upload)
    assert media_type is not None
    return await ReaderHere().picture(upload, owner=Owner("default", "ann"), media_type=media_type)


@pytest.mark.parametrize(
    ("media_type", "make"),
    [
        ("image/heic", lambda: file_of(drawn(), "HEIF")),
        ("image/avif", lambda: file_of(drawn(), "AVIF")),
        ("image/bmp", lambda: file_of(drawn(), "BMP")),
        ("image/tiff", lambda: file_of(drawn(), "TIFF", compression="tiff_lzw")),
    ],
)
async def test_an_image_is_turned_into_one_of_the_same_pixels(media_type: str, make: Callable[[], bytes]) -> None:
    content = make()
    assert await kind_to_turn(Upload.of_bytes("a.jpg", content)) == media_type
    picture = await turned(content)
    assert (picture.media_type, picture.width, picture.height, picture.warnings) == ("image/png", 64, 48, ())
    assert is_same(opened(picture.content), opened(content))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_every_kind_of_colour_is_turned(mode: str) -> None:
    content = file_of(drawn(mode), "TIFF")
    assert is_same(opened(turn_picture(content).content), opened(content).convert("RGBA"))


def test_sixteen_bits_become_eight() -> None:
    content = file_of(Image.new("I;16", (4, 4), 0x8000), "TIFF")
    assert opened(turn_picture(content).content).getpixel((0, 0)) == 0x80


def test_an_image_is_turned_the_right_way_up() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # as a phone held upright says it
    picture = turn_picture(file_of(drawn(), "TIFF", exif=exif))
    assert (picture.width, picture.height) == (48, 64)
    assert is_same(opened(picture.content), drawn().transpose(Image.Transpose.ROTATE_270))


def test_a_large_image_becomes_a_jpeg_of_its_size() -> None:
    picture = turn_picture(file_of(drawn("RGBA", (3000, 3000)), "TIFF", compression="tiff_lzw"))
    assert (picture.media_type, picture.width, picture.height) == ("image/jpeg", 3000, 3000)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_of_an_animated_image_the_first_frame_is_sent_and_that_is_said(kind: str) -> None:
    frames = [drawn(), drawn().transpose(Image.Transpose.ROTATE_180)]
    content = file_of(frames[0], kind, save_all=True, append_images=frames[1:], loop=0, lossless=True)
    picture = turn_picture(content)
    assert await kind_to_turn(Upload.of_bytes("a", content)) is not None
    assert picture.warnings == ("the image is animated: only its first frame was sent",)
    assert is_same(opened(picture.content), opened(content))
    assert await kind_to_turn(Upload.of_bytes("a", file_of(frames[0], kind))) is None


def test_of_a_scan_the_first_page_is_sent_and_that_is_said() -> None:
    content = file_of(drawn(), "TIFF", save_all=True, append_images=[drawn(), drawn()])
    assert turn_picture(content).warnings == ("only the first of 3 pages of the image was sent",)


async def test_a_jpeg_without_its_end_mark_is_taken() -> None:
    content = file_of(drawn(), "JPEG", quality=95)
    picture = await turned(content.removesuffix(b"\xff\xd9"))
    assert is_same(opened(picture.content), opened(content))
    assert picture.warnings == ("the image was cut short: its end may be missing",)


def of_size(content: bytes, width: int, height: int) -> bytes:
    """An image in boxes that says it is of that size."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return re.sub(rb"(?s)(ispe\0{4}).{8}", lambda found: found[1] + size, content)


BOMBS = {
    "heic": lambda: of_size(file_of(drawn(size=(64, 64)), "HEIF"), 10_000, 5_001),
    "avif": lambda: of_size(file_of(drawn(), "AVIF"), 10_000, 5_001),
    "bmp": lambda: b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + b"\x10\x27\0\0\x89\x13\0\0\x01\0\x18\0" + bytes(1000),
    "tiff": lambda: file_of(Image.new("1", (10_000, 5_001)), "TIFF", compression="group4"),
}


@pytest.mark.parametrize("kind", BOMBS)
async def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(kind: str) -> None:
    with pytest.raises(ImageTooLargeError, match="10000 x 5001 pixels") as refusal:
        await turned(BOMBS[kind]())
    assert refusal.value.details() == {"limit": 50_000_000, "counts": "pixels"}


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "BMP", "TIFF"])
async def test_a_damaged_image_is_refused_by_its_name(kind: str) -> None:
    content = file_of(drawn(), kind)
    with pytest.raises(UnsupportedMediaTypeError, match=r"begins as image/\w+, but is damaged"):
        await turned(content[: len(content) // 3])
