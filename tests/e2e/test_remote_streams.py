"""The command line as a client of a server, whose streams are cut: by Ctrl-C, and by the network."""

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from decimal import Decimal
from pathlib import Path
from secrets import token_hex

from tests.e2e.conftest import TEXTLLM, Books, Service, price_of
from tests.servers.broken_once import broken_once
from tests.servers.openai import OpenAIStandIn, Reply


def asking(folder: Path, url: str, user: str, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [TEXTLLM, "--server", url, "ask", "hello", *options],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TEXTLLM_USER": user},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_before_the_first_word_ends_the_turn_on_the_server_all_the_same(
    service: Service, provider: OpenAIStandIn, books: Books, tmp_path: Path
) -> None:
    user, gate = f"ada-{token_hex(4)}", threading.Event()

    def turns() -> int:
        return [(request.method, request.path) for request in provider.requests].count(("POST", "/v1/responses"))

    asked = turns()
    provider.script(Reply(deltas=("one", " two"), created_pause_s=0.5, gate=gate))
    try:
        with asking(tmp_path, service.url, user) as running:
            assert running.stdout is not None
            deadline = time.monotonic() + 60
            while turns() == asked:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            running.send_signal(signal.SIGINT)
            assert (running.wait(120), running.stdout.read()) == (130, b"")
        [entry] = asyncio.run(books.entries(user))  # nothing runs any more, while the model would still write
        assert entry.status == "cancelled"
    finally:
        gate.set()


def test_a_lost_connection_is_read_on_and_nothing_is_lost_or_told_twice(
    service: Service, provider: OpenAIStandIn, books: Books, tmp_path: Path
) -> None:
    user, pieces = f"ada-{token_hex(4)}", ("Once ", "upon ", "a ", "time.")
    provider.script(Reply(deltas=pieces, pause_s=0.05))
    with broken_once(service.url) as url, asking(tmp_path, url, user, "--stream-json") as running:
        said, talk = running.communicate(timeout=60)
    events = [json.loads(line) for line in said.decode().splitlines()]
    assert (running.returncode, talk) == (0, b"")
    assert "".join(event["data"]["text"] for event in events if event["event"] == "reply.delta") == "".join(pieces)
    assert [event["event"] for event in (events[0], events[-1])] == ["reply.started", "reply.completed"]
    [entry] = asyncio.run(books.entries(user))
    assert entry.cost == price_of(provider.bills[-1]) == Decimal(str(events[-1]["data"]["cost"]))
