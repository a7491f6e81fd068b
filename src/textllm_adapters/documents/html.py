"""What a browser would show of HTML, as lines. Runs in the child alone."""

import re
from html.parser import HTMLParser
from typing import Final

from textllm_adapters.documents.html_encoding import declared_encoding
from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.plain_text import decode

_SPACE: Final = re.compile(r"[ \n\r\f\v]+")
_AROUND_TAB: Final = re.compile(r" ?\t ?")
_HIDDEN: Final = frozenset({"script", "style"})
_CELLS: Final = frozenset({"td", "th"})
_BLOCKS: Final = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt",
        "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header",
        "hr", "html", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody",
        "tfoot", "thead", "title", "ul",
    }
)  # fmt: skip


def read_html(content: bytes, *, max_chars: int) -> Found:
    """Its text without markup, scripts and styles."""
    lines = Lines(max_chars)
    warnings = add_html(content, lines)
    return Found(lines.text(), warnings=warnings)


def add_html(
    content: bytes, lines: Lines, *, declared: str | None = None, hidden: frozenset[str] = _HIDDEN
) -> tuple[str, ...]:
    """Add the lines of a page; what may be wrong in them.

    Args:
        declared: the encoding, where something else than the page says it.
        hidden: elements that are passed over.
    """
    text, warnings = decode(content, declared=declared or declared_encoding(content))
    parser = _Text(lines, hidden)
    parser.feed(text)
    parser.close()
    parser.end_line()
    return warnings


class _Text(HTMLParser):
    def __init__(self, lines: Lines, hidden: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._hides = hidden
        self._lines = lines
        self._line: list[str] = []
        self._hidden = self._in_row = self._as_written = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the parser's
        if tag in self._hides:
            self._hidden = True
        elif tag == "tr":
            self.end_line()
            self._in_row = True
        elif tag in _CELLS and self._line:
            self._line.append("\t")
        elif tag in _BLOCKS:
            self._end_block()
            self._as_written = self._as_written or tag == "pre"
            if tag == "li":
                self._line.append("- ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hides:
            self._hidden = False
        elif tag in {"tr", "table"}:
            self._in_row = False
            self.end_line()
        elif tag in _BLOCKS:
            self._end_block()
            self._as_written = self._as_written and tag != "pre"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._line.append(data if self._as_written else _SPACE.sub(" ", data))

    def end_line(self) -> None:
        """What has come so far is a line, unless it is blank."""
        line = "".join(self._line)
        if not self._as_written:
            line = _AROUND_TAB.sub("\t", _SPACE.sub(" ", line)).strip(" ")
        self._line.clear()
        if line.strip() not in {"", "-"}:
            self._lines.add(line)

    def _end_block(self) -> None:
        if self._in_row:
            self._line.append(" ")
        else:
            self.end_line()
