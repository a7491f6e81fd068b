"""`textllm serve` as a process, the stand-in provider beside it, and its books to look into."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import httpx
import httpx2
import openai
import psutil
import pytest
from openai import OpenAI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.openai import described
from tests.servers.openai import Bill, OpenAIStandIn

from textllm_adapters.postgres.engine import open_engine as open_postgres
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.ledger_rows import entry
from textllm_adapters.sql.tables import holds, ledger
from textllm_adapters.sqlite.engine import open_engine as open_sqlite
from textllm_core.records.audit import Drift
from textllm_core.records.messages import Message
from textllm_core.usage import LedgerEntry

TEXTLLM = str(Path(sys.executable).with_name("textllm"))
API_KEY = "sk-test-canary-7f3a"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # else a call outside of tests would load all certificates, in 20 ms

# What these hold is the same over every database, whose suites hold what is theirs: SQLite is for `pytest -m slow`.
OVER_ANY_DATABASE = {
    *("test_both_ways.py", "test_conversations.py", "test_images_and_documents.py", "test_keys.py"),
    *("test_metrics.py", "test_remote_streams.py"),
    *("test_sdk_chat.py", "test_sdk_files.py", "test_sdk_responses.py", "test_several_providers.py", "test_traces.py"),
    "test_a_conversation_goes_on_after_a_restart",
    "test_a_fault_of_the_provider_has_its_code_costs_what_was_billed_and_does_no_lasting_harm",
}


@pytest.hookimpl(tryfirst=True)  # before those marked as slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take one database where it does not matter which."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == Path(__file__).parent:
            callspec = getattr(item, "callspec", None)
            over = callspec.params.get("database") if callspec else None
            if over == "sqlite" and {item.path.name, item.originalname} & OVER_ANY_DATABASE:
                item.add_marker(pytest.mark.slow)


class Service:
    """A running server: its address, its folder, and how to stop it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> None:
        self.folder, self._environment, self._arguments = folder, environment, arguments
        self.log = folder / "serve.log"

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    TEXTLLM,
                    "serve",
                    "--port",
                    str(port),
                    "--grace-s",
                    "1",
                    *self._arguments,
                ],  # the last of a kind counts
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 240  # a busy machine has taken a minute
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it in the orderly way."""
        self.process.terminate()
        assert self.process.wait(120) == 0, self.log.read_text()

    def kill(self) -> None:
        """End it and all its workers at once, whatever they do."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)

    def workers(self) -> list[int]:
        """The ids of the processes that answer."""
        return [child.pid for child in psutil.Process(self.process.pid).children() if lives(child)]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=60)

    def post(self, path: str) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=60)

    def chat(self, message: str, **fields: object) -> httpx.Response:
        return httpx.post(f"{self.url}/chat", json={"message": message} | fields, timeout=60)


def lives(process: psutil.Process) -> bool:
    """Whether it still runs: not one that ended since it was listed, waited for or not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Provider(Protocol):
    """Whatever may be asked in OpenAI's place, at an address that ends in `/v1`."""

    base_url: str


@contextmanager
def serving(folder: Path, provider: Provider, database: str, *arguments: str, **settings: str) -> Iterator[Service]:
    """A server over `database` which asks `provider`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OPENAI_API_KEY": API_KEY,
        "OPENAI_BASE_URL": provider.base_url,
        "DATABASE_URL": database,
        "TEXTLLM_DATA_DIR": str(folder / "data"),
        "TEXTLLM_RATE_LIMIT_PER_MINUTE": "100000",
        "TEXTLLM_READY_CONVERSATIONS": "0",  # tests count what is asked of the provider, and script its answers
    } | settings
    service = Service(folder, environment, arguments)
    try:
        service.start()
        yield service
    finally:
        service.kill()


@pytest.fixture(scope="session")
def provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        yield provider


@pytest.fixture
def own_provider() -> Iterator[OpenAIStandIn]:
    """One of this test alone, for a server over `own_database`."""
    with OpenAIStandIn(api_key=API_KEY) as provider:
        yield provider


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an own database, with all tables."""
    with _new_database(request, request.param, tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.fixture
def own_database(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[str]:
    """The same for one test: `service` would ask its own provider what became of replies that another one has."""
    with _new_database(request, "sqlite" if database.startswith("sqlite") else "postgres", tmp_path) as url:
        yield url


@contextmanager
def _new_database(request: pytest.FixtureRequest, kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        path = folder / "textllm.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite_file"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create_database(template=request.getfixturevalue("migrated_postgres_url"))
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def service(provider: OpenAIStandIn, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of two workers, shared by tests that each bring a user of their own."""
    with serving(tmp_path_factory.mktemp("service"), provider, database, "--workers", "2") as service:
        yield service


def check(response: httpx2.Response) -> None:
    """Each body has the shape that OpenAI's description has."""
    if response.headers.get("content-type") == "application/json":
        response.read()
        described.check(response.request.method, response.request.url.path, response.status_code, response.json())


@pytest.fixture
def own_client(own_service: Service) -> Iterator[OpenAI]:
    """OpenAI's SDK before the `own_service` of a file of tests; it asks once."""
    http = openai.DefaultHttpx2Client(event_hooks={"response": [check]})
    with OpenAI(base_url=f"{own_service.url}/v1", api_key="none", http_client=http, max_retries=0) as client:
        yield client


class Books:
    """What the database of a server says, once nothing runs in it any more."""

    def __init__(self, database: str) -> None:
        self._database = database

    def engine(self) -> AsyncEngine:
        return (open_postgres if self._database.startswith("postgres") else open_sqlite)(self._database)

    async def entries(self, user_id: str) -> list[LedgerEntry]:
        """The user's entries, oldest first, as soon as none of the user's exchanges is running."""
        engine = self.engine()
        try:
            for _ in range(300):
                async with Database(engine).single(EVERYONE) as connection:
                    running = (await connection.execute(select(holds).where(holds.c.user_id == user_id))).all()
                    rows = await connection.execute(
                        select(ledger).where(ledger.c.user_id == user_id).order_by(ledger.c.created_at)
                    )
                    if not running:
                        return [entry(row) for row in rows]
                await asyncio.sleep(0.1)
            raise AssertionError(f"still running after 30 s: {running}")
        finally:
            await engine.dispose()

    async def exact_entries(self, user_id: str) -> list[LedgerEntry]:
        """The same, once the provider has said what each exchange came to; who is slow to answer is asked again."""
        for _ in range(120):
            entries = await self.entries(user_id)
            if not any(entry.estimated for entry in entries):
                return entries
            await asyncio.sleep(0.5)
        raise AssertionError(f"still estimated after 60 s: {entries}")

    async def said(self, entry: LedgerEntry) -> Sequence[Message]:
        """All messages of the conversation of an entry."""
        engine = self.engine()
        try:
            of_it = entry.tenant_id, entry.user_id, entry.conversation_id
            return await SqlConversationRepository(engine).last_messages(*of_it, limit=None)
        finally:
            await engine.dispose()

    async def drifts(self) -> list[Drift]:
        """What the audit of all users finds."""
        engine = self.engine()
        try:
            return [drift async for drift in SqlAudit(engine).drifts()]
        finally:
            await engine.dispose()


@pytest.fixture
def books(database: str) -> Books:
    return Books(database)


@pytest.fixture
def own_books(own_database: str) -> Books:
    return Books(own_database)


def price_of(bill: Bill, *, call: Decimal = Decimal(0)) -> Decimal:
    """USD for gpt-4o, by OpenAI's own price list: 2.50, 1.25 cached, 10.00 out, a million.

    `call`: for one of each tool that ran on its servers.
    """
    usage = bill.usage
    plain = usage.input_tokens - usage.cached_tokens
    return (
        plain * Decimal("2.50") + usage.cached_tokens * Decimal("1.25") + usage.output_tokens * Decimal(10)
    ) / 1_000_000 + call * sum(bill.tool_calls.values())
