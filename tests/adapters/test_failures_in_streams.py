"""A failure that a server tells in a 200, in a shape of its own: no reply has begun, and another model is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import PRICE, desk, settings_of
from tests.servers.answering import answering
from tests.servers.picky import picky

from textllm_core import Caller
from textllm_core.errors import ContextTooLongError, ProviderUnavailableError

SIGNS_OF_LIFE = b': ping\n\ndata: {"type": "ping"}\n\ndata: {}\n\ndata: {"choices": []}\n\n'
FAILURES: list[Any] = [
    {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None},
    {"choices": None, "usage": {"total_tokens": 0}, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
    {"code": 1302, "msg": "rate limit reached"},
    {"detail": "Rate limit exceeded"},
    {"message": "Internal server error", "status": 500},
    {"error": "overloaded"},
    {"error": "Model is overloaded", "error_type": "overloaded"},
    {"error_code": 336501, "error_msg": "Rate limit reached for RPM", "id": "as-1"},
    {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "slow"}, "RequestId": "r-1"}},
    {"success": False, "errors": [{"code": 3040, "message": "Capacity temporarily exceeded"}], "result": None},
    {"throttlingException": {"message": "Too many tokens, please wait."}},
]


@pytest.mark.parametrize("has_end", [True, False])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(next(iter(failure))))
async def test_another_model_answers(tmp_path: Path, failure: Any, has_end: bool) -> None:
    said = SIGNS_OF_LIFE + b"data: " + json.dumps(failure).encode() + b"\n\n" + b"data: [DONE]\n\n" * has_end
    async with answering(said, "content-type: text/event-stream") as first, picky() as second:
        kind = "chat_completions"
        settings = settings_of(
            tmp_path,
            {
                "model": "fast",
                "providers": {
                    "first": {"kind": kind, "base_url": f"http://{first.address}/v1"},
                    "second": {"kind": kind, "base_url": second.base_url},
                },
                "models": {
                    "fast": {"provider": "first", "price": PRICE, "fallbacks": ["slow"]},
                    "slow": {"provider": "second", "price": PRICE},
                    "alone": {"provider": "first", "price": PRICE},
                },
            },
        )
        async with desk(settings) as at:
            assert (await at.say("Hello")).model == "second/slow"
            with pytest.raises(ProviderUnavailableError):
                await at.say("Hello", model="alone")
            costs = [entry.cost for entry in await at.entries()]
    assert all(cost == 0 for cost in costs[1:])


@pytest.mark.parametrize("is_event", [False, True])
async def test_a_refusal_behind_the_beginning_of_a_response_leaves_nothing(tmp_path: Path, is_event: bool) -> None:
    error = {"code": "context_length_exceeded", "message": "Your input exceeds the context window of this model."}
    created: dict[str, Any] = {
        "type": "response.created",
        "response": {"id": "resp_1", "model": "m", "status": "in_progress"},
    }
    failed: dict[str, Any] = {
        "type": "response.failed",
        "response": {"id": "resp_1", "status": "failed", "error": error},
    }
    end = {"type": "error", **error} if is_event else failed
    said = b"".join(
        b"event: %b\ndata: %b\n\n" % (it["type"].encode(), json.dumps(it).encode()) for it in (created, end)
    )
    async with answering(said, "content-type: text/event-stream") as server:
        environ = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"http://{server.address}/v1"}
        config = {"llm_api": "responses", "model": "m", "prices": {"m": PRICE}}
        async with desk(settings_of(tmp_path, config, **environ)) as at:
            with pytest.raises(ContextTooLongError):
                await at.say("Hello")
            assert await at.entries() == []
            assert (await at.textllm.conversations.list(Caller())).total == 0
