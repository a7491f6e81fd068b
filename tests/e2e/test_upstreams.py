"""Real servers behind the engine: llama.cpp's own, and OGX, LiteLLM and Portkey before the stand-in.

    pip install ogx==1.5.0, with Python 3.12 or newer
    pip install 'litellm[proxy]'
    npm install @portkey-ai/gateway@1.15.2, with "overrides": {"hono": "4.9.7", "@hono/node-server": "1.13.8"} in
        package.json: with newer ones its streams fail in itself
    TEXTLLM_TEST_OGX=…/bin/ogx TEXTLLM_TEST_LITELLM=…/bin/litellm \
        TEXTLLM_TEST_PORTKEY=…/@portkey-ai/gateway/build/start-server.js pytest -m upstreams tests/e2e/test_upstreams.py
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.adapters.test_providers import Desk, settings_of
from tests.servers.embedded_model import cached_model
from tests.servers.llama import CONTEXT_TOKENS
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.picky import picky

from textllm_adapters.wiring import ask_providers, open_textllm
from textllm_core import Caller, ReplyCompleted, ReplyFailed, TextDelta, TextTurn, TurnOptions
from textllm_core.records.tools import FunctionTool, ToolResult

pytestmark = pytest.mark.upstreams

START_TIMEOUT_S = 120.0  # LiteLLM imports for half a minute where others work beside it
PRICE = {"input": 1, "output": 2}
WEATHER = FunctionTool(
    name="weather", description="The weather of a place.", parameters={"type": "object", "properties": {}}
)


class Upstream(NamedTuple):
    """A server, how it is configured as a provider, and what it stands before."""

    name: str
    provider: dict[str, Any]
    model: str
    process: subprocess.Popen[str]
    behind: OpenAIStandIn | None = None


@contextmanager
def running(command: Sequence[str], folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HOME": str(folder), **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if command[0] == sys.executable else errors,
            stderr=errors,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"it did not start: {(folder / 'errors').read_text()[-2000:]}")


def path_of(variable: str) -> str:
    path = os.environ.get(variable)
    assert path, f"{variable} must say where it is; see above"
    return path


@contextmanager
def llama(folder: Path) -> Iterator[Upstream]:
    command = [sys.executable, "-m", "tests.servers.llama", str(cached_model())]
    with running(command, folder) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (folder / "errors").read_text()[-2000:]
        yield Upstream("llama", {"kind": "chat_completions", "base_url": f"{address}/v1"}, "smol", process)


@contextmanager
def litellm(folder: Path) -> Iterator[Upstream]:
    executable = path_of("TEXTLLM_TEST_LITELLM")
    with OpenAIStandIn(expects_malformed=True) as behind:
        parameters = {"model": "openai/gpt-4o", "api_base": behind.base_url, "api_key": "sk-test"}
        config = {
            "model_list": [{"model_name": "gpt-4o", "litellm_params": parameters}],
            "litellm_settings": {"telemetry": False, "num_retries": 0},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        port = free_port()
        command = [executable, "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
        environ = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        with running(command, folder, **environ) as process:
            wait_for(port, process, folder)
            provider = {"kind": "chat_completions", "base_url": f"http://127.0.0.1:{port}/v1"}
            yield Upstream("litellm", provider, "gpt-4o", process, behind)


@contextmanager
def portkey(folder: Path) -> Iterator[Upstream]:
    script = path_of("TEXTLLM_TEST_PORTKEY")
    with OpenAIStandIn(expects_malformed=True) as behind:
        port = free_port()
        with running(["node", script, f"--port={port}", "--headless"], folder, NODE_ENV="production") as process:
            wait_for(port, process, folder)
            headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": behind.base_url}
            provider = {
                "kind": "chat_completions",
                "base_url": f"http://127.0.0.1:{port}/v1",
                "api_key": "${KEY}",
                "headers": headers,
            }
            yield Upstream("portkey", provider, "gpt-4o", process, behind)


@contextmanager
def ogx(folder: Path, *, kind: str) -> Iterator[Upstream]:
    """OGX, asked by any of the three APIs; it asks the stand-in for chat completions."""
    executable = path_of("TEXTLLM_TEST_OGX")
    with OpenAIStandIn(expects_malformed=True) as behind:
        port, data = free_port(), folder / "ogx"
        data.mkdir()
        in_sql, in_kv = {"backend": "sql_default"}, {"backend": "kv_default", "namespace": "registry"}
        inference = {"base_url": behind.base_url, "api_key": "sk-test"}
        files = {"storage_dir": str(data / "files"), "metadata_store": in_sql | {"table_name": "files"}}
        persistence = {"persistence": {"responses": in_sql | {"table_name": "responses"}}}
        config = {
            "version": 2,
            "distro_name": "behind",
            "apis": ["inference", "responses", "files", "vector_io", "tool_runtime"],
            "providers": {
                "inference": [{"provider_id": "theirs", "provider_type": "remote::openai", "config": inference}],
                "files": [{"provider_id": "local", "provider_type": "inline::localfs", "config": files}],
                "responses": [{"provider_id": "own", "provider_type": "inline::builtin", "config": persistence}],
                "vector_io": [],
                "tool_runtime": [],
            },
            "storage": {
                "backends": {
                    "kv_default": {"type": "kv_sqlite", "db_path": str(data / "kv.db")},
                    "sql_default": {"type": "sql_sqlite", "db_path": str(data / "sql.db")},
                },
                "stores": {
                    "metadata": in_kv,
                    **{name: in_sql | {"table_name": name} for name in ("inference", "conversations", "prompts")},
                    "connectors": in_sql | {"table_name": "connectors"},
                },
            },
            "registered_resources": {
                "models": [
                    {
                        "model_id": "gpt-4o",
                        "provider_id": "theirs",
                        "provider_model_id": "gpt-4o",
                        "model_type": "llm",
                    }
                ]
            },
            "server": {"host": "127.0.0.1", "port": port},
        }
        (data / "config.yaml").write_text(json.dumps(config))
        command = [executable, "run", str(data / "config.yaml"), "--insecure"]
        with running(command, folder, OGX_LOGGING="all=error") as process:
            wait_for(port, process, folder)
            provider = {"kind": kind, "base_url": f"http://127.0.0.1:{port}/v1", "api_key": "${KEY}"}
            yield Upstream("ogx", provider, "theirs/gpt-4o", process, behind)


UPSTREAMS: dict[str, Callable[[Path], AbstractContextManager[Upstream]]] = {
    "llama": llama,
    "litellm": litellm,
    "portkey": portkey,
    "ogx, by Conversations": partial(ogx, kind="openai"),
    "ogx, by Responses": partial(ogx, kind="responses"),
    "ogx, by Chat Completions": partial(ogx, kind="chat_completions"),
}


@pytest.fixture(params=UPSTREAMS)
def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Upstream]:
    with UPSTREAMS[request.param](tmp_path) as upstream:
        yield upstream


def config_of(upstream: Upstream, stand_in: str) -> Mapping[str, Any]:
    spare = {"kind": "chat_completions", "base_url": stand_in}
    return {
        "model": "first",
        "providers": {upstream.name: upstream.provider, "spare": spare},
        "models": {
            "first": {"provider": upstream.name, "model": upstream.model, "price": PRICE, "fallbacks": ["second"]},
            "second": {"provider": "spare", "model": "spare-model", "price": PRICE},
        },
    }


@asynccontextmanager
async def desk(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Desk]:
    async with picky() as spare:
        settings = settings_of(tmp_path, config_of(upstream, spare.base_url), KEY="sk-test")
        async with open_textllm(settings) as textllm:
            yield Desk(textllm)


async def test_chats_streams_and_goes_on(upstream: Upstream, tmp_path: Path) -> None:
    async with desk(tmp_path, upstream) as at:
        options = TurnOptions(max_output_tokens=24)
        first = await at.textllm.send_message(Caller(), TextTurn("Hello", user_id="ada", options=options))
        assert first.text
        heard = ""
        turn = TextTurn("And now?", first.conversation_id, "ada", options=options)
        async for event in at.textllm.send_message.stream(Caller(), turn):
            heard += event.text if isinstance(event, TextDelta) else ""
            if isinstance(event, ReplyCompleted):
                assert event.reply.text == heard
        third = await at.textllm.send_message(Caller(), TextTurn("Bye", first.conversation_id, "ada", options=options))
        assert third.message_number == 3
        entries = await at.entries()
        assert len(entries) == 3
        for entry in entries:
            assert entry.model.startswith(f"{upstream.name}/")
            assert not entry.estimated
            assert entry.usage.input_tokens > 0
            assert entry.cost * 1_000_000 == entry.usage.input_tokens + 2 * entry.usage.output_tokens
        assert [drift async for drift in at.textllm.administration.audit()] == []
        if upstream.behind is not None:
            told = [message["content"] for message in upstream.behind.requests[-1].body["messages"]]
            assert told[-5:] == ["Hello", first.text, "And now?", heard, "Bye"]


async def test_calls_of_tools_come_through(upstream: Upstream, tmp_path: Path) -> None:
    if upstream.behind is None:
        pytest.skip("the demonstration model calls no functions")
    upstream.behind.script(Reply(calls=(("weather", "{}"),)), Reply(text="Rain."))
    async with desk(tmp_path, upstream) as at:
        options = TurnOptions(tools=[WEATHER])
        asked = await at.textllm.send_message(Caller(), TextTurn("Weather?", user_id="ada", options=options))
        assert asked.finish_reason == "tool_calls"
        [call] = list(asked.tool_calls or ())
        turn = TextTurn(
            "",
            asked.conversation_id,
            "ada",
            options=options,
            tool_results=[ToolResult(call_id=call.id, output="wet")],
        )
        assert (await at.textllm.send_message(Caller(), turn)).text == "Rain."


async def test_a_server_that_is_killed_in_mid_reply_is_charged_once_and_another_answers_then(
    upstream: Upstream, tmp_path: Path
) -> None:
    if upstream.behind is not None:
        upstream.behind.script(Reply(deltas=("Once ", *["upon "] * 400), pause_s=0.05))
    async with desk(tmp_path, upstream) as at:
        options = TurnOptions(max_output_tokens=900)
        turn = TextTurn("Tell me a long story about a fox and a crow.", user_id="ada", options=options)
        events, heard = [], 0
        async for event in at.textllm.send_message.stream(Caller(), turn):
            events.append(event)
            heard += isinstance(event, TextDelta)
            if heard == 3:
                upstream.process.kill()
        assert isinstance(events[-1], ReplyFailed)
        [broken] = await at.entries()
        assert (broken.model.split("/")[0], broken.estimated, broken.status) == (upstream.name, True, "incomplete")
        assert broken.usage.output_tokens > 0
        upstream.process.wait()
        await asyncio.sleep(0)
        [conversation] = (await at.textllm.conversations.list(Caller())).data
        reply = await at.say("Go on", conversation.id)
        assert (reply.text, reply.model) == ("Well.", "spare/spare-model")
        assert [entry.model.split("/")[0] for entry in await at.entries()] == [upstream.name, "spare"]
        assert [drift async for drift in at.textllm.administration.audit()] == []


async def test_a_check_tells_how_it_is(upstream: Upstream, tmp_path: Path) -> None:
    found, _ = await ask_providers(settings_of(tmp_path, config_of(upstream, "http://127.0.0.1:9/v1"), KEY="sk-test"))
    assert (found.name, found.is_well) == (upstream.name, True), found.notes
    assert found.contexts == ({"smol": CONTEXT_TOKENS} if upstream.name == "llama" else {})
