"""A stream whose model is long silent is begun without it."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Answer, serving
from tests.http.sse_reader import read_events
from tests.image_files import png
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderTimeoutError
from textllm_http import sse

TURN = ("/chat/stream", JSON, b'{"message": "Hi"}')
FORM = (
    "/chat/image",
    {"content-type": "multipart/form-data; boundary=bnd"},
    b'--bnd\r\nContent-Disposition: form-data; name="message"\r\n\r\nHi\r\n'
    b'--bnd\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    b'--bnd\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    + png(64, 64)
    + b"\r\n--bnd--\r\n",
)


COMPLETION = ("/v1/chat/completions", JSON, b'{"messages": [{"role": "user", "content": "Hi"}], "stream": true}')
RESPONSE = ("/v1/responses", JSON, b'{"input": "Hi", "stream": true}')
UNKEPT = ("/v1/responses", JSON, b'{"input": "Hi", "stream": true, "store": false}')


@pytest.mark.parametrize(("path", "headers", "body"), [TURN, FORM], ids=["text", "image"])
async def test_a_stream_whose_model_does_not_begin_has_its_headers_and_a_comment_and_then_fails_as_an_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, headers: dict[str, str], body: bytes
) -> None:
    monkeypatch.setattr(sse, "FIRST_COMMENT_AFTER_S", 0.0)
    begins = asyncio.Event()
    bench = Bench(policy=replace(POLICY, begin_within_s=0.0))
    bench.llm.script(ScriptedReply(begins=begins, error=ProviderTimeoutError("Too slow.")))

    def begin_after_a_comment(answer: Answer) -> bool:
        if answer.body == b": keep-alive\n\n":
            begins.set()
        return False

    async with serving(bench, spool_dir=tmp_path / "spool") as server:
        answer = await server.call("POST", path, [body], headers=headers, leave_when=begin_after_a_comment)
    assert answer.status == 200
    assert answer.headers["x-response-id"].startswith("resp_")
    (failure,) = read_events(answer.body)
    assert (failure.name, json.loads(failure.data)["code"]) == ("error", "provider_timeout")
    await bench.check_books()


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("is_answered", [False, True])
@pytest.mark.parametrize(
    ("path", "headers", "body"), [COMPLETION, RESPONSE, UNKEPT], ids=["chat", "response", "unkept"]
)
async def test_the_streams_of_openais_api_are_begun_in_time_too_whether_they_are_kept_or_not(
    path: str, headers: dict[str, str], body: bytes, is_answered: bool, is_whole: bool
) -> None:
    begins = asyncio.Event()
    bench = Bench(policy=replace(POLICY, begin_within_s=0.0))
    error = None if is_answered else ProviderTimeoutError("Too slow.")
    bench.llm.script(ScriptedReply(begins=begins, error=error, is_whole=is_whole))

    def begin_once_it_has_begun(answer: Answer) -> bool:
        if answer.body:
            begins.set()
        return False

    async with serving(bench) as server:
        answer = await server.call("POST", path, [body], headers=headers, leave_when=begin_once_it_has_begun)
    assert answer.status == 200
    assert answer.body.count(b'"role":"assistant","content":""' if "chat" in path else b"event: response.created") == 1
    assert (b"provider_timeout" in answer.body, b"[DONE]" in answer.body) == (
        not is_answered,
        is_answered or "chat" not in path,
    )
    await bench.check_books()


def test_the_headers_and_the_comment_come_within_15_seconds() -> None:
    assert POLICY.begin_within_s + sse.FIRST_COMMENT_AFTER_S < 15
