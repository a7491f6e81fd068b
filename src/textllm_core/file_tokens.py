"""How many input tokens images and documents make: upper bounds for holds, and about how many for estimates.

Source: OpenAI's guides "Images and vision" and "File inputs". Models read an image either in tiles of 512 pixels, after
fitting it into 2048 x 2048 and its shorter side to 768, or in patches of 32 pixels, at most 10,000 of them, times a
factor of the model, at most 2.46. Of a PDF they read the text and an image of each page.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final, Literal

from msgspec import Struct

_PATCH: Final = 32
_MOST_PATCHES: Final = 10_000
_MOST_PATCHES_OF_A_PAGE: Final = 2_500  # pages are read in the next lower detail
_DEAREST_PATCH: Final = 2.46
_MOST_TILES: Final = 8  # 768 x 2048 pixels
_TILES: Final = (85, 170)  # for the image, and for each tile; other models ask less
_OF_MANY: Final = "4o-mini"  # of whose tokens an image makes more than of any other model's
_TILES_OF_4O_MINI: Final = (2_833, 5_667)
_DENSEST_PAGE: Final = 4_000  # tokens of its text; a page of a printed book has less than 1,000
_USUAL_PAGE: Final = 1_500
_USUAL_FILE_PAGES: Final = 10
_USUAL_IMAGE: Final = 1_024  # patches of 1024 x 1024 pixels
_LARGEST: Final = 3_200  # pixels of a side that make 10,000 patches
_LARGEST_CONTEXT: Final = 1_050_000  # of the models that read files


class FileTokens(Struct, frozen=True):
    """Input tokens of files: at `most`, and `about`."""

    most: int
    about: int

    def __add__(self, other: "FileTokens") -> "FileTokens":
        return FileTokens(self.most + other.most, self.about + other.about)


def dearest_reader(models: Sequence[str]) -> str:
    """That of some models which makes the most tokens of files, so that what any of them reads is no more."""
    return next((model for model in models if _OF_MANY in model), models[0])


def image_tokens(width: int, height: int, *, model: str) -> FileTokens:
    """Tokens of an image of so many pixels."""
    patches = min(ceil(width / _PATCH) * ceil(height / _PATCH), _MOST_PATCHES)
    longer = min(2048.0, 768 * max(width, height) / min(width, height))  # also where the shorter side is not enlarged
    tiles = min(2 * ceil(longer / 512), _MOST_TILES)
    if _OF_MANY in model:
        tokens = _tiled(tiles, _TILES_OF_4O_MINI)
        return FileTokens(tokens, tokens)
    return FileTokens(max(ceil(patches * _DEAREST_PATCH), _tiled(tiles, _TILES)), max(patches, _TILES[0]))


def pdf_tokens(*, pages: int, size: int, model: str, text_bytes: int = 0, is_text_counted: bool = False) -> FileTokens:
    """Tokens of a PDF of so many pages and bytes that the model reads itself.

    Its text makes about a token a byte at most: in a PDF whose fonts let one code stand for several characters, or that
    keeps text beside its pages, it may be more. Where not all text could be counted, it is at least what no honest page
    exceeds, and no more than a token a byte of the file.

    Args:
        text_bytes, is_text_counted: as `Document` has them.
    """
    page = (
        _tiled(_MOST_TILES, _TILES_OF_4O_MINI) if _OF_MANY in model else ceil(_MOST_PATCHES_OF_A_PAGE * _DEAREST_PATCH)
    )
    text = text_bytes if is_text_counted else max(text_bytes, min(pages * _DENSEST_PAGE, size))
    return FileTokens(pages * page + text, max(pages * _USUAL_PAGE, text_bytes // 4))


def linked_tokens(kind: Literal["image", "file"], *, model: str) -> FileTokens:
    """Tokens of what the provider reads at an address, of which nobody here knows how large it is.

    An image makes no more than the largest; a file no more than the largest context of a model.
    """
    if kind == "image":
        return FileTokens(image_tokens(_LARGEST, _LARGEST, model=model).most, _USUAL_IMAGE)
    return FileTokens(_LARGEST_CONTEXT, _USUAL_FILE_PAGES * _USUAL_PAGE)


def _tiled(tiles: int, price: tuple[int, int]) -> int:
    return price[0] + tiles * price[1]
