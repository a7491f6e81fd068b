"""Routes that are asked for all the time are answered past the framework's router, and as through it."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from litestar import Litestar, Request, post
from litestar.datastructures import State
from tests.http.conftest import JSON, serving
from tests.unit.conftest import Bench

from textllm_http.requests import refuse_query
from textllm_http.responses import WholeResponse
from textllm_http.short_way import ShortWay


class Asked(NamedTuple):
    method: str = "POST"
    query: str = ""
    headers: Mapping[str, str] = JSON
    body: bytes = b'{"message": "Hello", "user_id": "ada"}'


ASKED = {
    "a turn": Asked(),
    "another method": Asked(method="GET"),
    "no method": Asked(method="HEAD"),
    "what may be asked": Asked(method="OPTIONS"),
    "a query": Asked(query="?a=b"),
    "no type": Asked(headers={}),
    "no body": Asked(body=b""),
    "another shape": Asked(body=b'{"message": 1}'),
    "too much": Asked(headers=JSON | {"content-length": "99999999999"}),
    "a wrong key": Asked(headers=JSON | {"authorization": "Bearer tllm_nobody"}),
    "a repeat of nothing": Asked(headers=JSON | {"idempotency-key": "a b"}),
}


@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("kind", sorted(ASKED))
@pytest.mark.parametrize("requires_keys", [False, True])
async def test_both_ways_answer_the_same(kind: str, path: str, requires_keys: bool) -> None:
    method, query, headers, body = ASKED[kind]
    answers = []
    for address in (path, f"{path}/"):  # which are the same to the router alone
        async with serving(Bench(), requires_keys=requires_keys) as server:
            answer = await server.call(method, address + query, [body], headers=headers)
        ids = "x-request-id", "x-response-id", "x-conversation-id"  # of each its own
        said = re.sub(rb"_(t[0-9]{10})?[0-9a-f]{24}", b"", answer.body)
        answers.append((answer.status, {n: v for n, v in answer.headers.items() if n not in ids}, said))
    assert answers[0] == answers[1]


@post("/more")
async def takes_more(request: Request[Any, Any, Any], state: State) -> WholeResponse:
    return WholeResponse()


@post("/sync", sync_to_thread=False)
def does_not_wait(request: Request[Any, Any, Any]) -> WholeResponse:
    return WholeResponse()


@pytest.mark.parametrize("path", ["/more", "/sync"])
def test_there_is_none_for_what_needs_more_of_the_framework(path: str) -> None:
    app = Litestar([takes_more, does_not_wait], before_request=refuse_query, openapi_config=None)
    with pytest.raises(ValueError, match="no short way"):
        ShortWay(app, [path])
