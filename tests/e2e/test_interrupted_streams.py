"""Replies that are interrupted anywhere: what was printed is kept, and what it cost is charged to the token."""

import asyncio
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import IO

import pytest
from tests.cli.emulated import emulated
from tests.cli.terminal import CTRL_C
from tests.e2e.conftest import API_KEY, TEXTLLM, Books, Service, price_of
from tests.servers.openai import OpenAIStandIn, Reply

WORDS = tuple(f"w{number} " for number in range(300))
TEXT = "".join(WORDS)
SETTLING = b"interrupted; settling what it cost (Ctrl-C again leaves at once)\n"
Asking = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture(params=["in process", "remote"])
def way(request: pytest.FixtureRequest, provider: OpenAIStandIn, database: str, tmp_path: Path) -> dict[str, str]:
    """The environment of programs that ask in process, or a server."""
    folder = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TEXTLLM_DATA_DIR": str(tmp_path / "data")}
    if request.param == "remote":
        service: Service = request.getfixturevalue("service")
        return folder | {"TEXTLLM_SERVER": service.url}
    return folder | {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": provider.base_url, "DATABASE_URL": database}


@pytest.fixture
def asking(way: dict[str, str], tmp_path: Path) -> Iterator[Asking]:
    """Begins to ask for a user; what it has begun is ended with the test."""
    begun: list[subprocess.Popen[bytes]] = []

    def ask(user: str) -> subprocess.Popen[bytes]:
        asking = subprocess.Popen(
            [TEXTLLM, "ask", "hello"],
            env={**way, "TEXTLLM_USER": user},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what is read ahead would be lost to `communicate`
        )
        begun.append(asking)
        return asking

    yield ask
    for each in begun:
        each.kill()
        each.communicate()


def read(stream: IO[bytes] | None, length: int) -> bytes:
    assert stream is not None
    said = b""
    while len(said) < length and (piece := stream.read(length - len(said))):
        said += piece
    return said


def check_kept(user: str, printed: str, provider: OpenAIStandIn, books: Books) -> None:
    """What was printed is kept, as a part of all that was written by then, and what the provider bills is charged."""
    [entry] = asyncio.run(books.entries(user))
    [bill] = [bill for bill in provider.bills if bill.response_id == entry.provider_response_id]
    assert (entry.estimated, entry.cost) == (False, price_of(bill))
    assert entry.status in ("cancelled", "completed")  # a server may have heard all of it by then
    question, reply = asyncio.run(books.said(entry))
    assert (question.text, reply.text.startswith(printed), TEXT.startswith(reply.text)) == ("hello", True, True)


def test_a_reply_that_is_cut_short_is_charged_for_what_the_provider_bills(
    asking: Asking, provider: OpenAIStandIn, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "finish_after_disconnect", True)  # as OpenAI does, which charges for it
    user, gate, point = f"ada-{token_hex(4)}", threading.Event(), len(TEXT) // 2
    provider.script(Reply(deltas=(TEXT[:point], TEXT[point:]), gate=gate))
    running = asking(user)
    try:
        assert read(running.stdout, point) == TEXT[:point].encode()
        running.send_signal(signal.SIGINT)
        assert read(running.stderr, len(SETTLING)) == SETTLING
    finally:
        gate.set()
    assert (running.communicate(timeout=60), running.returncode) == ((b"\n", b""), 130)
    check_kept(user, TEXT[:point], provider, books)


@pytest.mark.slow
def test_at_50_points_of_a_stream_whatever_was_printed_is_kept_and_its_cost_is_exact(
    asking: Asking, provider: OpenAIStandIn, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "finish_after_disconnect", True)
    chance = random.Random(14)
    for _ in range(50):
        user, point = f"ada-{token_hex(4)}", chance.randrange(1, len(TEXT) // 2)
        provider.script(Reply(deltas=WORDS, pause_s=0.003))
        running = asking(user)
        said = read(running.stdout, point)
        running.send_signal(signal.SIGINT)
        rest, talk = running.communicate(timeout=60)
        printed = (said + rest).removesuffix(b"\n").decode()
        assert (running.returncode, talk, TEXT.startswith(printed)) == (130, SETTLING, True), printed
        check_kept(user, printed, provider, books)
    assert asyncio.run(books.drifts()) == []


@pytest.mark.slow
def test_a_chat_has_its_prompt_back_at_once_and_its_books_are_exact(
    way: dict[str, str], provider: OpenAIStandIn, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "finish_after_disconnect", True)
    user = f"ada-{token_hex(4)}"
    with emulated(["chat"], {**way, "TEXTLLM_USER": user, "TERM": "xterm"}, columns=40, program=[TEXTLLM]) as screen:
        screen.wait_for_prompt()
        for turn in range(10):
            provider.script(Reply(deltas=tuple(f"{turn}.{number} " for number in range(300)), pause_s=0.005))
            screen.press(f"turn {turn}\r".encode())
            screen.wait_for(f"{turn}.15")
            screen.press(CTRL_C)
            screen.wait_for_prompt()
            assert f"{turn}.299" not in screen.text  # the model was still writing when the prompt came back
        screen.press(b"/quit\r")
        assert screen.end() == 0
    entries = asyncio.run(books.entries(user))
    costs = {bill.response_id: price_of(bill) for bill in provider.bills}
    told = [(entry.status, entry.estimated, entry.cost) for entry in entries]
    assert told == [("cancelled", False, costs[entry.provider_response_id or ""]) for entry in entries]
    assert (len(entries), asyncio.run(books.drifts())) == (10, [])
