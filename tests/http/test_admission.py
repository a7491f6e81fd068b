"""What headers say of a turn: that it is a repeat, and what is left of the rate limit."""

import asyncio
from base64 import b64encode
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Server, serving
from tests.http.sse_reader import Received, read_events
from tests.http.test_chat_files import A_PNG, NOTES, form_of
from tests.image_files import png
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderError

KEYED = JSON | {"idempotency-key": "key-1"}
ASKED = {"message": "hi", "user_id": "ada"}


async def test_a_repeat_has_the_same_status_and_body_and_says_so(server: Server) -> None:
    first, again = [await server.post("/chat", ASKED, KEYED) for _ in range(2)]
    assert (again.status, again.body) == (first.status, first.body)
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert len(server.bench.llm.requests) == 1


async def test_a_body_that_asks_for_the_same_in_other_words_is_the_same(server: Server) -> None:
    await server.post("/chat", ASKED, KEYED)
    again = await server.post("/chat", b'{"user_id": "ada",  "message": "\\u0068i", "model": null}', KEYED)
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_failure_is_repeated_with_its_status_and_code(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(error=ProviderError("It broke.")))
    first, again = [await server.post("/chat", ASKED, KEYED) for _ in range(2)]
    assert first.status == again.status == 502
    assert first.json() | {"instance": ""} == again.json() | {"instance": ""}
    assert again.headers["idempotent-replayed"] == "true"


async def test_another_body_with_the_same_key_is_refused(server: Server) -> None:
    await server.post("/chat", ASKED, KEYED)
    other = await server.post("/chat", ASKED | {"message": "other"}, KEYED)
    assert (other.status, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_key_counts_for_its_route_alone(server: Server) -> None:
    await server.post("/chat", ASKED, KEYED)
    streamed = await server.post("/chat/stream", ASKED, KEYED)
    assert "idempotent-replayed" not in streamed.headers


async def test_a_repeat_while_the_first_runs_is_refused_and_may_come_again(server: Server) -> None:
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    first = asyncio.create_task(server.post("/chat", ASKED, KEYED))
    while not server.bench.llm.requests:  # noqa: ASYNC110 - until the first one runs
        await asyncio.sleep(0)
    busy = await server.post("/chat", ASKED, KEYED)
    assert (busy.status, busy.json()["code"], busy.headers["retry-after"]) == (409, "idempotency_in_progress", "1")
    gate.set()
    finished = await first
    assert (await server.post("/chat", ASKED, KEYED)).body == finished.body


async def test_a_stream_is_replayed_with_the_same_ids_text_and_end(server: Server) -> None:
    asked = ASKED | {"stream_format": "events"}
    first, again = [await server.post("/chat/stream", asked, KEYED) for _ in range(2)]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-conversation-id"] == first.headers["x-conversation-id"]
    told, retold = read_events(first.body), read_events(again.body)
    assert (retold[0].data, retold[-1]) == (told[0].data, replace_id(told[-1], retold[-1].last_id))


def replace_id(event: Received, last_id: str) -> Received:
    return Received(event.name, event.data, last_id)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + b64encode(png(8, 8)).decode()}}
FORM = {"content-type": "multipart/form-data; boundary=bnd"}
REPEATABLE: dict[str, tuple[str, object]] = {
    "chat": ("/chat", ASKED),
    "stream": ("/chat/stream", ASKED),
    "image": ("/chat/image", form_of([A_PNG], {"message": "hi", "user_id": "ada"})),
    "document": ("/chat/file", form_of([NOTES], {"message": "hi", "user_id": "ada"})),
    "response": ("/v1/responses", {"input": "hi", "user": "ada"}),
    "response of which nothing is kept": ("/v1/responses", {"input": "hi", "user": "ada", "store": False}),
    "response in the background": ("/v1/responses", {"input": "hi", "user": "ada", "background": True}),
    "completion": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "user": "ada"}),
    "completion with an image": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "hi"}]}], "user": "ada"},
    ),
}


@pytest.mark.parametrize("turn", REPEATABLE)
async def test_a_repeat_uses_up_nothing_of_the_rate_limit_at_any_door(turn: str, tmp_path: Path) -> None:
    path, body = REPEATABLE[turn]
    headers = (FORM if isinstance(body, bytes) else JSON) | {"idempotency-key": "key-1"}
    if path.startswith("/v1"):
        body = {"model": "gpt-4o", **body}  # type: ignore[dict-item]
    files = replace(SCRIPTED_FILE_POLICY, rate_per_minute=2)
    bench = Bench(policy=replace(POLICY, rate_per_minute=2), file_policy=files)
    async with serving(bench, spool_dir=tmp_path / "spool") as server:
        first = await server.post(path, body, headers)
        assert first.status == 200, first.body
        await bench.running.drain(10)
        again = [await server.post(path, body, headers) for _ in range(3)]
        assert [answer.headers.get("idempotent-replayed") for answer in again] == ["true"] * 3
        other = await server.post("/chat", ASKED)
        assert (other.status, other.headers["ratelimit"][:10]) == (200, '"turns";r=')
        assert (await server.post("/chat", ASKED)).status == 429


@pytest.mark.parametrize("key", ["", " ", "a b", "\u00fc", "x" * 256])
async def test_a_malformed_key_is_refused(server: Server, key: str) -> None:
    answer = await server.post("/chat", ASKED, JSON | {"idempotency-key": key})
    assert (answer.status, answer.json()["errors"][0]["field"]) == (400, "Idempotency-Key")


async def test_every_admitted_turn_says_what_is_left_of_the_rate_limit() -> None:
    async with serving(Bench(policy=replace(POLICY, rate_per_minute=3))) as server:
        server.bench.llm.script(ScriptedReply(), ScriptedReply(error=ProviderError("It broke.")))
        answers = [await server.post(path, ASKED) for path in ("/chat", "/chat", "/chat/stream", "/chat")]
        assert [answer.status for answer in answers] == [200, 502, 200, 429]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"turns";q=3;w=60'}
        assert [answer.headers["ratelimit"] for answer in answers] == [
            '"turns";r=2;t=20',
            '"turns";r=1;t=40',
            '"turns";r=0;t=60',
            '"turns";r=0;t=20',
        ]
        assert answers[-1].headers["retry-after"] == "20"
