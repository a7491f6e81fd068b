"""What servers that are not OpenAI's say in their own ways is charged for what it is, and told for what it is."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.chat_charges import REQUEST_ID, THOUGHT
from tests.servers.chat_quirks import QUIRKS, REFUSALS, WITHOUT_EYES, ChatQuirks

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.errors import Asked, refusal
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import NOON, hear, request
from textllm_adapters.testing.stored_files import STORED, image, reading
from textllm_core.errors import (
    ContentRefusedError,
    ModelError,
    ProviderError,
    ProviderReport,
    ProviderUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.records.messages import Message, TextDelta
from textllm_core.records.model import ModelEnded, ModelRequest, ModelStarted, ModelThinking
from textllm_core.records.parts import InputText, OutputText
from textllm_core.texts import well_formed


@pytest.fixture(scope="module")
def servers() -> Iterator[ChatQuirks]:
    with ChatQuirks() as servers:
        yield servers


@pytest.fixture
async def llm(servers: ChatQuirks) -> AsyncIterator[ChatCompletionsLLM]:
    async with open_client("sk-test", servers.base_url) as client:
        yield ChatCompletionsLLM(client, QUICK)


def asking(model: str) -> ModelRequest:
    turn = Message(id="msg_1", role="user", content=(InputText("Well?"), image("LLM/one.png")), created_at=NOON)
    messages = (turn,) if model in WITHOUT_EYES else ("Well?",)
    return replace(request(*messages, read=reading(STORED)), model=model)


def outcome(events: ModelEnded | None, error: Exception | None) -> tuple[str | None, str | None]:
    """The code of what the caller is told, and how the reply ended."""
    told = error or (events.error if events else None)
    if events is not None and events.content_filtered:
        told = ContentRefusedError()
    code = told.code if isinstance(told, TextLLMError) else None
    return code, events.finish_reason if events is not None and code is None else None


@pytest.mark.parametrize("model", QUIRKS)
async def test_every_way_is_told_for_what_it_is(llm: ChatCompletionsLLM, model: str) -> None:
    quirk = QUIRKS[model]
    heard = await hear(llm.stream(asking(model)))
    ended = heard.events[-1] if heard.events and isinstance(heard.events[-1], ModelEnded) else None
    assert outcome(ended, heard.error) == (quirk.code, None if quirk.code else quirk.finish)
    if quirk.code is None:
        assert ended is not None
        assert well_formed(ended.text) == well_formed("".join(heard.deltas)) == quirk.text
    if ended is not None and ended.usage is not None:
        assert (ended.usage, ended.is_estimate) == (quirk.charged, quirk.estimated)
    elif quirk.usage is not None:
        assert quirk.estimated
        thought = sum(event.characters for event in heard.events if isinstance(event, ModelThinking))
        assert thought == (2 * len(THOUGHT) if len(quirk.usage) == 5 else 0)
    runs = bool(heard.events) or (isinstance(heard.error, ModelError) and heard.error.may_have_run)
    assert runs == (quirk.usage is not None)
    if model in REFUSALS:
        assert_operator_learns(heard.error, model)


def assert_operator_learns(error: Exception | None, model: str) -> None:
    """What the provider said, and where it is, is for the log and the command line; of which model, is told."""
    assert isinstance(error, TextLLMError)
    assert error.report is not None
    assert (error.report.status, error.report.request_id) == (REFUSALS[model].status, REQUEST_ID)
    if isinstance(error, ModelError):
        assert f"({model})" in str(error)
        assert "127.0.0.1" not in str(error)
        assert (error.report.address or "").startswith("127.0.0.1:")
        assert error.__notes__ == [f"It is at {error.report.address}."]


async def test_names_alone_are_reported(llm: ChatCompletionsLLM, servers: ChatQuirks) -> None:
    error = (await hear(llm.stream(asking("sglang-too-long")))).error
    assert isinstance(error, TextLLMError)
    assert error.report == ProviderReport(
        status=400, type="BadRequestError", request_id=REQUEST_ID, address=f"{servers.host}/v1"
    )


@pytest.mark.parametrize("model", ["streams-as-baidu", "streams-as-baidu-and-counts"])
async def test_a_failure_in_a_200_that_means_nothing_to_us_is_reported_by_its_name(
    llm: ChatCompletionsLLM, model: str
) -> None:
    error = (await hear(llm.stream(asking(model)))).error
    assert isinstance(error, TextLLMError)
    assert error.report is not None
    assert (error.report.code, error.report.is_answer) == ("336003", True)


@pytest.mark.parametrize(
    ("model", "wait"),
    [
        ("rate-of-gemini", 34),
        ("rate-for-a-day", 3600),
        ("rate-for-ages", 3600),
        ("streams-rate", 5),
        ("streams-rate-later", 20),
        ("streams-rate-in-minutes", 91),
    ],
)
async def test_how_long_to_wait_is_handed_on_up_to_an_hour(llm: ChatCompletionsLLM, model: str, wait: int) -> None:
    error = (await hear(llm.stream(asking(model)))).error
    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after_s == wait


@pytest.mark.parametrize("model", [model for model in QUIRKS if model.startswith("quota-")] + ["streams-quota"])
async def test_a_quota_that_is_used_up_is_said(llm: ChatCompletionsLLM, model: str) -> None:
    assert "no quota left" in str((await hear(llm.stream(asking(model)))).error)


async def test_a_damaged_image_is_told_from_a_model_without_eyes(llm: ChatCompletionsLLM) -> None:
    error = (await hear(llm.stream(asking("vllm-blind")))).error
    assert isinstance(error, UnsupportedMediaTypeError)
    assert "vllm-blind takes no images" in str(error)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"message": "Model Not Exist"}, "no such model"),
        ({"message": "tea-1 is not a valid model ID"}, "no such model"),
        ({"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}, "our API key"),
    ],
)
def test_what_the_operator_must_check_is_told_in_whatever_words(said: dict[str, object], told: str) -> None:
    call = Asked("http://127.0.0.1/v1", "/chat/completions", "tea-1")
    error = refusal(400, {}, json.dumps({"error": said}).encode(), call)
    assert isinstance(error, ProviderError)
    assert told in str(error)


async def test_an_assistant_that_speaks_first_is_taken_also_where_templates_want_a_user(
    llm: ChatCompletionsLLM, servers: ChatQuirks
) -> None:
    greeting = Message(id="msg_1", role="assistant", content=(OutputText("Hi, I am Robin."),), created_at=NOON)
    developer = replace(greeting, role="developer", content=(InputText("Be kind."),))
    asked = replace(asking("ordinary"), messages=(developer, greeting, *request("Who are you?").messages))
    assert (await hear(llm.stream(asked))).error is None
    said = [(turn["role"], turn["content"]) for turn in servers.bodies[-1]["messages"]]
    assert said[-3:] == [("user", "."), ("assistant", "Hi, I am Robin."), ("user", "Who are you?")]
    assert not servers.malformed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"code": "not_found", "message": "There is nothing of OpenAI's API at this address."}, "ends in /v1"),
        ({"type": "not_found_error", "message": "Not Found"}, "ends in /v1"),
        ({"code": "unknown_url", "message": "Unknown request URL."}, "ends in /v1"),
        ({"code": "not_found", "param": "tools", "message": "no"}, "refused the call (404, not_found, at tools)"),
        ({"code": "vector_store_not_found", "message": "no"}, "refused the call (404, vector_store_not_found)"),
        ({"code": "not_found", "message": "The model `tea-1` was not found"}, "no such model"),
        ({"code": "not_found_error", "message": "model: tea-1"}, "no such model"),
    ],
)
def test_a_404_of_the_address_is_told_from_one_of_what_was_named(said: dict[str, object], told: str) -> None:
    for path in ("/chat/completions", "/responses"):
        call = Asked("http://127.0.0.1", path, "tea-1")
        assert told in str(refusal(404, {}, json.dumps({"error": said}).encode(), call))


@pytest.mark.parametrize("model", ["no-end", "half-a-chunk"])
async def test_a_reply_that_breaks_off_tells_of_whom_and_the_log_which_call(
    llm: ChatCompletionsLLM, servers: ChatQuirks, model: str
) -> None:
    heard = await hear(llm.stream(asking(model)))
    assert f"The provider ({model}) " in str(heard.error)
    assert isinstance(heard.error, ModelError)
    assert heard.error.report == ProviderReport(request_id=REQUEST_ID, address=f"{servers.host}/v1", is_answer=False)
    assert heard.started.request_id == REQUEST_ID


async def test_an_api_that_a_server_lacks_is_told_with_the_setting_that_helps(servers: ChatQuirks) -> None:
    async with open_client("sk-test", servers.base_url) as client:
        with pytest.raises(ProviderError, match="llm_api to responses or chat_completions"):
            await OpenAITranscript(client, QUICK).create([])
        error = (await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))).error
        assert isinstance(error, ProviderError)
        assert "llm_api to chat_completions" in str(error)
    async with open_client("sk-test", servers.base_url.removesuffix("/v1")) as client:
        error = (await hear(ChatCompletionsLLM(client, QUICK).stream(request("Well?")))).error
    assert "OPENAI_BASE_URL" in str(error)
    assert "(gpt-4o)" in str(error)
    assert isinstance(error, ProviderError)
    assert (error.report.address if error.report else None) == servers.host


async def test_reasoning_is_a_sign_of_life_before_the_text(llm: ChatCompletionsLLM) -> None:
    heard = await hear(llm.stream(asking("no-usage-of-thoughts")))
    kinds = [type(event) for event in heard.events]
    assert kinds == [ModelStarted, ModelThinking, ModelThinking, TextDelta, ModelEnded]
    heard = await hear(llm.stream(asking("secret-thoughts")))
    assert [type(event) for event in heard.events] == [ModelStarted, ModelThinking, TextDelta, ModelEnded]
