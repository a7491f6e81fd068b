"""What readers make of files: ours beside any other that is installed.

    python -m benchmarks.readers FOLDER [--worst N]

Reads every PDF, DOCX and labelled text under FOLDER. PDFs are compared with what `pdftotext` of poppler-utils finds,
DOCX files with what `pandoc` does. Files in which these find no words are left out, and those of whose characters they
give the codes: one in twenty is a control character then. A figure is the F1 of words: twice those that both have, each
as often as it is there, over all of both. Chinese, Japanese and Thai characters are words. A text is labelled where its
folder is named as an encoding is, with the language or without (`tests/KOI8-R/a.txt`, `iso-8859-2-czech/b.html`), as in
the test data of chardet; it is right where all of its characters are. Whatever is
refused counts as nothing. Others are measured where they are installed beside us: pypdfium2, pypdf, PyMuPDF,
pdfminer.six; markitdown, mammoth, docx2python; chardet, faust-cchardet, chardetng-py, charset-normalizer.
"""

import argparse
import asyncio
import codecs
import importlib.util
import os
import re
import statistics
import sys
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_core.errors import TextLLMError
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

AT_ONCE = os.cpu_count() or 1
TIMEOUT_S = 30.0
# Marks of pages, and what is said beside them, are ours; letters without spaces between words are words, one by one.
OURS = re.compile(r"^\[(?:page \d|comment: |field |header: |footer: ).*?\]$", re.MULTILINE | re.DOTALL)
UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
MOST_CONTROLS = 0.05  # of a text
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


class Read(NamedTuple):
    """What a reader made of a file: None where it refused it, or broke."""

    text: str | None
    said: str = ""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--worst", type=int, default=0, help="name so many files that ours reads worst, of each kind")
    asked.add_argument("--reader", help=argparse.SUPPRESS)  # one reader, one file: a child of this program
    given = asked.parse_args()
    if given.reader:
        sys.stdout.buffer.write(OTHERS[given.reader](given.folder).encode(errors="replace"))
        return
    files = sorted(path for path in given.folder.rglob("*") if path.is_file())
    asyncio.run(measure(files, given.worst))


async def measure(files: Sequence[Path], worst: int) -> None:
    for kind, reference, others in (
        ("pdf", "pdftotext -q -enc UTF-8 {} -", ("pypdfium2", "pypdf", "fitz", "pdfminer")),
        (
            "docx",
            "pandoc -f docx -t plain -s --wrap=none {}",
            ("markitdown", "mammoth", "docx2python"),
        ),
    ):
        await compare(kind, [path for path in files if path.suffix.lower() == f".{kind}"], reference, others, worst)
    await decode([(path, label) for path in files if (label := label_of(path)) is not None], worst)


async def compare(kind: str, files: Sequence[Path], reference: str, others: Sequence[str], worst: int) -> None:
    """Print the table of a kind of files."""
    texts = await at_once(lambda path: output(*(part.format(path) for part in reference.split())), files)
    expected = {
        path: words
        for path, text in zip(files, texts, strict=True)
        if (words := words_of(text.text)) and not is_codes(text.text or "")
    }
    print(f"{kind}: {len(files)} files, {len(expected)} with text")
    if not expected:
        return
    print(f"{'':20}{'median':>8}{'p10':>8}{'mean':>8}{'< 0.8':>7}{'refused':>9}")
    for name in ("ours", *filter(importlib.util.find_spec, others)):
        reads = await at_once(reader_of(name), [*expected])
        figures = {path: f1(words_of(read.text), expected[path]) for path, read in zip(expected, reads, strict=True)}
        refused = sum(read.text is None for read in reads)
        print(f"{name:20}{summary([*figures.values()])}{refused:9}", flush=True)
        if name == "ours":
            said = dict(zip(expected, (read.said for read in reads), strict=True))
            for path in sorted(figures, key=lambda path: figures[path])[:worst]:
                print(f"    {figures[path]:.3f} {path} {said[path]}")


def summary(figures: Sequence[float]) -> str:
    p10 = sorted(figures)[len(figures) // 10]
    below = sum(figure < 0.8 for figure in figures)
    return f"{statistics.median(figures):8.3f}{p10:8.3f}{statistics.mean(figures):8.3f}{below:7}"


async def decode(files: Sequence[tuple[Path, str]], worst: int) -> None:
    """Print how many labelled texts are decoded as their label says."""
    print(f"text: {len(files)} labelled files")
    if not files:
        return
    print(f"{'':20}{'right':>8}{'wrong':>8}{'said so':>9}{'refused':>9}")
    expected = {path: as_labelled(path.read_bytes(), label) for path, label in files}
    for name in (
        "ours",
        *filter(importlib.util.find_spec, DETECTORS),
    ):
        as_text = reader_of(name, as_name="a.txt")
        reads = dict(zip(expected, await at_once(as_text, [*expected]), strict=True))
        refused = [path for path, read in reads.items() if read.text is None]
        texts = {path: plain(read.text) for path, read in reads.items() if read.text is not None}
        wrong = [path for path, text in texts.items() if text not in expected[path]]
        warned = sum(bool(reads[path].said) for path in wrong)
        right = 1 - (len(refused) + len(wrong)) / len(reads)
        print(f"{name:20}{right:8.3f}{len(wrong):8}{warned:9}{len(refused):9}", flush=True)
        if name == "ours":
            for path in (*refused, *wrong)[:worst]:
                print(f"    {path} {reads[path].said}")


def label_of(path: Path) -> str | None:
    """Python's name of the encoding that the folder of a file is named after."""
    parts = path.parent.name.lower().split("-")
    for length in range(len(parts), 0, -1):
        with suppress(LookupError):
            if getattr(codecs.lookup("-".join(parts[:length])), "_is_text_encoding", False):
                return "-".join(parts[:length])
    return None


# What programs have long read files of these labels as, with some more characters.
GROWN = {"gb2312": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949", "tis-620": "cp874"}


def as_labelled(content: bytes, label: str) -> set[str]:
    """What is right: the text in the encoding of that name, and in what that has grown to."""
    return {plain(content.decode(name, "replace")) for name in {label, GROWN.get(label, label)}}


def plain(text: str) -> str:
    """A text without what readers may differ in: marks, line ends, control characters."""
    text = re.sub(r"\r\n?|[\x85\u2028\u2029\v\f]", "\n", text.removeprefix("\ufeff"))
    return CONTROL.sub("", text).strip()


def is_codes(text: str) -> bool:
    return len(CONTROL.findall(text)) >= MOST_CONTROLS * len("".join(text.split()))


def words_of(text: str | None) -> Counter[str]:
    return Counter(WORD.findall(unicodedata.normalize("NFKC", OURS.sub("", text or ""))))


def f1(words: Counter[str], expected: Counter[str]) -> float:
    return 2 * (words & expected).total() / (words.total() + expected.total())


async def at_once(read: Callable[[Path], Awaitable[Read]], files: Sequence[Path]) -> list[Read]:
    """What is read of each, so many at a time as there are processors."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(path: Path) -> Read:
        async with places:
            return await read(path)

    return list(await asyncio.gather(*map(one, files)))


DETECTORS = ("chardet", "cchardet", "chardetng_py", "charset_normalizer")
READER = ChildDocumentReader(at_once=AT_ONCE, max_waiting=8 * AT_ONCE, timeout_s=TIMEOUT_S)


def reader_of(name: str, *, as_name: str | None = None) -> Callable[[Path], Awaitable[Read]]:
    return partial(ours, name=as_name) if name == "ours" else partial(by_other, name)


async def ours(path: Path, *, name: str | None = None) -> Read:
    content = await asyncio.to_thread(path.read_bytes)
    upload = Upload.of_bytes(name or path.name, content)
    try:
        document = await READER.read(upload, owner=Owner("default", path.name), max_chars=4_000_000, max_pages=5_000)
    except TextLLMError as refusal:
        return Read(None, str(getattr(refusal, "reason", refusal.code)))
    return Read(document.text, "; ".join(getattr(document, "warnings", ())))


async def by_other(name: str, path: Path) -> Read:
    return await output(sys.executable, "-W", "ignore", "-m", "benchmarks.readers", "--reader", name, str(path))


async def output(*command: str) -> Read:
    """What a program prints; nothing where it fails, or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            text, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return Read(None)
    return Read(text.decode(errors="replace") if process.returncode == 0 else None)


def pypdfium2(path: Path) -> str:
    return "\n".join(page.get_textpage().get_text_range() for page in import_module("pypdfium2").PdfDocument(path))


def pypdf(path: Path) -> str:
    return "\n".join(page.extract_text() for page in import_module("pypdf").PdfReader(path).pages)


def fitz(path: Path) -> str:
    return "\n".join(page.get_text() for page in import_module("fitz").open(path))


def pdfminer(path: Path) -> str:
    return str(import_module("pdfminer.high_level").extract_text(path))


def markitdown(path: Path) -> str:
    return str(import_module("markitdown").MarkItDown().convert(path).text_content)


def mammoth(path: Path) -> str:
    with path.open("rb") as file:
        return str(import_module("mammoth").extract_raw_text(file).value)


def docx2python(path: Path) -> str:
    return str(import_module("docx2python").docx2python(path).text)


def decoded(detect: Callable[[bytes], str | None]) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        content = path.read_bytes()
        return content.decode(detect(content) or "latin-1", "replace")

    return read


OTHERS: Mapping[str, Callable[[Path], str]] = {
    "pypdfium2": pypdfium2,
    "pypdf": pypdf,
    "fitz": fitz,
    "pdfminer": pdfminer,
    "markitdown": markitdown,
    "mammoth": mammoth,
    "docx2python": docx2python,
    "chardet": decoded(lambda content: import_module("chardet").detect(content)["encoding"]),
    "cchardet": decoded(lambda content: import_module("cchardet").detect(content)["encoding"]),
    "chardetng_py": decoded(lambda content: import_module("chardetng_py").detect(content)),
    "charset_normalizer": decoded(
        lambda content: getattr(import_module("charset_normalizer").from_bytes(content).best(), "encoding", None)
    ),
}


if __name__ == "__main__":
    main()
