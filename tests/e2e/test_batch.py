"""A batch whose process is killed: resumed, each line has one answer, and no more is spent than was allowed."""

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from tests.e2e.conftest import API_KEY, TEXTLLM, Books, Service
from tests.servers.openai import Fault, OpenAIStandIn, Reply

MAX_COST = "2.00"


def environment_of(
    way: str, request: pytest.FixtureRequest, provider: OpenAIStandIn, database: str, folder: Path, user: str
) -> dict[str, str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TEXTLLM_USER": user}
    environment["TEXTLLM_DATA_DIR"] = str(folder / "data")
    if way == "remote":
        service: Service = request.getfixturevalue("service")
        return environment | {"TEXTLLM_SERVER": service.url}
    here = {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": provider.base_url, "DATABASE_URL": database}
    return environment | here


@pytest.mark.parametrize(
    ("way", "lines", "ends"),
    [
        ("in process", 60, [signal.SIGINT, signal.SIGKILL]),
        pytest.param("in process", 500, [signal.SIGKILL] * 10, marks=pytest.mark.slow),
        pytest.param("remote", 500, [signal.SIGKILL] * 10, marks=pytest.mark.slow),
    ],
)
def test_a_batch_that_is_killed_and_resumed_answers_each_line_once(
    request: pytest.FixtureRequest,
    provider: OpenAIStandIn,
    database: str,
    books: Books,
    tmp_path: Path,
    way: str,
    lines: int,
    ends: list[signal.Signals],
) -> None:
    user = f"batch-{tmp_path.name}"
    environment = environment_of(way, request, provider, database, tmp_path, user)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(f"question {n}") + "\n" for n in range(1, lines + 1)))
    output = tmp_path / "out.jsonl"
    command = [
        TEXTLLM,
        "batch",
        "in.jsonl",
        "-o",
        str(output),
        "--resume",
        "--max-cost",
        MAX_COST,
        "--max-tokens",
        "50",
    ]

    def answered() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    chance = random.Random(7)
    for end in ends:
        running = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
        enough = answered() + lines // (len(ends) + 1) - chance.randrange(5)
        deadline = time.monotonic() + 120
        while answered() < enough and running.poll() is None:
            assert time.monotonic() < deadline, end
            time.sleep(0.01)
        running.send_signal(end)
        assert running.wait(120) == (130 if end is signal.SIGINT else -end)
    last = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (last.returncode, last.stdout.partition(",")[0]) == (0, f"{lines} of {lines} lines answered"), last.stderr
    outcomes = [json.loads(line, parse_float=Decimal) for line in output.read_text().splitlines()]
    assert Counter(outcome["line"] for outcome in outcomes) == Counter(range(1, lines + 1))
    said = {f"[0] You said: question {number}" for number in range(1, lines + 1)}
    assert {outcome["reply"]["text"] for outcome in outcomes} == said
    entries = asyncio.run(books.entries(user))
    spent = sum(entry.cost for entry in entries)
    assert sum(entry.answered and entry.status == "completed" for entry in entries) == lines
    assert spent <= sum(outcome["cost"] for outcome in outcomes) <= Decimal(MAX_COST)
    assert asyncio.run(books.drifts()) == []


@pytest.mark.parametrize("way", ["in process", "remote"])
def test_a_line_that_broke_off_says_what_the_books_have_charged(
    request: pytest.FixtureRequest, provider: OpenAIStandIn, database: str, books: Books, tmp_path: Path, way: str
) -> None:
    user = f"batch-{tmp_path.name}"
    environment = environment_of(way, request, provider, database, tmp_path, user)
    (tmp_path / "in.jsonl").write_text('"one"\n"two"\n"three"\n')
    cut = Reply(deltas=("Once ", "upon ", "a time."), end="cut", end_after=2)
    provider.script(cut, Fault.http(400), Reply(text="Yes."))
    command = [TEXTLLM, "batch", "in.jsonl", "--concurrency", "1"]
    told = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    lines = [json.loads(line, parse_float=Decimal) for line in told.stdout.splitlines()]
    entries = asyncio.run(books.entries(user))
    assert (told.returncode, [list(line)[-1] for line in lines]) == (7, ["error", "error", "reply"]), told.stderr
    charged = [(entry.cost, entry.estimated) for entry in entries]
    assert len(charged) == 2
    assert charged[0][0] > 0
    assert [(line["cost"], line["estimated"]) for line in lines] == [charged[0], (0, False), charged[1]]
    assert f"${sum(cost for cost, _ in charged):.4f}"[:6] in told.stderr
