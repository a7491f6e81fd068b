"""A stream ends with the key that asked for it."""

import asyncio
import json
from datetime import timedelta

import pytest
from tests.http.conftest import JSON, Answer, serving
from tests.http.sse_reader import read_events
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller
from textllm_http import sse

STREAMS = {
    "events": ("/chat/stream", {"message": "Hi", "stream_format": "events"}, "reply.failed"),
    "text": ("/chat/stream", {"message": "Hi", "stream_format": "text"}, "error"),
    "chunks": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}, "message"),
}


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_whose_key_is_revoked_ends_and_is_settled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, body, last = STREAMS[kind]
    monkeypatch.setattr(sse, "CHECK_EVERY_S", 0)
    administration, admin, gate = memory_administration(bench.store, bench.clock), Caller(role="admin"), asyncio.Event()
    issued = await administration.issue_api_key(admin, role="user", user_id="ada")
    bench.llm.script(ScriptedReply(deltas=("shown", "never shown", "nor this"), gate=gate, unheard="cancelled"))
    revoking: list[asyncio.Task[None]] = []

    async def revoke() -> None:
        await administration.revoke_api_key(admin, issued.id)
        bench.clock.advance(timedelta(seconds=1))
        gate.set()

    def revoke_once_it_has_begun(answer: Answer) -> bool:
        if b"shown" in answer.body and not revoking:
            revoking.append(asyncio.create_task(revoke()))
        return False

    async with serving(bench, requires_keys=True) as server:
        answer = await server.call(
            "POST",
            path,
            [json.dumps(body).encode()],
            headers=JSON | {"authorization": f"Bearer {issued.secret}"},
            leave_when=revoke_once_it_has_begun,
        )
        events = read_events(answer.body)
        told = json.loads(events[-1].data)
        assert (events[-1].name, told.get("error", told)["code"]) == (last, "unauthenticated")
        assert b"never" not in answer.body
        (entry,) = await bench.entries()
        assert entry.status == "cancelled"
