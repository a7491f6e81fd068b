"""The encoding that an HTML page says it is in (HTML Standard, "prescan a byte stream to determine its encoding")."""

import codecs
import re
from typing import Final

_SEARCHED: Final = 1024  # bytes
_COMMENT_OR_META: Final = re.compile(rb"<!(?=--).*?(?:-->|\Z)|<meta[\s/]([^>]*)>", re.IGNORECASE | re.DOTALL)
_ATTRIBUTE: Final = re.compile(rb"""([^\s"'>/=]+)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""")
_CHARSET: Final = re.compile(rb"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)

# By Python's names, those that browsers know. They read most old ones as what these have grown to.
_OF_THE_WEB: Final = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "cp1252": "cp1252", "iso8859-9": "cp1254", "cp1254": "cp1254",
    "iso8859-11": "cp874", "tis-620": "cp874", "cp874": "cp874", "shift_jis": "cp932", "cp932": "cp932",
    "euc_kr": "cp949", "cp949": "cp949", "big5": "big5hkscs", "big5hkscs": "big5hkscs", "gb2312": "gb18030",
    "gbk": "gb18030", "gb18030": "gb18030",
} | {
    name: name
    for name in (
        "cp1250", "cp1251", "cp1253", "cp1255", "cp1256", "cp1257", "cp1258", "cp866", "euc_jp", "iso2022_jp",
        "iso8859-2", "iso8859-3", "iso8859-4", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-10",
        "iso8859-13", "iso8859-14", "iso8859-15", "iso8859-16", "koi8-r", "koi8-u", "mac-cyrillic", "mac-roman",
    )
}  # fmt: skip


def declared_encoding(content: bytes) -> str | None:
    """Python's name of what the first `<meta>` says that names a legacy encoding which browsers know.

    UTF-8 is not named: it is tried anyhow. Nor is UTF-16, which no page can be in whose `<meta>` is found.
    """
    for tag in _COMMENT_OR_META.finditer(content[:_SEARCHED]):
        label = None if tag[1] is None else _label(tag[1])
        if label is not None:
            return _encoding(label)
    return None


def _label(meta: bytes) -> bytes | None:
    attributes: dict[bytes, bytes] = {name.lower(): value.strip(b"\"'") for name, value in _ATTRIBUTE.findall(meta)}
    if b"charset" in attributes:
        return attributes[b"charset"]
    if attributes.get(b"http-equiv", b"").lower() != b"content-type":
        return None
    charset = _CHARSET.search(attributes.get(b"content", b""))
    return None if charset is None else charset[1]


def _encoding(label: bytes) -> str | None:
    name = label.decode("latin-1").strip().lower().removeprefix("x-").replace("windows-", "cp")
    try:
        return _OF_THE_WEB.get(codecs.lookup(name).name)
    except (LookupError, ValueError):  # a name that nobody knows, or that has a NUL in it
        return None
