"""The servers that `benchmarks.gateways` compares, each started before the same upstream."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from benchmarks.load import Question, post
from benchmarks.processes import on_cores
from benchmarks.upstream import WORD, Upstream
from tests.e2e.conftest import serving

MODEL = "gpt-4o"
START_TIMEOUT_S = 120  # LiteLLM takes 20 s on a core of its own
# Loopback, so no keys, like the others; all else but the limits, which the load would meet at once, is as it comes.
UNLIMITED = {
    "TEXTLLM_RATE_LIMIT_PER_MINUTE": "1000000",
    "TEXTLLM_COST_LIMIT_PER_SESSION": "1000000",
    "TEXTLLM_MAX_CONVERSATIONS_PER_USER": "1000000000",  # each turn begins one
    "TEXTLLM_READY_CONVERSATIONS": "4",  # as by default; tests have none
}


class Server(NamedTuple):
    """A server that runs.

    Attributes:
        chat, stream: what to ask for a whole reply, and for a stream.
        worker: who answers.
        supervisor: the worker's parent, where it has one that does nothing else.
        postgres: the first of the database's processes.
    """

    port: int
    chat: Question
    stream: Question
    worker: psutil.Process
    supervisor: psutil.Process | None = None
    postgres: psutil.Process | None = None


def _completions(*users: str, **headers: str) -> tuple[Question, Question]:
    """What is asked of who speaks Chat Completions, on behalf of these users."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    bodies = [asked | {"user": user} for user in users] or [asked]
    plain = [post("/v1/chat/completions", json.dumps(body).encode(), **headers) for body in bodies]
    streamed = [
        post("/v1/chat/completions", json.dumps(body | {"stream": True}).encode(), **headers) for body in bodies
    ]
    return Question(plain, WORD.encode(), b"}"), Question(streamed, WORD.encode(), b"[DONE]")


def direct(upstream: Upstream) -> Server:
    """No gateway at all."""
    return Server(upstream.port, *_completions(), psutil.Process(upstream.pid))


@contextmanager
def textllm(folder: Path, upstream: Upstream, database: str, cores: set[int], users: int) -> Iterator[Server]:
    """`textllm serve`; each turn begins a conversation of one of so many users."""
    folder.mkdir()
    bodies = [json.dumps({"message": "Hello", "user_id": f"user_{n}"}).encode() for n in range(users)]
    chat = Question([post("/chat", body) for body in bodies], WORD.encode(), b"}")
    stream = Question([post("/chat/stream", body) for body in bodies], WORD.encode(), b"[DONE]")
    with ExitStack() as stack:
        with on_cores(cores):
            service = stack.enter_context(serving(folder, upstream, database, **UNLIMITED))
        port = int(service.url.rpartition(":")[2])
        (worker,) = service.workers()
        yield Server(port, chat, stream, psutil.Process(worker), supervisor=psutil.Process(service.process.pid))


def at_v1(server: Server, users: int) -> Server:
    """The same server of TextLLM, asked at the door of OpenAI's clients, where no conversation is kept."""
    chat, stream = _completions(*(f"user_{n}" for n in range(users)))
    return server._replace(chat=chat, stream=stream)


@contextmanager
def litellm(folder: Path, upstream: Upstream, executable: str, cores: set[int]) -> Iterator[Server]:
    """LiteLLM's proxy: one worker, no database, no key; as its page for production has it, it logs errors alone."""
    folder.mkdir()
    parameters = {"model": f"openai/{MODEL}", "api_base": upstream.base_url, "api_key": "sk-none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "litellm_settings": {"telemetry": False, "set_verbose": False},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # which is YAML, too
    environment = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    port = _free_port()
    command = [executable, "--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with _running(command, folder, environment, cores, port, _completions()) as server:
        yield server


@contextmanager
def portkey(folder: Path, upstream: Upstream, script: str, cores: set[int]) -> Iterator[Server]:
    """Portkey's gateway on Node, without its console."""
    folder.mkdir()
    port = _free_port()
    questions = _completions(
        x_portkey_provider="openai", x_portkey_custom_host=upstream.base_url, authorization="Bearer sk-none"
    )
    command = ["node", script, f"--port={port}", "--headless"]
    with _running(command, folder, {"NODE_ENV": "production"}, cores, port, questions) as server:
        yield server


@contextmanager
def _running(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    cores: set[int],
    port: int,
    questions: tuple[Question, Question],
) -> Iterator[Server]:
    """A process of one worker, from its first answer on."""
    log = folder / "output"
    with log.open("wb") as output, on_cores(cores):
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Server(port, *questions, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
