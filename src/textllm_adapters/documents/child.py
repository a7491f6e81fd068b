"""The program that reads one document and ends: `python -I -m textllm_adapters.documents.child`.

Its arguments are what to do, the file's type, and how many characters and pages there may be. The file comes on
standard input; an `Outcome` goes to standard output. It first gives up whatever a parser does not need.
"""

import logging
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec import json

from textllm_adapters.documents.crashes import CrashedPages, outlive
from textllm_adapters.documents.outcomes import Outcome, Unreadable, outcome_of
from textllm_core.errors import TextLLMError

_MEMORY_BYTES: Final = 768 * 1024 * 1024
_LIMITS: Final[Mapping[int, tuple[int, int]]] = {
    resource.RLIMIT_AS: (_MEMORY_BYTES, _MEMORY_BYTES),
    resource.RLIMIT_CPU: (10, 11),  # seconds; the signal at the lower one says what it was
    resource.RLIMIT_FSIZE: (0, 0),
    resource.RLIMIT_NOFILE: (64, 64),
    resource.RLIMIT_CORE: (0, 0),
}


def main(action: str, file_type: str, max_chars: int, max_pages: int) -> None:
    """Read one document."""
    # Imported before the limits hold, so that compiled modules can be written, and failures be seen.
    crashed = CrashedPages()
    read = task(action, file_type, max_chars, max_pages, crashed)
    _give_up_privileges()
    content = sys.stdin.buffer.read()
    if file_type == "pdf" and action != "inspect":
        outlive(partial(_tell, read, content), crashed)
    _tell(read, content)
    os._exit(0)  # nothing is left to tidy up, however much there is


def _tell(read: Callable[[bytes], Outcome], content: bytes) -> None:
    sys.stdout.buffer.write(json.encode(outcome(read, content)))
    sys.stdout.buffer.flush()


def task(
    action: str, file_type: str, max_chars: int, max_pages: int, crashed: CrashedPages
) -> Callable[[bytes], Outcome]:
    """What reads a document, or does what else is asked; the limits of the process do not hold yet."""
    match action, file_type:
        case "inspect", "pdf":
            from textllm_adapters.documents.pdf import measure_pdf

            return partial(measure_pdf, max_pages=max_pages)
        case "read", "pdf":
            from textllm_adapters.documents.pdf import read_pdf

            return partial(read_pdf, max_chars=max_chars, max_pages=max_pages, crashed=crashed)
        case "read", "docx":
            from textllm_adapters.documents.office import read_package

            return partial(read_package, max_chars=max_chars)
        case "read", "rtf":
            from textllm_adapters.documents.rich_text import read_rtf

            return partial(read_rtf, max_chars=max_chars)
        case "read", "eml":
            from textllm_adapters.documents.mail import read_eml

            return partial(read_eml, max_chars=max_chars)
        case "read", "html":
            from textllm_adapters.documents.html import read_html

            return partial(read_html, max_chars=max_chars)
        case "draw", _:
            from textllm_adapters.documents.pdf_pages import draw_pages

            return partial(draw_pages, most=max_pages, crashed=crashed)
        case "picture", _:
            from textllm_adapters.documents.pictures import turn_picture

            return turn_picture
        case "read", _:
            from textllm_adapters.documents.plain_text import read_plain_text

            return partial(read_plain_text, max_chars=max_chars)
    raise ValueError(action)


def _give_up_privileges() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # a parser's complaints repeat the document
    logging.disable()
    for kind, limits in _LIMITS.items():
        _, most = resource.getrlimit(kind)
        soft, hard = limits if most == resource.RLIM_INFINITY else (min(limit, most) for limit in limits)
        with suppress(ValueError, OSError):  # macOS refuses some of them
            resource.setrlimit(kind, (soft, hard))


def outcome(read: Callable[[bytes], Outcome], content: bytes) -> Outcome:
    """What came of a document, whatever its parser raised."""
    try:
        return read(content)
    except TextLLMError as error:
        return outcome_of(error)
    except (MemoryError, RecursionError):
        return Unreadable("too_complex")
    except Exception:  # noqa: BLE001 - what a parser raises on a broken file is not foreseeable
        return Unreadable("damaged")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
