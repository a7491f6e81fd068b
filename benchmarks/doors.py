"""What a turn costs at the door of OpenAI's clients, beside the same turn at `/chat`.

    python -m benchmarks.doors [--rounds N] [--seconds S] [--connections N] [--gap-ms MS]

Starts one worker on a PostgreSQL of its own before an upstream that always says the same. In rounds, each way of asking
has its turn for a moment, for whole replies and for streams. Prints the processor time that a turn took of the worker
and of PostgreSQL, and how much that is of what the same turn took at `/chat` in the same round: the medians of all
rounds. Only the shares mean anything on another machine, or on one that does other things meanwhile.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import psutil
import uvloop
from benchmarks import servers
from benchmarks.gateways import Measured, idle_share, measure, say
from benchmarks.load import Question, load, post
from benchmarks.servers import MODEL, Server
from benchmarks.streams import migrate
from benchmarks.upstream import DELTAS, WORD, upstream
from tests.servers.postgres import PostgresServer

CHAT, CHAT_ON = "/chat", "/chat, going on"
DOOR, DOOR_ON = (
    ("/v1/chat/completions", "/v1/responses, store: false", "/v1/responses"),
    (
        "/v1/responses, previous_response_id",
        "/v1/responses, conversation",
        "/v1/responses, conversation, store: false",
    ),
)
BASES: Final = {CHAT: CHAT, **dict.fromkeys(DOOR, CHAT), CHAT_ON: CHAT_ON, **dict.fromkeys(DOOR_ON, CHAT_ON)}


class Way(NamedTuple):
    """What is asked in one way: for a whole reply, and for a stream."""

    whole: Question
    stream: Question


class Cost(NamedTuple):
    """Milliseconds of processor time of an answer, of the worker and of PostgreSQL."""

    worker: float
    postgres: float


Round = Mapping[str, tuple[Cost, Cost]]  # by way: of a whole reply, and of a stream


def ways(server: Server, connections: int) -> dict[str, Way]:
    """Each connection asks for a user of its own; what goes on has begun."""
    users = [f"user_{n}" for n in range(connections)]
    chats = [{"message": "Hello", "user_id": user} for user in users]
    asked = [{"model": MODEL, "user": user, "input": "Hello"} for user in users]
    unstored = [{**body, "store": False} for body in asked]
    said = [{"model": MODEL, "user": user, "messages": [{"role": "user", "content": "Hello"}]} for user in users]
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:

        def ids(path: str, bodies: Sequence[Mapping[str, object]]) -> Iterator[str]:
            for body in bodies:
                yield client.post(path, json=body).raise_for_status().json()["id"]

        def on(bodies: Sequence[Mapping[str, object]], name: str, begun: Iterator[str]) -> list[Mapping[str, object]]:
            return [{**body, name: it} for body, it in zip(bodies, begun, strict=True)]

        of_users = [{"user_id": user} for user in users]
        bodies: dict[str, tuple[str, Sequence[Mapping[str, object]]]] = {
            CHAT: ("/chat", chats),
            DOOR[0]: (DOOR[0], said),
            DOOR[1]: ("/v1/responses", unstored),
            DOOR[2]: ("/v1/responses", asked),
            CHAT_ON: ("/chat", on(chats, "conversation_id", ids("/conversations", of_users))),
            DOOR_ON[0]: ("/v1/responses", on(asked, "previous_response_id", ids("/v1/responses", asked))),
            DOOR_ON[1]: ("/v1/responses", on(asked, "conversation", ids("/v1/conversations", asked))),
            DOOR_ON[2]: ("/v1/responses", on(unstored, "conversation", ids("/v1/conversations", asked))),
        }
    return {name: _way(path, of_way, goes_on=name == DOOR_ON[0]) for name, (path, of_way) in bodies.items()}


def _way(path: str, bodies: Sequence[Mapping[str, object]], *, goes_on: bool) -> Way:
    whole = [post(path, json.dumps(body).encode()) for body in bodies]
    stream = [post(path, json.dumps({**body, "stream": True}).encode()) for body in bodies]
    word = WORD.encode()
    return Way(Question(whole, word, b"}", goes_on), Question(stream, word, b"[DONE]", goes_on))


@contextmanager
def started(options: argparse.Namespace) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream(options.deltas, options.gap_ms / 1000) as provider,
        PostgresServer(durable=True) as postgres,
    ):
        url = postgres.create_database()
        asyncio.run(migrate(url))
        cores = psutil.Process().cpu_affinity()
        with servers.textllm(Path(folder) / "server", provider, url, set(cores), options.connections) as server:
            yield server._replace(postgres=psutil.Process(postgres.pid))


async def measured(server: Server, options: argparse.Namespace) -> list[Round]:
    asked = ways(server, options.connections)
    for way in asked.values():  # the first answers of a process are slow, and nobody's measure
        for question in way:
            await load(server.port, question, options.connections, options.seconds)
    idle = await idle_share(server.postgres, options.seconds)
    rounds: list[Round] = []
    for number in range(options.rounds):
        of_round: dict[str, tuple[Cost, Cost]] = {}
        for name, way in asked.items():
            whole, stream = [
                _cost(await measure(server, question, options.connections, options.seconds, idle)) for question in way
            ]
            of_round[name] = whole, stream
        rounds.append(of_round)
        say(f"round {number + 1} of {options.rounds}")
    return rounds


def _cost(of: Measured) -> Cost:
    return Cost(of.worker_ms, of.postgres_ms or 0.0)


def table(rounds: Sequence[Round]) -> str:
    """In Markdown."""
    lines = [
        [
            "",
            "worker, ms",
            "share",
            "PostgreSQL, ms",
            "share",
            "worker, ms a stream",
            "share",
            "PostgreSQL, ms",
            "share",
        ],
        ["---", *["---:"] * 8],
    ]
    for name, base in BASES.items():
        cells = [name]
        for kind in range(2):
            for part in range(2):
                spent = [it[name][kind][part] for it in rounds]
                bases = [it[base][kind][part] for it in rounds]
                # In a short round the system may have counted no time at all.
                shares = [its / of for its, of in zip(spent, bases, strict=True) if of > 0]
                cells += [f"{statistics.median(spent):.2f}", f"{statistics.median(shares):.2f}" if shares else "?"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way, whole and streamed, in a round")
    parser.add_argument("--connections", type=int, default=8, help="a user each")
    parser.add_argument("--deltas", type=int, default=DELTAS, help="of a reply")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between the pieces of the upstream's streams")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    with started(options) as server:
        print(table(uvloop.run(measured(server, options))))


if __name__ == "__main__":
    main()
