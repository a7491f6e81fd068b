"""What the files that people have do to a server: a folder of them sent through REST.

    python -m benchmarks.corpus FOLDER [FILES [SENDERS]]

Starts `textllm serve` with one worker on SQLite before the stand-in provider, and sends it FILES (1000 unless said
otherwise) of the files under FOLDER, taken evenly, SENDERS (4) at a time: images to `/chat/image`, all else to
`/chat/file`. Prints how many were taken, and each refusal with an example; the memory of the worker before, in the
middle and at the end, and the most that parsers had; and what the audit finds. Ends with 1 where an answer is a 5xx, a
refusal has no detail, the worker is another one at the end, or the books do not balance.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
from benchmarks.processes import MB, own_memory
from tests.e2e.conftest import API_KEY, Books, Service, serving
from tests.servers.openai import OpenAIStandIn

IMAGES = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TAKEN, SERVER_ERROR = "taken", 500


class Answered(NamedTuple):
    """How a file was answered: `code` is "taken" where it was."""

    path: Path
    status: int
    code: str
    detail: str
    took_s: float


def chosen(folder: Path, number: int) -> list[Path]:
    """So many of the files, evenly."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [files[place * len(files) // number] for place in range(min(number, len(files)))]


def send(service: Service, path: Path) -> Answered:
    is_image = path.suffix.lower() in IMAGES
    route, field = ("/chat/image", "images") if is_image else ("/chat/file", "file")
    form = {"message": "What is it?", "user_id": f"user_{hash(path) % 50}"}
    began = time.perf_counter()
    with path.open("rb") as content:
        answer = httpx.post(service.url + route, data=form, files={field: (path.name, content)}, timeout=120)
    said = answer.json()
    is_taken = answer.status_code == httpx.codes.OK
    code, detail = (
        ("taken", " ".join(said["text"].split())[:100]) if is_taken else (said["code"], said.get("detail", ""))
    )
    return Answered(path, answer.status_code, code, detail, time.perf_counter() - began)


@contextlib.contextmanager
def watched(worker: psutil.Process) -> Iterator[list[int]]:
    """The most memory that a parser had of its own, last in the list."""
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.1):
            most.append(max(most[-1], *(own_memory(parser) for parser in worker.children(recursive=True)), 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        is_over.set()
        watcher.join()


def run(service: Service, files: Sequence[Path], senders: int) -> list[Answered]:
    """Send all of them; the memory of the worker is told on the way."""
    (worker,) = map(psutil.Process, service.workers())
    answered: list[Answered] = []
    with watched(worker) as most, ThreadPoolExecutor(senders) as pool:
        for part in range(5):
            print(f"worker: {own_memory(worker) / MB:.0f} MB after {len(answered)} files", flush=True)
            some = files[part * len(files) // 5 : (part + 1) * len(files) // 5]
            answered += pool.map(lambda path: send(service, path), some)
        print(f"worker: {own_memory(worker) / MB:.0f} MB after {len(answered)} files; a parser: {most[-1] / MB:.0f} MB")
    return answered


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path)
    asked.add_argument("files", type=int, nargs="?", default=1000)
    asked.add_argument("senders", type=int, nargs="?", default=4)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as name, OpenAIStandIn(api_key=API_KEY) as provider:
        database = f"sqlite:///{name}/textllm.db"
        settings = {"TEXTLLM_COST_LIMIT_PER_SESSION": "100000"}
        with serving(Path(name), provider, database, **settings) as service:
            workers = service.workers()
            answered = run(service, chosen(given.folder, given.files), given.senders)
            is_same_worker = service.workers() == workers
            service.stop()
            log = service.log.read_text()
        drifts = asyncio.run(Books(database).drifts())
    print(f"{sum(answer.code == TAKEN for answer in answered):6} taken")
    refused = [(answer.status, answer.code, answer.detail) for answer in answered if answer.code != TAKEN]
    for (status, code, detail), count in sorted(Counter(refused).items()):
        example = next(answer.path.name for answer in answered if (answer.code, answer.detail) == (code, detail))
        print(f"{count:6} {status} {code}: {detail} {example[-40:]}")
    longest = max(answered, key=lambda answer: answer.took_s)
    print(f"longest: {longest.took_s:.1f} s: {longest.path.name}; drifts of the books: {drifts}")
    print(f"worker restarted: {not is_same_worker}; tracebacks in its log: {log.count('Traceback')}")
    is_bad = any(answer.status >= SERVER_ERROR or not answer.detail for answer in answered)
    return int(is_bad or bool(drifts) or not is_same_worker)


if __name__ == "__main__":
    sys.exit(main())
