"""A reply as Markdown, rendered on a terminal while it is written."""

import sys
import time
from typing import Final

from markdown_it import MarkdownIt
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import SegmentLines
from rich.spinner import Spinner

from textllm_cli.render import PlainText, plain

_REFRESHES_PER_S: Final = 12  # what an eye takes for motion; more would only cost
_ROOM: Final = 2  # lines of a terminal that what moves leaves free
_PARSER: Final = MarkdownIt().enable("table")


class MarkdownPage:
    """Whole blocks are printed once and for all; the last one, which may still change, is drawn again and again."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._plain = PlainText()
        self._rest = ""  # what is not printed for good
        self._is_first = True
        self._drawn_at = 0.0

    def begin(self) -> None:
        """As `Page` has it: something turns until the first text comes."""
        self._console = Console(file=sys.stdout, highlight=False)
        self._plain, self._rest, self._is_first, self._drawn_at = PlainText(), "", True, 0.0
        spinner = Spinner("dots", style="dim")
        self._live = Live(
            spinner, console=self._console, transient=True, refresh_per_second=_REFRESHES_PER_S, redirect_stderr=False
        )
        self._live.start()

    def delta(self, text: str) -> None:
        """As `Page` has it."""
        if self._live is None:
            return
        self._rest += self._plain(text)
        now = time.monotonic()
        if self._rest.strip() and now - self._drawn_at >= 1 / _REFRESHES_PER_S:
            self._drawn_at = now
            self._print_whole_blocks(self._live)
            self._live.update(self._tail(self._rest))

    def end(self) -> None:
        """As `Page` has it."""
        if self._live is None:
            return
        live, self._live = self._live, None
        live.stop()
        if self._rest.strip():
            self._print(self._rest)

    def _print_whole_blocks(self, live: Live) -> None:
        starts = [token.map[0] for token in _PARSER.parse(self._rest) if token.level == 0 and token.map is not None]
        if starts and (line := starts[-1]) > 0:
            lines = self._rest.splitlines(keepends=True)
            whole, self._rest = "".join(lines[:line]), "".join(lines[line:])
            if whole.strip():
                live.update("")
                self._print(whole)

    def _print(self, text: str) -> None:
        if not self._is_first:
            self._console.print()
        self._is_first = False
        self._console.print(_rendered(text))

    def _tail(self, text: str) -> RenderableType:
        """The end of what is written, as much as the terminal shows."""
        lines = self._console.render_lines(_rendered(text), pad=False)
        most = max(1, self._console.height - _ROOM)
        return SegmentLines(lines[-most:], new_lines=True)


def _rendered(text: str) -> Markdown:
    """The text as Markdown, without what its entities, such as `&#x202e;`, would have a terminal obey."""
    markdown = Markdown(text, hyperlinks=False)
    for token in markdown.parsed:
        for each in (token, *(token.children or ())):
            each.content = plain(each.content)
    return markdown
