"""A failure that a server tells in a 200, in a shape of its own: no reply has begun, and another model is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import PRICE, desk, settings_of
from tests.servers.answering import answering
from tests.servers.picky import picky

from textllm_core.errors import ProviderUnavailableError

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
