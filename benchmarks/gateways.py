"""What a turn costs through TextLLM, beside other gateways and beside the provider alone.

    python -m benchmarks.gateways [--litellm PATH] [--portkey PATH]

Starts each server with one worker on one core, and everything else, load and PostgreSQL included, on the others, before
an upstream that always says the same. In rounds, each server in its turn is asked for whole replies and for streams, on
one connection and on many. Prints the medians of all rounds as a table. docs/performance.md says how LiteLLM and
Portkey are installed, what each figure means, and what ours are. Only figures of one run may be compared.
"""

import argparse
import asyncio
import gc
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil
import uvloop
from benchmarks import servers
from benchmarks.load import Answers, Question, load
from benchmarks.processes import MB, on_cores, own_memory, processor_s
from benchmarks.servers import Server
from benchmarks.streams import migrate
from benchmarks.upstream import DELTAS, upstream
from tests.servers.postgres import PostgresServer

DIRECT, SQLITE, POSTGRES, V1, LITELLM, PORTKEY = (
    "upstream alone",
    "TextLLM, SQLite",
    "TextLLM, PostgreSQL",
    "the same, /v1",
    "LiteLLM",
    "Portkey",
)


class Measured(NamedTuple):
    """What came of a load, and the milliseconds of processor time that one answer took of each."""

    answers: Answers
    worker_ms: float
    postgres_ms: float | None


class Round(NamedTuple):
    """One server in one round, at one connection and at many."""

    chat_alone: Measured
    chat: Measured
    stream_alone: Measured
    stream: Measured


Rounds = Mapping[str, Sequence[Round]]

FIGURES: Final[Mapping[str, Callable[[Round, Round], float | None]]] = {  # of a server's round, and the upstream's own
    "/chat a second": lambda its, _: its.chat.answers.per_s,
    "/chat, 99th percentile, ms": lambda its, _: its.chat.answers.p99_ms,
    "/chat, one connection, ms": lambda its, _: its.chat_alone.answers.median_ms,
    "/chat, one connection, added ms": lambda its, own: (
        its.chat_alone.answers.median_ms - own.chat_alone.answers.median_ms
    ),
    "streams a second": lambda its, _: its.stream.answers.per_s,
    "streams, 99th percentile, ms": lambda its, _: its.stream.answers.p99_ms,
    "first text, one connection, ms": lambda its, _: its.stream_alone.answers.median_first_text_ms,
    "first text, one connection, added ms": lambda its, own: (
        its.stream_alone.answers.median_first_text_ms - own.stream_alone.answers.median_first_text_ms
    ),
    "processor of the worker, ms a /chat": lambda its, _: its.chat.worker_ms,
    "processor of the worker, ms a stream": lambda its, _: its.stream.worker_ms,
    "processor of PostgreSQL, ms a /chat": lambda its, _: its.chat.postgres_ms,
    "processor of PostgreSQL, ms a stream": lambda its, _: its.stream.postgres_ms,
}
RATIOS: Final[Mapping[str, Callable[[Round], float]]] = {
    "/chat a second, times LiteLLM's": lambda its: its.chat.answers.per_s,
    "streams a second, times LiteLLM's": lambda its: its.stream.answers.per_s,
}


@contextmanager
def started(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Server]]:
    """All servers that are asked for and installed, by name."""
    with ExitStack() as stack:
        provider = stack.enter_context(upstream(options.deltas, options.gap_ms / 1000))
        core, running = options.worker_cores, {DIRECT: servers.direct(provider)}

        def on_postgres() -> Server:
            postgres = stack.enter_context(PostgresServer(durable=True))
            url = postgres.create_database()
            asyncio.run(migrate(url))
            its_own = servers.textllm(folder / "postgres", provider, url, core, options.users)
            return stack.enter_context(its_own)._replace(postgres=psutil.Process(postgres.pid))

        def on_sqlite() -> Server:
            url = f"sqlite:///{folder}/textllm.db"
            return stack.enter_context(servers.textllm(folder / "sqlite", provider, url, core, options.users))

        starts: dict[str, Callable[[], Server]] = {SQLITE: on_sqlite, POSTGRES: on_postgres}
        if options.litellm:
            starts[LITELLM] = lambda: stack.enter_context(
                servers.litellm(folder / "litellm", provider, options.litellm, core)
            )
        if options.portkey:
            starts[PORTKEY] = lambda: stack.enter_context(
                servers.portkey(folder / "portkey", provider, options.portkey, core)
            )
        for name, start in starts.items():
            if not options.only or name in options.only:
                say(f"starting {name}")
                running[name] = start()
            if name == POSTGRES and name in running:
                running[V1] = servers.at_v1(running[name], options.users)
        yield running


async def idle_share(process: psutil.Process | None, seconds: float) -> float:
    """Seconds of processor time a second, while nothing is asked."""
    if process is None:
        return 0.0
    before = processor_s(process)
    await asyncio.sleep(seconds)
    return (processor_s(process) - before) / seconds


async def measure(server: Server, question: Question, connections: int, seconds: float, idle: float) -> Measured:
    """`idle` is PostgreSQL's share while nothing is asked."""
    worker, postgres = processor_s(server.worker), processor_s(server.postgres) if server.postgres else 0.0
    answers = await load(server.port, question, connections, seconds)
    count = len(answers.whole_ms)
    worker_ms = (processor_s(server.worker) - worker) / count * 1000
    if server.postgres is None:
        return Measured(answers, worker_ms, None)
    spent = processor_s(server.postgres) - postgres - idle * answers.took_s
    return Measured(answers, worker_ms, spent / count * 1000)


async def measure_all(running: Mapping[str, Server], options: argparse.Namespace) -> Rounds:
    seconds, many = options.seconds, options.connections
    idle = {name: await idle_share(server.postgres, seconds) for name, server in running.items()}
    for server in running.values():  # the first answers of a process are slow, and nobody's measure
        await load(server.port, server.chat, many, seconds)
        await load(server.port, server.stream, many, seconds)
    gc.collect()
    gc.freeze()  # what was imported need not be walked through while others are measured
    rounds: dict[str, list[Round]] = {name: [] for name in running}
    for number in range(options.rounds):
        for name, server in running.items():
            its = Round(
                await measure(server, server.chat, 1, seconds, idle[name]),
                await measure(server, server.chat, many, seconds, idle[name]),
                await measure(server, server.stream, 1, seconds, idle[name]),
                await measure(server, server.stream, many, seconds, idle[name]),
            )
            rounds[name].append(its)
            say(
                f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}: {name}: "
                f"{its.chat.answers.per_s:.0f} /chat a second, {its.stream.answers.per_s:.0f} streams"
            )
    return rounds


def table(rounds: Rounds, running: Mapping[str, Server]) -> str:
    """In Markdown: medians, and the lowest and highest of the rates."""
    lines = [["", *rounds], ["---", *("---:" for _ in rounds)]]
    for figure, of_round in FIGURES.items():
        values = [
            [of_round(its, own) for its, own in zip(rounds[name], rounds[DIRECT], strict=True)] for name in rounds
        ]
        lines.append([figure, *(_cell(of_server, spread="a second" in figure) for of_server in values)])
    if LITELLM in rounds:
        for figure, rate in RATIOS.items():
            ratios = [
                [rate(its) / rate(theirs) for its, theirs in zip(of_server, rounds[LITELLM], strict=True)]
                for of_server in rounds.values()
            ]
            lines.append([figure, *(_cell(of_server) for of_server in ratios)])
    lines.append(["memory of the worker, MB", *(_number(own_memory(s.worker) / MB) for s in running.values())])
    supervisors = (s.supervisor for s in running.values())
    lines.append(["memory of its supervisor, MB", *(_number(own_memory(s) / MB) if s else "" for s in supervisors)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(values: Sequence[float | None], *, spread: bool = False) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    middle = _number(statistics.median(known))
    return f"{middle} ({_number(min(known))}-{_number(max(known))})" if spread else middle


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine(options: argparse.Namespace) -> str:
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    kind = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return (
        f"{os.cpu_count()} cores {kind}, {platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"{options.connections} connections, {options.users} users, {options.deltas} deltas, "
        f"{options.gap_ms:g} ms between them, {options.rounds} rounds of {options.seconds:g} s"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateways", description=__doc__.partition("\n")[0])
    parser.add_argument("--litellm", default=os.environ.get("BENCHMARK_LITELLM"), help="LiteLLM's executable")
    parser.add_argument("--portkey", default=os.environ.get("BENCHMARK_PORTKEY"), help="Portkey's start-server.js")
    parser.add_argument("--only", action="append", choices=[SQLITE, POSTGRES, LITELLM, PORTKEY], help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load; there are four a server and round")
    parser.add_argument("--connections", type=int, default=16, help="of the loads with many")
    parser.add_argument("--users", type=int, default=16, help="who ask TextLLM, a connection each")
    parser.add_argument("--deltas", type=int, default=DELTAS, help="of a reply")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between the pieces of the upstream's streams")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    cores = sorted(psutil.Process().cpu_affinity()) if hasattr(os, "sched_setaffinity") else [0]
    options.worker_cores = set(cores[-1:])
    with (
        tempfile.TemporaryDirectory() as folder,
        on_cores(set(cores[:-1]) or options.worker_cores),
        started(options, Path(folder)) as running,
    ):
        rounds = uvloop.run(measure_all(running, options))
        print(machine(options), table(rounds, running), sep="\n\n")


if __name__ == "__main__":
    main()
