"""What readers make of files: ours beside any other that is installed.

    python -m benchmarks.readers FOLDER [--worst N]

Reads every PDF, DOCX and labelled text under FOLDER. PDFs are compared with what `pdftotext` of poppler-utils finds,
DOCX files with what `pandoc` does. Files in which these find no words are left out. Of some files they give the codes
of characters: one in twenty is a control character then. The figures are of all files, and once more without those. A
figure is the F1 of words: twice those that both have, each as often as it is there, over all of both. Chinese, Japanese
and Thai characters are words. A text is labelled where its folder is named as an encoding is, with the language or
without (`tests/KOI8-R/a.txt`, `iso-8859-2-czech/b.html`), as in the test data of chardet; it is right where all of its
characters are. Whatever is refused counts as nothing.

Ours is read as the server's child does it, within its limits. Others are measured where they are installed beside us:
pypdfium2, pypdf, PyMuPDF, pdfminer.six; markitdown, mammoth, docx2python; chardet, faust-cchardet, chardetng-py,
charset-normalizer. Each file may take them a minute of processor time, however long that takes on a busy machine; how
far it has come is told on standard error.
"""

import argparse
import asyncio
import codecs
import importlib.util
import json
import os
import re
import resource
import statistics
import sys
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from textllm_adapters.documents.document_reader import file_type_of
from textllm_adapters.documents.outcomes import Outcome, found_in
from textllm_core.errors import TextLLMError
from textllm_core.ports.document_reader import FileType
from textllm_core.uploads import Upload

AT_ONCE = os.cpu_count() or 1
MOST_S = 60  # of processor time
MOST_CHARS, MOST_PAGES = 4_000_000, 5_000
TOLD_EVERY = 100  # files
LONGEST_LINE = 2**28  # bytes of a file's text in JSON
# Marks of pages, and what is said beside them, are ours; letters without spaces between words are words, one by one.
MARKS = re.compile(r"^\[(?:page \d|comment: |field |header: |footer: ).*?\]$", re.MULTILINE | re.DOTALL)
UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
MOST_CONTROLS = 0.05  # of a text
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


DETECTORS = ("chardet", "cchardet", "chardetng_py", "charset_normalizer")


class Read(NamedTuple):
    """What a reader made of a file: None where it refused it, or broke."""

    text: str | None
    said: str = ""


Reader = Callable[[Path], Awaitable[Read]]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--worst", type=int, default=0, help="name so many files that ours reads worst, of each kind")
    asked.add_argument("--reader", help=argparse.SUPPRESS)  # a child of this program, see `reader_of`
    given = asked.parse_args()
    if given.reader:
        serve(given.reader)
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
    async with by_program(*reference.split()) as read:
        texts = await at_once(f"{kind}: {reference.split()[0]}", read, files)
    expected = {path: words for path, text in zip(files, texts, strict=True) if (words := words_of(text.text))}
    codes = {path for path, text in zip(files, texts, strict=True) if path in expected and is_codes(text.text or "")}
    print(f"{kind}: {len(files)} files, {len(expected)} with text; *: without {len(codes)} of codes")
    if not expected:
        return
    print(f"{'':20}{'median':>8}{'p10':>8}{'mean':>8}{'< 0.8':>7}{'refused':>9}")
    for name in ("ours", *filter(importlib.util.find_spec, others)):
        async with reader_of(name) as read:
            reads = dict(zip(expected, await at_once(f"{kind}: {name}", read, [*expected]), strict=True))
        figures = {path: f1(words_of(reads[path].text), words) for path, words in expected.items()}
        for mark, counted in (("", [*expected]), (" *", [path for path in expected if path not in codes])):
            if counted and (codes or not mark):
                refused = sum(reads[path].text is None for path in counted)
                print(f"{name + mark:20}{summary([figures[path] for path in counted])}{refused:9}", flush=True)
        if name == "ours":
            for path in sorted(figures, key=lambda path: figures[path])[:worst]:
                print(f"    {figures[path]:.3f}{' *'[path in codes]} {path} {reads[path].said}")


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
    for name in ("ours", *filter(importlib.util.find_spec, DETECTORS)):
        async with reader_of(name, as_name="a.txt") as read:
            reads = dict(zip(expected, await at_once(f"text: {name}", read, [*expected]), strict=True))
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
    return Counter(WORD.findall(unicodedata.normalize("NFKC", MARKS.sub("", text or ""))))


def f1(words: Counter[str], expected: Counter[str]) -> float:
    return 2 * (words & expected).total() / (words.total() + expected.total())


async def at_once(what: str, read: Reader, files: Sequence[Path]) -> list[Read]:
    """What is read of each, so many at a time as there are processors."""
    places, done = asyncio.Semaphore(AT_ONCE), 0

    async def one(path: Path) -> Read:
        nonlocal done
        async with places:
            result = await read(path)
        done += 1
        if done % TOLD_EVERY == 0 or done == len(files):
            print(f"{what}: {done} of {len(files)}", file=sys.stderr, flush=True)
        return result

    return list(await asyncio.gather(*map(one, files)))


@asynccontextmanager
async def by_program(*command: str) -> AsyncIterator[Reader]:
    """By what a program prints of the file `{}`; nothing where it fails, or takes too long."""

    async def read(path: Path) -> Read:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'ulimit -t {MOST_S}; exec "$@"', "sh", *(part.format(path) for part in command)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        text, _ = await process.communicate()
        return Read(text.decode(errors="replace") if process.returncode == 0 else None)

    yield read


@asynccontextmanager
async def reader_of(name: str, *, as_name: str | None = None) -> AsyncIterator[Reader]:
    """By ours or another library, imported once for all files by each of a few processes."""
    idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
    command = (sys.executable, "-W", "ignore", "-m", "benchmarks.readers", "--reader", name, ".")
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    started = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=nowhere, limit=LONGEST_LINE)
        for _ in range(AT_ONCE)
    ]

    async def read(path: Path) -> Read:
        content = await asyncio.to_thread(path.read_bytes)
        file_type: FileType = "txt"
        if name == "ours":
            try:
                file_type = await file_type_of(Upload.of_bytes(as_name or path.name, content))
            except TextLLMError as refusal:
                return refused(refusal)
        process = await idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(path), file_type]).encode() + b"\n")
        printed = json.loads(await process.stdout.readline())
        idle.put_nowait(process)
        return Read(printed) if name != "ours" else ours_of(printed, file_type)

    for process in started:
        idle.put_nowait(process)
    yield read
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def ours_of(printed: str | None, file_type: FileType) -> Read:
    """What our child has told."""
    if printed is None:
        return Read(None, "died")
    try:
        found = found_in(msgspec.json.decode(printed, type=Outcome), file_type)
    except TextLLMError as refusal:
        return refused(refusal)
    return Read(found.text, "; ".join(found.warnings))


def refused(refusal: TextLLMError) -> Read:
    return Read(None, str(getattr(refusal, "reason", refusal.code)))


def serve(name: str) -> None:
    """Tell in JSON what is printed of each file whose path comes, each read by a copy of this process."""
    (module, *further), read = READERS[name]
    library = import_module(module)
    for other in further:
        import_module(other)
    while line := sys.stdin.buffer.readline():
        path, file_type = json.loads(line)
        print(json.dumps(printed_by_a_copy(partial(read, library, Path(path), file_type), path)), flush=True)


def printed_by_a_copy(read: Callable[[], str], path: str) -> str | None:
    """None where it fails, crashes or takes too long. The file is its standard input."""
    out, into = os.pipe()
    copy = os.fork()
    if not copy:
        os.dup2(os.open(path, os.O_RDONLY), sys.stdin.fileno())
        os.dup2(into, sys.stdout.fileno())
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_S, MOST_S))
        with suppress(Exception):
            sys.stdout.buffer.write(read().encode(errors="replace"))
            sys.stdout.buffer.flush()
            os._exit(0)
        os._exit(1)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(copy, 0)
    return text.decode() if status == 0 else None


def ours(child: Any, _: Path, file_type: str) -> str:
    """As the child of the server does, which prints what it finds and ends."""
    child.main("read", file_type, MOST_CHARS, MOST_PAGES)
    return ""


def pypdfium2(library: Any, path: Path, _: str) -> str:
    return "\n".join(page.get_textpage().get_text_range() for page in library.PdfDocument(path))


def pypdf(library: Any, path: Path, _: str) -> str:
    return "\n".join(page.extract_text() for page in library.PdfReader(path).pages)


def fitz(library: Any, path: Path, _: str) -> str:
    return "\n".join(page.get_text() for page in library.open(path))


def pdfminer(library: Any, path: Path, _: str) -> str:
    return str(library.extract_text(path))


def markitdown(library: Any, path: Path, _: str) -> str:
    return str(library.MarkItDown().convert(path).text_content)


def mammoth(library: Any, path: Path, _: str) -> str:
    with path.open("rb") as file:
        return str(library.extract_raw_text(file).value)


def docx2python(library: Any, path: Path, _: str) -> str:
    return str(library.docx2python(path).text)


def decoded(detect: Callable[[Any, bytes], str | None]) -> Callable[[Any, Path, str], str]:
    def read(library: Any, path: Path, _: str) -> str:
        content = path.read_bytes()
        return content.decode(detect(library, content) or "latin-1", "replace")

    return read


# The module of each, with what it imports later, and how it reads a file.
READERS: Mapping[str, tuple[Sequence[str], Callable[[Any, Path, str], str]]] = {
    "ours": ([f"textllm_adapters.documents.{name}" for name in ("child", "pdf", "office", "plain_text", "html")], ours),
    "pypdfium2": (["pypdfium2"], pypdfium2),
    "pypdf": (["pypdf"], pypdf),
    "fitz": (["fitz"], fitz),
    "pdfminer": (["pdfminer.high_level"], pdfminer),
    "markitdown": (["markitdown"], markitdown),
    "mammoth": (["mammoth"], mammoth),
    "docx2python": (["docx2python"], docx2python),
    "chardet": (["chardet"], decoded(lambda chardet, content: chardet.detect(content)["encoding"])),
    "cchardet": (["cchardet"], decoded(lambda cchardet, content: cchardet.detect(content)["encoding"])),
    "chardetng_py": (["chardetng_py"], decoded(lambda chardetng, content: chardetng.detect(content))),
    "charset_normalizer": (
        ["charset_normalizer"],
        decoded(lambda normalizer, content: getattr(normalizer.from_bytes(content).best(), "encoding", None)),
    ),
}


if __name__ == "__main__":
    main()
