"""What text turns notice of hostile files: latencies with and without them, side by side.

    python -m benchmarks.hostile_files [ROUNDS [SENDERS]]

Starts `textllm serve` with one worker on SQLite before the stand-in provider, and asks `/chat` and `/health/live` 20
times a second each, whether or not earlier answers have come. In turns of ten seconds, ROUNDS of each (6 unless said
otherwise), SENDERS (2) meanwhile rest; or rest while as many processes that have nothing to do with the server do
nothing but count; or send every file of `tests/e2e/test_hostile_files.py` over and over. Prints the latencies, their
ratios, what the files were answered with, and the memory of the worker and of all its parsers. The ratios alone mean
anything on another machine: the one against counting is what files cost others beyond a busy processor. Senders and
counters yield to everything else, as senders stand for other machines.
"""

import asyncio
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
from benchmarks.processes import MB, own_memory
from benchmarks.streams import latency
from tests.e2e.conftest import API_KEY, Service, serving
from tests.e2e.test_files import peak_of
from tests.e2e.test_hostile_files import DOCUMENTS, IMAGES
from tests.servers.openai import OpenAIStandIn

TURN_S = 10
RATE = 20
ASKED = {"/chat": ("POST", b'{"message": "Hello"}'), "/health/live": ("GET", b"")}


class HostileFile(NamedTuple):
    """A request of the corpus, and how it must be answered."""

    case: str
    route: str
    field: str
    name: str
    content: Path
    refusal: tuple[int, str]


class Answered(NamedTuple):
    case: str
    took_s: float
    is_as_expected: bool


def corpus(folder: Path) -> list[HostileFile]:
    """All of it, written to the folder."""
    files: list[HostileFile] = []
    for cases, route, field in ((DOCUMENTS, "/chat/file", "file"), (IMAGES, "/chat/image", "images")):
        for case, (name, make, refusal) in cases.items():
            content = folder / f"{len(files)}"
            content.write_bytes(make())
            files.append(HostileFile(case, route, field, name, content, refusal))
    return files


def stand_aside() -> None:
    """Yield to everything else: what is nice in our session is so to the others only if the session is (sched(7))."""
    os.setsid()
    os.nice(19)
    Path("/proc/self/autogroup").write_text("19")


def send(url: str, files: Sequence[HostileFile], goes: Event, answers: "Queue[Answered | None]") -> None:
    """A sender: sends one file after the other for as long as `goes` is set; None says that it rests."""
    stand_aside()
    answers.put(None)
    goes.wait()
    while True:
        for file in files:
            began = time.perf_counter()
            form = {"message": "What is it?", "user_id": "mallory"}
            with file.content.open("rb") as content:
                answer = httpx.post(url + file.route, data=form, files={file.field: (file.name, content)}, timeout=60)
            as_expected = (answer.status_code, answer.json()["code"]) == file.refusal
            answers.put(Answered(f"{file.case} {answer.status_code}", time.perf_counter() - began, as_expected))
            if not goes.is_set():
                answers.put(None)
                goes.wait()


def count(goes: Event, answers: "Queue[Answered | None]") -> None:
    """Keeps a processor busy for as long as `goes` is set; None says that it rests."""
    stand_aside()
    while True:
        answers.put(None)
        goes.wait()
        while goes.is_set():
            sum(range(10_000))


def watch(worker: int, highest: "Queue[int]", is_over: Event) -> None:
    """The most memory that all parsers had at a time, in bytes of their own."""
    stand_aside()
    most = 0
    while not is_over.wait(0.1):
        most = max(most, sum(own_memory(child) for child in psutil.Process(worker).children(recursive=True)))
    highest.put(most)


class Latencies:
    """Milliseconds by route, of each turn."""

    def __init__(self) -> None:
        self.turns: dict[str, list[list[float]]] = {path: [] for path in ASKED}

    def line(self, path: str) -> str:
        taken = sorted(value for turn in self.turns[path] for value in turn)
        return f"{statistics.median(taken):12.1f}{self.p99(path):12.1f}{taken[-1]:12.1f}"

    def last(self, path: str) -> str:
        """Median and worst of the last turn."""
        taken = self.turns[path][-1]
        return f"{statistics.median(taken):.1f} {max(taken):.1f}"

    def p99(self, path: str) -> float:
        return statistics.quantiles([value for turn in self.turns[path] for value in turn], n=100)[98]


async def ask_for_a_turn(service: Service, into: Latencies) -> None:
    async def asked(path: str) -> list[float]:
        method, body = ASKED[path]
        requests = []
        for _ in range(TURN_S * RATE):
            requests.append(asyncio.create_task(latency(service, method, path, body)))
            await asyncio.sleep(1 / RATE)
        return list(await asyncio.gather(*requests))

    for path, taken in zip(ASKED, await asyncio.gather(*map(asked, ASKED)), strict=True):
        into.turns[path].append(taken)


class Disturbers:
    """Processes that rest, or disturb."""

    def __init__(self, processes: Sequence[tuple[Callable[..., None], tuple[object, ...]]]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._goes, self._answers = spawn.Event(), spawn.Queue()
        self._processes = [
            spawn.Process(target=target, args=(*arguments, self._goes, self._answers), daemon=True)
            for target, arguments in processes
        ]
        for process in self._processes:
            process.start()
        self._until_all_rest()

    @contextmanager
    def at_work(self) -> Iterator[list[Answered]]:
        """They disturb until the block ends, and say then what they were answered."""
        answered: list[Answered] = []
        self._goes.set()
        yield answered
        self._goes.clear()
        answered += self._until_all_rest()

    def _until_all_rest(self) -> list[Answered]:
        received: list[Answered] = []
        resting = 0
        while resting < len(self._processes):
            answer = self._answers.get()
            if answer is None:
                resting += 1
            else:
                received.append(answer)
        return received


def senders(service: Service, files: list[HostileFile], number: int) -> Disturbers:
    """Each begins at another file."""
    firsts = [sender * len(files) // number for sender in range(number)]
    return Disturbers([(send, (service.url, files[first:] + files[:first])) for first in firsts])


@contextmanager
def watched(worker: int) -> Iterator["Queue[int]"]:
    spawn = multiprocessing.get_context("spawn")
    highest, is_over = spawn.Queue(), spawn.Event()
    process = spawn.Process(target=watch, args=(worker, highest, is_over), daemon=True)
    process.start()
    try:
        yield highest
    finally:
        is_over.set()


def run(service: Service, files: list[HostileFile], rounds: int, number: int) -> None:
    (worker,) = service.workers()
    quiet, counting, hostile = Latencies(), Latencies(), Latencies()
    counters, sending = Disturbers([(count, ())] * number), senders(service, files, number)
    asyncio.run(ask_for_a_turn(service, Latencies()))  # warms up
    gc.freeze()  # what was imported need not be walked through while latencies are taken
    before = peak_of(worker)
    answered: list[Answered] = []
    with watched(worker) as highest:
        for _ in range(rounds):
            asyncio.run(ask_for_a_turn(service, quiet))
            with counters.at_work():
                asyncio.run(ask_for_a_turn(service, counting))
            with sending.at_work() as answers:
                asyncio.run(ask_for_a_turn(service, hostile))
            answered += answers
            print(
                f"load {os.getloadavg()[0]:.1f}:",
                *(f"{path} {quiet.last(path)} | {counting.last(path)} | {hostile.last(path)} ms" for path in ASKED),
                flush=True,
            )
    print(f"{'ms':28}{'median':>12}{'p99':>12}{'worst':>12}")
    for path in ASKED:
        print(f"{path + ', quiet':28}{quiet.line(path)}")
        for name, taken in ((", counting", counting), (", hostile files", hostile)):
            times = taken.p99(path) / quiet.p99(path)
            print(f"{path + name:28}{taken.line(path)}   p99 {times:.2f} times quiet")
        print(
            f"{path}: p99 beside hostile files {hostile.p99(path) / counting.p99(path):.2f} times that beside counting"
        )
    longest = max(answered, key=lambda answer: answer.took_s)
    print(f"{len(answered)} files refused, {len(answered) / rounds / TURN_S:.1f}/s; longest: {longest.took_s:.1f} s")
    print("not as expected:", dict(Counter(answer.case for answer in answered if not answer.is_as_expected)))
    print(f"worker: {(peak_of(worker) - before) / MB:.0f} MB grown; parsers: {highest.get() / MB:.0f} MB at most")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    with tempfile.TemporaryDirectory() as name, OpenAIStandIn(api_key=API_KEY) as provider:
        folder = Path(name)
        files = corpus(folder)
        with serving(
            folder, provider, f"sqlite:///{folder}/textllm.db", TEXTLLM_COST_LIMIT_PER_SESSION="1000"
        ) as service:
            run(service, files, rounds, number)


if __name__ == "__main__":
    main()
