"""Images that no model takes, turned into such as all do, by Pillow. Runs in the child alone."""

import re
from io import BytesIO
from typing import Final

import pillow_heif
from PIL import AvifImagePlugin, Image, ImageOps

from textllm_adapters.documents.outcomes import Pictured
from textllm_core.errors import ImageTooLargeError, UnreadableDocumentError
from textllm_core.images import too_many_pixels

_FORMATS: Final = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP")
_MOST_BYTES: Final = 16_000_000  # of what comes out: a reply of the child is in the server's memory for a moment
_MOST_PIXELS_OF_PNG: Final = 8_000_000  # packing more without loss takes seconds
_MOST_BYTES_OF_PNG: Final = 8_000_000
_QUALITIES: Final = (92, 75)  # of JPEG: nobody sees the first, few the second
_END_OF_JPEG: Final = b"\xff\xd9"
_SIXTEEN_BITS: Final = re.compile(r"I;16")

pillow_heif.register_heif_opener()
pillow_heif.options.DECODE_THREADS = 1
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
Image.MAX_IMAGE_PIXELS = None  # counted here, before any is unpacked


def turn_picture(content: bytes) -> Pictured:
    """The first image in a file, the right way up: as PNG with the same pixels, or as JPEG where that is too large.

    Raises:
        UnreadableDocumentError: it is damaged.
        ImageTooLargeError: it has too many pixels, or bytes once it is turned.
    """
    if content.startswith(b"\xff\xd8\xff"):  # one that was cut short
        content += _END_OF_JPEG
    with Image.open(BytesIO(content), formats=_FORMATS) as image:
        if (refusal := too_many_pixels(*image.size)) is not None:
            raise refusal
        warnings = _warnings(image)
        image.load()
        upright = ImageOps.exif_transpose(image) or image
        shown = _in_usual_mode(upright)
    if 0 in shown.size:
        raise UnreadableDocumentError("damaged")
    media_type, turned = _packed(shown)
    return Pictured(turned, media_type, *shown.size, warnings)


def _warnings(image: Image.Image) -> tuple[str, ...]:
    frames = getattr(image, "n_frames", 1)
    if image.format == "JPEG":
        return ("the image was cut short: its end may be missing",)
    if frames < 2 or image.format == "HEIF":  # a phone's other images are depths and previews
        return ()
    if image.format == "TIFF":
        return (f"only the first of {frames} pages of the image was sent",)
    return ("the image is animated: only its first frame was sent",)


def _in_usual_mode(image: Image.Image) -> Image.Image:
    if _SIXTEEN_BITS.match(image.mode):
        image = image.convert("I").point(lambda value: value / 256)  # Pillow knows this form alone
    if image.mode in {"L", "RGB", "RGBA"}:
        return image
    if image.mode in {"1", "I", "F"}:
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _packed(image: Image.Image) -> tuple[str, bytes]:
    if image.width * image.height <= _MOST_PIXELS_OF_PNG:
        file = BytesIO()
        image.save(file, "PNG")
        if len(file.getvalue()) <= _MOST_BYTES_OF_PNG:
            return "image/png", file.getvalue()
    if image.mode == "RGBA":  # on white, as on paper
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    for quality in _QUALITIES:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        if len(file.getvalue()) <= _MOST_BYTES:
            return "image/jpeg", file.getvalue()
    raise ImageTooLargeError(
        f"The image has more than {_MOST_BYTES // 1_000_000} MB once it is turned into JPEG; make it smaller.",
        limit=_MOST_BYTES,
        counts="bytes",
    )
