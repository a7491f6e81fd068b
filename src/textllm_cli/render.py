"""All printing: results to stdout, talk to stderr; colour and progress on a terminal only."""

import csv
import io
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import zip_longest
from typing import Final, TextIO

import typer

from textllm_cli.exit_codes import UNEXPECTED, exit_code
from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.list_messages import ListedFile, ListedMessage
from textllm_core.money import ZERO
from textllm_core.problem_details import problem_of_error
from textllm_core.records.hosted import Approval, HostedItem
from textllm_core.records.messages import Reply
from textllm_core.records.parts import InputImage, InputLink
from textllm_core.records.tools import ShownCall, ToolResult
from textllm_core.texts import well_formed
from textllm_core.wire import to_json

# What a terminal would obey, or show in another order than it was written (ECMA-48; Unicode's bidirectional controls).
_STRING: Final = r"\x1b[\]PX^_][^\x07\x1b\x9c\n]*"
_CSI: Final = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*"
_SINGLE: Final = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
_CONTROL: Final = re.compile(rf"{_CSI}[@-~]|{_STRING}(?:\x07|\x9c|\x1b\\)?|\x1b[ -/]*[0-~]|{_SINGLE}")
_UNFINISHED: Final = re.compile(rf"(?:{_CSI}|{_STRING}\x1b?|\x1b[ -/]*)\Z")
_MAX_UNFINISHED: Final = 4096
_OBEYED: Final = re.compile(_SINGLE)

_BAR_COLUMNS: Final = 24
_USUAL_COLUMNS: Final = 80
_DIM: Final = "\x1b[2m{}\x1b[0m"


class PlainText:
    """Takes control sequences out of a text that comes in pieces, wherever the pieces are cut.

    Newlines and tabs stay. What looks like a beginning is held back until the next piece shows what it is.
    """

    def __init__(self) -> None:
        self._held = ""

    def __call__(self, piece: str) -> str:
        """What may be printed by now."""
        text = self._held + piece
        beginning = _UNFINISHED.search(text)
        end = len(text) if beginning is None or len(text) - beginning.start() > _MAX_UNFINISHED else beginning.start()
        self._held = text[end:]
        return _CONTROL.sub("", text[:end])


def plain(text: str) -> str:
    """A whole text without control sequences."""
    return _CONTROL.sub("", text)


class Screen:
    """The two streams of one command.

    Args:
        as_json: results and problems are JSON, a line each, and talk is left out.
        raw: control sequences in a model's text pass as they are.
    """

    def __init__(self, *, as_json: bool = False, raw: bool = False) -> None:
        self.as_json = as_json
        self._raw = raw
        self._out, self._err = sys.stdout, sys.stderr
        for stream in (self._out, self._err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a character that the terminal lacks must not end a reply
        self._plain = PlainText()
        self._at_line_start = True
        self._is_moving = False  # the line of the progress is not at its end
        self._progress = ""  # as it was told last

    # Results

    def result(self, text: str) -> None:
        """A line of text, or several."""
        self._write(self._out, plain(text) + "\n")

    def record(self, record: object, text: str) -> None:
        """A record: its wire shape where JSON is wanted, `text` for people otherwise."""
        if self.as_json:
            self.json(record)
        else:
            self.result(text)

    def json(self, record: object) -> None:
        """A record whose wire shape is wanted in any case."""
        self._write_json(self._out, record)

    def delta(self, text: str) -> None:
        """The next piece of a model's text."""
        shown = text if self._raw else self._plain(text)
        if shown:
            self._at_line_start = shown.endswith("\n")
            self._write(self._out, shown)

    def end_text(self) -> None:
        """The end of a model's text, whole or not: the next thing printed begins a line."""
        self._plain = PlainText()
        if not self._at_line_start:
            self._at_line_start = True
            self._write(self._out, "\n")

    @contextmanager
    def text(self) -> Iterator[None]:
        """A model's text, printed in the block piece by piece; it ends its line however the block ends."""
        try:
            yield
        finally:
            self.end_text()

    def reply(self, reply: Reply, *, is_printed: bool = False) -> None:
        """A whole reply; `is_printed` where its text came in pieces before."""
        if self.as_json:
            self.json(reply)
            return
        if not is_printed:
            self.delta(reply.text)
            self.end_text()
        self.remarks(reply)
        if self._out.isatty() and self._err.isatty():
            tokens = f"{reply.usage.input} tokens in, {reply.usage.output} out"
            cost = f"about {dollars(reply.cost)} (an estimate)" if reply.estimated else dollars(reply.cost)
            self._line(self._dim(f"{tokens} · {cost} · {reply.conversation_id}"))

    def remarks(self, reply: Reply) -> None:
        """What is to be known of a reply beside its text."""
        if not reply.text.strip():
            self.warn("the model answered with no text")
        for warning in reply.warnings:
            self.warn(warning)

    def bars(self, amounts: Sequence[Decimal]) -> Sequence[str]:
        """Amounts as bars of one scale and their room; nothing where stdout is no terminal."""
        longest = max(amounts, default=ZERO)
        if longest == 0 or not self._out.isatty():
            return ["" for _ in amounts]
        block = "█" if self._out.encoding.lower().startswith("utf") else "#"
        return [(block * math.ceil(amount / longest * _BAR_COLUMNS)).ljust(_BAR_COLUMNS + 2) for amount in amounts]

    def messages(self, messages: Sequence[ListedMessage]) -> None:
        """What was said, oldest first, each with its files and the keys to download them by."""
        if self.as_json:
            self.json({"data": messages})
        for message in () if self.as_json else messages:
            who = "you" if message.role == "user" else "model"
            cut = " (cut short)" if message.status == "incomplete" else ""
            self.result(f"{who}{cut}: {message.text}")
            for part in message.content:
                if isinstance(part, InputImage | ListedFile):
                    kind = "image" if isinstance(part, InputImage) else "document"
                    self.result(f"  {kind} {part.name}: {part.key}")
                elif isinstance(part, InputLink):
                    self.result(f"  {part.kind} at {part.url}")
                elif isinstance(part, ShownCall):
                    self.result(f"  asks for {part.name}({part.arguments}), as {part.call_id}")
                elif isinstance(part, ToolResult):
                    self.result(f"  result of {part.call_id}: {part.output}")
                elif isinstance(part, HostedItem):
                    self.result(f"  {part.type} of the provider's own")
                elif isinstance(part, Approval):
                    self.result(f"  {'approves' if part.approve else 'denies'} {part.approval_request_id}")

    # Talk

    def say(self, text: str) -> None:
        """A line for people; left out where JSON is wanted."""
        if not self.as_json:
            self._line(plain(text))

    def warn(self, text: str) -> None:
        """A line that is never left out."""
        self._line(f"warning: {plain(text)}")

    def problem(self, error: TextLLMError) -> None:
        """What went wrong, and the notes that were added to it."""
        if self.as_json:
            self._write_json(self._err, problem_of_error(error))
        else:
            detail = " ".join([str(error), *getattr(error, "__notes__", ())])
            self._line(f"error: {plain(detail)}")

    def model_progress(self, done: int, total: int) -> None:
        """How far the model's file is: a line that moves on a terminal, elsewhere one at each end."""
        if self.as_json:
            return
        text = f"fetching the model: {done * 100 // total} % of {total / 1e6:.0f} MB"
        if text == self._progress:
            return  # what is fetched is unpacked and checked for a while
        self._progress = text
        if self._err.isatty():
            self._is_moving = done < total
            self._write(self._err, f"\r{text}" + ("" if self._is_moving else "\n"))
        elif done >= total or not self._is_moving:
            self._is_moving = done < total
            self._line(text)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """How far something is, as a bar that moves on a terminal; nothing elsewhere."""
        if self.as_json or not self._err.isatty() or not total:
            return
        text = f" {done}/{total} {what}{note}"
        width = os.get_terminal_size(self._err.fileno()).columns or _USUAL_COLUMNS  # some do not say it
        columns = max(0, min(_BAR_COLUMNS, width - len(text) - 1))  # a line that is full would begin another
        bar = ("█" if self._err.encoding.lower().startswith("utf") else "#") * (done * columns // total)
        line = bar.ljust(columns) + text
        self._is_moving, over = done < total, max(0, len(self._progress) - len(line))
        self._progress = line
        self._write(self._err, f"\r{line}{' ' * over}" + ("" if self._is_moving else "\n"))

    # Streams

    def leave_stdout(self) -> None:
        """Nobody reads stdout any more: what is still buffered for it goes nowhere, and without a complaint."""
        if not isinstance(self._out, io.TextIOWrapper):
            return  # no stream of the system's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._out.fileno())
        os.close(nowhere)

    def _dim(self, text: str) -> str:
        is_wanted = not os.environ.get("NO_COLOR") and not is_dumb_terminal()
        return _DIM.format(text) if is_wanted and self._err.isatty() else text

    def _line(self, text: str) -> None:
        if self._is_moving and self._err.isatty():
            self._is_moving, text = False, f"\n{text}"
        self._write(self._err, text + "\n")

    def _write_json(self, stream: TextIO, record: object) -> None:
        """JSON is UTF-8, with a line feed at its end, whatever the terminal's encoding is."""
        stream.flush()
        line = _json_line(record)
        if isinstance(stream, io.TextIOWrapper):
            stream.buffer.write(line.encode())
            stream.flush()
        else:
            self._write(stream, line)

    def _write(self, stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()


@contextmanager
def reporting(*, as_json: bool = False, raw: bool = False) -> Iterator[Screen]:
    """A screen for the block; failures of the block become a problem on it, and the exit code that belongs to them."""
    screen = Screen(as_json=as_json, raw=raw)
    try:
        yield screen
    except TextLLMError as error:
        screen.problem(error)
        raise typer.Exit(exit_code(error)) from None
    except UnicodeEncodeError as error:  # an argument in another encoding, in what is sent to a server or written down
        if str(error.object) == well_formed(str(error.object)):
            raise
        refusal = InvalidRequestError("What you wrote has bytes that are no text in UTF-8; write it in UTF-8.")
        screen.problem(refusal)
        raise typer.Exit(exit_code(refusal)) from None
    except BrokenPipeError:  # whoever read our output has had enough, as `head` has
        screen.leave_stdout()
        raise typer.Exit from None
    except OSError as error:  # such as a full disk under stdout: ours to say, but no error of TextLLM's
        screen.problem(TextLLMError(str(error)))
        screen.leave_stdout()  # else Python tries once more to write what is buffered, and complains
        raise typer.Exit(UNEXPECTED) from None


def is_dumb_terminal() -> bool:
    """Whether it shows text and nothing else, as that of an editor's window; one that has no name may be one."""
    return os.environ.get("TERM", "") in ("", "dumb")


def dollars(amount: Decimal) -> str:
    """USD in as many decimals as it takes: `$0.000405`."""
    return f"${amount.normalize():f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Lines of columns, the first to the left, the others to the right, below their header.

    Args:
        notes: lines of any length behind the first rows.
    """
    lines = [[plain(" ".join(cell.split())) for cell in row] for row in (header, *rows)]
    columns = [
        [cell.rjust(width) if number else cell.ljust(width) for cell in column]
        for number, column in enumerate(zip(*lines, strict=True))
        for width in [max(map(len, column))]
    ]
    aligned = ("  ".join(row) for row in zip(*columns, strict=True))
    return "\n".join(f"{row}  {note}".rstrip() for row, note in zip_longest(aligned, ["", *notes], fillvalue=""))


def comma_separated(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """CSV as RFC 4180 has it, but with line feeds; the last line is without one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().removesuffix("\n")


def outline(values: Mapping[str, object], prefix: str = "") -> str:
    """Nested mappings as lines of `path.to.key: value`."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines.append(outline(value, f"{prefix}{key}."))
        else:
            shown = value if isinstance(value, str) else to_json(value).decode().strip('"')
            lines.append(f"{prefix}{key}: {shown}")
    return "\n".join(lines)


def _json_line(record: object) -> str:
    """A line of JSON. What a terminal would obey can only be inside its strings, where an escape means the same."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", to_json(record).decode()) + "\n"
