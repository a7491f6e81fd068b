"""Letters that a font of a PDF gives wrongly in a way that shows which ones they are. Runs in the child alone."""

import re
from typing import Final

_HANGUL: Final = re.compile(r"[\uac00-\ud7a3]")
_FEWEST_BY_BYTES: Final = 8  # letters: so many of Korean words are all two bytes of UTF-8 once in 65,536 times
# The small letters with accents of Windows, and what the old Macintosh has at their codes.
_OF_MACINTOSH: Final = {
    bytes((code,)).decode("mac_roman"): chr(code) for code in range(0xE0, 0x100) if chr(code).isalpha()
}
# Amid small letters no word has these. Others do: the dot of Catalan, a free-standing accent.
_SURELY_MACINTOSH: Final = re.compile(r"(?<=[a-z])[ÂÊÁËÈÍÎÏÌÓÔÒÚÛÙ](?![A-ZÀ-Þ])|(?<=[A-Za-z])[‡‚„‰](?=[a-z])")
_MAYBE_MACINTOSH: Final = re.compile(rf"(?<=[A-Za-z])[{''.join(_OF_MACINTOSH)}](?=[a-z])")
_CODE: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_NAME: Final = re.compile(r"/([A-Za-z](?:_[A-Za-z]){1,3})")


def letters_of_bytes(text: str) -> str:
    """The text where a font says UTF-8 for what should be UTF-16: `킟톀킾킲` is `Пров` then, byte by byte."""
    letters = [ord(letter) for letter in _HANGUL.findall(text)]
    if len(letters) < _FEWEST_BY_BYTES or any(
        not (code >> 8 >= 0xC2 and 0x80 <= code & 0xFF <= 0xBF) for code in letters
    ):
        return text
    return _HANGUL.sub(lambda found: ord(found[0]).to_bytes(2, "big").decode(), text)


def letters_of_windows(text: str) -> str:
    """The text where a font of Windows is taken for one of the old Macintosh: `DurÈe` is `Durée` then."""
    if not _SURELY_MACINTOSH.search(text):
        return text
    for wrong in (_SURELY_MACINTOSH, _MAYBE_MACINTOSH):
        text = wrong.sub(lambda found: _OF_MACINTOSH[found[0]], text)
    return text


def without_codes(text: str) -> str:
    """The text of a font that does not say which characters its codes are: the lowest are a space, or marks."""
    return _CODE.sub(" ", text)


def letters_of_names(text: str) -> str:
    """The text where what stands for several letters is told by its name: `/f_f_i` for `ffi`."""
    return _NAME.sub(lambda found: found[1].replace("_", ""), text)
