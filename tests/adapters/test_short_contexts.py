"""Servers that refuse the longest reply that is asked for, each in words of its own: a short one is asked for."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_providers import PRICE, desk, settings_of
from tests.contracts.model_fixtures import QUICK
from tests.servers.picky import Json, Picky, picky

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import Heard, hear, request
from textllm_core.errors import ContextTooLongError, ProviderError

# `{asked}`: tokens of the reply; `{all}`: with the 12 of the prompt.
OF_CONTEXT = {
    "vLLM": "max_tokens={asked} cannot be greater than max_model_len=max_total_tokens=2048. Please request fewer.",
    "newer vLLM": "This model's maximum context length is 2048 tokens. However, you requested {asked} output tokens "
    "and your prompt contains at least 12 input tokens, for a total of at least {all} tokens.",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 12 `inputs` tokens and "
    "{asked} `max_new_tokens`",
    "SGLang": "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total "
    "of {all} tokens: 12 tokens from the input messages and {asked} tokens for the completion.",
    "OpenRouter": "This endpoint's maximum context length is 2048 tokens. However, you requested about {all} tokens "
    "(12 of text input, {asked} in the output).",
    "TensorRT-LLM": "The sum of prompt length (12), query length (0) and max_tokens ({asked}) should not exceed "
    "max_num_tokens (2048)",
    "Mistral": "Prompt contains 12 tokens, and max_tokens is {asked}: too large for model with 2048 maximum context "
    "length",
    "watsonx": "the number of input tokens 12 plus the max new tokens {asked} cannot exceed the total limit 2048",
    "xAI": "This model's maximum prompt length is 2048 but the request contains {all} tokens.",
    "no number": "This request is longer than the maximum context length. Please reduce messages or completion.",
}
OF_REPLY = {
    "DeepSeek": "Invalid max_tokens value, the valid range of max_tokens is [1, 2000]",
    "Groq": "`max_tokens` must be less than or equal to `2000`",
    "Anthropic": "max_tokens: {asked} > 2000, which is the maximum allowed number of output tokens for claude",
    "Bedrock": "The maximum tokens you requested exceeds the model limit of 2000.",
    "Cohere": "too many tokens: max tokens must be less than or equal to 2000 - received {asked}.",
    "DashScope": "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 2000]",
    "Zhipu": "max_tokens参数非法。请限制在[1,2000]",
}


def refusing(words: str, most: int) -> Any:
    def rule(body: Json) -> tuple[int, object] | None:
        asked = body.get("max_tokens") or body["max_output_tokens"]
        said = words.format(asked=asked, all=asked + 12)
        return (400, {"error": {"message": said, "type": "invalid_request_error"}}) if asked > most else None

    return rule


async def ask(server: Picky, *prompts: str) -> list[Heard]:
    async with open_client("k", server.base_url) as client:
        llm = ChatCompletionsLLM(client, QUICK)
        return [await hear(llm.stream(request(prompt, max_output_tokens=4096))) for prompt in prompts]


@pytest.mark.parametrize("name", [*OF_CONTEXT, *OF_REPLY])
async def test_the_first_turn_is_answered_and_the_next_asks_for_what_fits(name: str) -> None:
    words, most = (OF_CONTEXT[name], 2036) if name in OF_CONTEXT else (OF_REPLY[name], 2000)
    async with picky(refusing(words, most)) as server:
        heard = await ask(server, "Hi there", "Hi again")
    assert [each.error for each in heard] == [None, None]
    asked = [body["max_tokens"] for body in server.bodies]
    assert 1000 < asked[-1] <= most
    assert asked[-1] == asked[-2]  # the second turn, at once
    assert len(asked) <= 4


async def test_the_responses_api_is_asked_so_too() -> None:
    rule = refusing(OF_REPLY["DeepSeek"].replace("max_tokens", "max_output_tokens"), 2000)
    async with picky(rule) as server, open_client("k", server.base_url) as client:
        heard = await hear(ResponsesLLM(client, QUICK).stream(request("Hi there", max_output_tokens=4096)))
    assert heard.error is None
    assert [body["max_output_tokens"] for body in server.bodies] == [4096, 2000]


async def test_the_address_of_a_server_is_all_that_it_needs(tmp_path: Path) -> None:
    config = {"llm_api": "chat_completions", "model": "small", "prices": {"*": PRICE}}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(picky(refusing(OF_CONTEXT["TGI"], 2036)))
        settings = settings_of(tmp_path, config, OPENAI_BASE_URL=server.base_url)
        reply = await (await stack.enter_async_context(desk(settings))).say("Hi there")
    assert (reply.text, reply.finish_reason) == ("Well.", "stop")


async def test_a_prompt_that_is_itself_too_long_is_told_so_at_once() -> None:
    async with picky(refusing(OF_CONTEXT["no number"], 0)) as server:
        [heard] = await ask(server, "word " * 5000)
    assert isinstance(heard.error, ContextTooLongError)
    assert len(server.bodies) == 1


async def test_a_refusal_of_the_input_alone_is_not_tried_again() -> None:
    words = "Your input exceeds the context window of this model. Please adjust your input and try again."
    async with picky(refusing(words, 0)) as server:
        [heard] = await ask(server, "Hi there")
    assert isinstance(heard.error, ContextTooLongError)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "words",
    [
        "Could not finish the message because max_tokens or model output limit was reached. Please try again with "
        "higher max_tokens.",
        "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at 1024.",
        "max_completion_tokens is too small: the minimum is 5000",
    ],
)
async def test_a_reply_that_is_too_short_is_not_made_shorter(words: str) -> None:
    async with picky(refusing(words, 0)) as server:
        await ask(server, "Hi there")
    assert len(server.bodies) == 1


async def test_what_a_user_says_shortens_no_reply_of_another() -> None:
    def rule(body: Json) -> tuple[int, object] | None:
        said = body["messages"][-1]["content"]
        return (400, {"error": {"message": f"I do not like: {said}"}}) if "max_tokens" in said else None

    async with picky(rule) as server:
        first, second = await ask(server, "max_tokens must be less than 17", "Hello")
    assert isinstance(first.error, ProviderError)
    assert second.error is None
    assert server.bodies[-1]["max_tokens"] == 4096
    assert len(server.bodies) <= 8
