"""A failure that a server tells in a 200, in a shape of its own: no reply has begun, and another model is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import PRICE, desk, settings_of
from tests.servers.answering import answering
from tests.servers.picky import picky

from textllm_core import Caller, ReplyEvent, ReplyFailed, TextLLM, TextTurn
from textllm_core.errors import ContextTooLongError, ProviderError, ProviderUnavailableError

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


NO_REPLY: dict[str, tuple[bytes, str]] = {
    "page": (b"<!DOCTYPE html><title>Log in</title>", "a page in the place of an answer"),
    "page behind a blank line": (b"\xef\xbb\xbf\r\n <html><body>Log in", "a page in the place of an answer"),
    "object": (b"{}", "JSON that is no reply"),
    "no error": (b'{"error": null}', "JSON that is no reply"),
    "list": (b"[]", "JSON that is no reply"),
    "event": (b"data: {}\n\n", "JSON that is no reply"),
    "text": (b"OK", "text that is no reply"),
    "nothing": (b"", "nothing came in the place of one"),
    "end": (b"data: [DONE]\n\n", "came in the place of one"),
}


async def failure(textllm: TextLLM, *, streams: bool) -> ProviderError:
    """How a turn fails, as an event or raised."""
    turn = TextTurn("Hello", user_id="ada")
    end: ReplyEvent | None = None
    try:
        if streams:
            end = [event async for event in textllm.send_message.stream(Caller(), turn)][-1]
        else:
            await textllm.send_message(Caller(), turn)
    except ProviderError as error:
        return error
    assert isinstance(end, ReplyFailed)
    assert isinstance(end.error, ProviderError)
    return end.error


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.parametrize("name", NO_REPLY)
async def test_what_is_no_reply_is_named_and_a_page_costs_nothing(
    tmp_path: Path, name: str, api: str, streams: bool
) -> None:
    said, words = NO_REPLY[name]
    async with answering(
        said, "content-type: text/html" if "page" in name else "content-type: text/event-stream"
    ) as it:
        environ = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"http://{it.address}/v1"}
        config = {"llm_api": api, "model": "m", "prices": {"m": PRICE}}
        async with desk(settings_of(tmp_path, config, **environ)) as at:
            error = await failure(at.textllm, streams=streams)
            (entry,) = await at.textllm.send_message.exchange.ledger.entries("default", "ada")
    is_page = "page" in name
    assert (entry.cost == 0, entry.status) == (is_page, "failed" if is_page else "incomplete")
    assert error.charge is not None
    assert (words in str(error), error.charge.cost) == (True, entry.cost)
