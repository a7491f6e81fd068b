"""What a turn asks goes the way that the SDK's settings say, though not through the SDK."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from tests.contracts.model_fixtures import QUICK
from tests.servers.answering import answering

from textllm_adapters.openai.client import Client, open_client
from textllm_adapters.openai.connections import Answer
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.errors import BROKEN_ANSWER
from textllm_adapters.openai.http import EventStream, post
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import hear, request, user
from textllm_core.errors import ProviderError
from textllm_core.steps import Step

MADE = b'{"id": "conv_1", "created_at": 0, "data": []}'
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def made_and_read(client: Client) -> None:
    """A call on each way: one that turns make, and one that is rare."""
    transcript = OpenAITranscript(client, QUICK)
    await transcript.messages(await transcript.create([user("Hello")]))


@pytest.mark.filterwarnings("ignore:(BasicAuth|The 'proxy_auth' parameter) is deprecated")  # the SDK's way uses both
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_calls_go_through_the_proxy_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(MADE) as proxy:
        monkeypatch.setenv(name, f"http://ada:secret@{proxy.address}")
        async with open_client("sk-test", "http://provider.invalid/v1") as client:
            await made_and_read(client)
    assert [asked.line for asked in proxy.asked] == [
        "POST http://provider.invalid/v1/conversations HTTP/1.1",
        "GET http://provider.invalid/v1/conversations/conv_1 HTTP/1.1",
        "GET http://provider.invalid/v1/conversations/conv_1/items?limit=100&order=asc HTTP/1.1",
    ]
    login = b64encode(b"ada:secret").decode()
    assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {f"Basic {login}"}


@pytest.mark.parametrize("spared", ["*", "127.0.0.1", "example.com,127.0.0.1"])
async def test_no_proxy_is_asked_for_an_address_that_needs_none(spared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(MADE) as provider:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", spared)
        async with open_client("sk-test", f"http://{provider.address}/v1") as client:
            await made_and_read(client)
    assert len(provider.asked) == 3


async def test_a_proxy_for_another_kind_of_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(MADE) as provider:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        async with open_client("sk-test", f"http://{provider.address}/v1") as client:
            await made_and_read(client)
    assert len(provider.asked) == 3


async def test_each_call_says_who_pays_and_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    async with answering(MADE) as provider, open_client("sk-test", f"http://{provider.address}/v1") as client:
        await OpenAITranscript(client, QUICK).create([user("Hello")])
    headers = provider.asked[0].headers
    assert headers["authorization"] == "Bearer sk-test"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")
    assert (headers["content-type"], headers["accept"]) == ("application/json", "application/json")
    assert not [name for name in headers if name.startswith("x-stainless-")]
    assert json.loads(provider.asked[0].body)["items"][0]["content"] == "Hello"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1"},
        {"OPENAI_ORG_ID": "", "OPENAI_CUSTOM_HEADERS": "x-team: blue \n  X-Path:a:b\r\nnothing\nUser-Agent: ours"},
        {"OPENAI_CUSTOM_HEADERS": "Authorization: Bearer other\nX-Stainless-Os: none"},
    ],
)
async def test_turns_are_asked_with_the_headers_of_the_sdk(
    variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with open_client("sk-test") as client:
        theirs = (await client.sdk()).openai.default_headers
    of_this_machine = ("x-stainless-", "authorization")
    assert client.headers == {
        name: value
        for name, value in theirs.items()
        if isinstance(value, str) and not name.lower().startswith(of_this_machine)
    }


async def test_a_key_that_changes_is_used_from_the_next_call_on() -> None:
    async with answering(MADE) as provider, open_client("sk-one", f"http://{provider.address}/v1") as client:
        await made_and_read(client)
        client.api_key = "sk-two"
        await made_and_read(client)
    keys = [asked.headers["authorization"] for asked in provider.asked]
    assert keys == ["Bearer sk-one"] * 3 + ["Bearer sk-two"] * 3


async def test_what_one_turn_is_told_to_keep_no_other_turn_sends_back() -> None:
    async with (
        answering(MADE, "set-cookie: seen=1; path=/") as provider,
        open_client("sk-test", f"http://{provider.address.replace('127.0.0.1', 'localhost')}/v1") as client,
    ):
        await OpenAITranscript(client, QUICK).create([])
        await OpenAITranscript(client, QUICK).create([])
    assert ["cookie" in asked.headers for asked in provider.asked] == [False, False]


class Following:
    """A tracer that is always in one step."""

    @contextmanager
    def span(self, step: Step) -> Iterator[None]:  # noqa: ARG002 - all are the same
        yield

    def outgoing(self) -> Mapping[str, str]:
        return {"traceparent": "00-1-2-01"}


async def test_both_ways_say_which_step_they_are_part_of() -> None:
    async with (
        answering(MADE) as provider,
        open_client("k", f"http://{provider.address}/v1", tracer=Following()) as client,
    ):
        await made_and_read(client)
    assert [asked.headers["traceparent"] for asked in provider.asked] == ["00-1-2-01"] * 3


async def test_a_provider_that_moved_is_followed() -> None:
    async with answering(MADE) as provider:
        to = f"location: http://{provider.address}/v2/conversations"
        async with (
            answering(b"", to, status="308 Moved") as before,
            open_client("sk-test", f"http://{before.address}/v1") as client,
        ):
            assert await OpenAITranscript(client, QUICK).create([user("Hello")]) == "conv_1"
    assert provider.asked[0].line == "POST /v2/conversations HTTP/1.1"
    assert provider.asked[0].body == before.asked[0].body
    assert "authorization" not in provider.asked[0].headers  # another host may be anybody's


async def test_a_refusal_of_any_length_is_understood_by_its_beginning() -> None:
    said = b'{"error": {"message": "No.", "code": "too_much"}}' + b" " * 3_000_000
    async with (
        answering(said, status="413 Too Large", length=10**12) as provider,
        open_client("sk-test", f"http://{provider.address}/v1") as client,
    ):
        error = (await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))).error
    assert isinstance(error, ProviderError)
    assert "413, too_much" in str(error)
    assert not error.may_have_run


@pytest.mark.parametrize("proxied", [False, True])  # which takes the one way, or the other
async def test_what_came_before_a_break_is_read_however_late(proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    event = b'data: {"type": "one"}\n\n'
    async with answering(event, length=len(event) + 1) as provider:
        if proxied:
            monkeypatch.setenv("http_proxy", f"http://{provider.address}")
        async with open_client("sk-test", f"http://{provider.address}/v1") as client:
            answer = await post(client, "/responses", {}, QUICK)
            while not has_broken(answer):  # noqa: ASYNC110  nothing else tells it
                await asyncio.sleep(0)
            events = EventStream(answer)
            assert (await anext(events)).data == b'{"type": "one"}'
            with pytest.raises(tuple(BROKEN_ANSWER)):
                await anext(events)
            events.close()


def has_broken(answer: Any) -> object:
    if isinstance(answer, Answer):
        return answer._error is not None
    return answer._answer.content.exception() is not None


async def test_an_answer_without_end_is_not_kept() -> None:
    async with (
        answering(MADE + b" " * 17_000_000, length=10**12) as provider,
        open_client("sk-test", f"http://{provider.address}/v1") as client,
    ):
        with pytest.raises(ProviderError, match="more than 16 MB"):
            await OpenAITranscript(client, QUICK).create([])
