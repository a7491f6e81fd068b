"""`textllm ask`, interrupted anywhere in its reply: what was printed is kept, charged to the token, and that is all."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex

import pytest
from tests.e2e.conftest import API_KEY, TEXTLLM, Books, Service, price_of
from tests.servers.openai import OpenAIStandIn, Reply

WORDS = tuple(f"w{number} " for number in range(300))
TEXT = "".join(WORDS)
SETTLING = b"interrupted; settling what it cost (Ctrl-C again leaves at once)\n"
Asking = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture(params=["in process", "remote"])
def asking(request: pytest.FixtureRequest, provider: OpenAIStandIn, database: str, tmp_path: Path) -> Iterator[Asking]:
    """Begins to ask for a user, and is what is cleared up where a test fails."""
    begun: list[subprocess.Popen[bytes]] = []
    if request.param == "remote":
        service: Service = request.getfixturevalue("service")
        way: Mapping[str, str] = {"TEXTLLM_SERVER": service.url}
    else:
        way = {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": provider.base_url, "DATABASE_URL": database}
    folder = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TEXTLLM_DATA_DIR": str(tmp_path / "data")}

    def ask(user: str) -> subprocess.Popen[bytes]:
        asking = subprocess.Popen(
            [TEXTLLM, "ask", "hello"],
            env={**folder, **way, "TEXTLLM_USER": user},
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


@pytest.mark.parametrize("points", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_whatever_was_printed_is_kept_and_its_cost_is_exact(
    asking: Asking, provider: OpenAIStandIn, books: Books, monkeypatch: pytest.MonkeyPatch, points: int
) -> None:
    monkeypatch.setattr(provider, "finish_after_disconnect", True)  # as OpenAI does, which charges for it
    chance = random.Random(14)
    for _ in range(points):
        user, point = f"ada-{token_hex(4)}", chance.randrange(1, len(TEXT) // 2)
        provider.script(Reply(deltas=WORDS, pause_s=0.003))
        running = asking(user)
        assert running.stdout is not None
        said = b""
        while len(said) < point:
            said += running.stdout.read(point - len(said))
        running.send_signal(signal.SIGINT)
        rest, talk = running.communicate(timeout=60)
        printed = (said + rest).removesuffix(b"\n").decode()
        assert (running.returncode, talk) == (130, SETTLING), printed
        assert TEXT.startswith(printed)
        [entry] = asyncio.run(books.entries(user))
        [bill] = [bill for bill in provider.bills if bill.response_id == entry.provider_response_id]
        assert (entry.estimated, entry.cost) == (False, price_of(bill))
        assert entry.status in ("cancelled", "completed")  # a server may have heard all of it by then
        question, reply = asyncio.run(books.said(entry))
        assert (question.text, reply.text.startswith(printed)) == ("hello", True)
        assert TEXT.startswith(reply.text)
    assert asyncio.run(books.drifts()) == []
