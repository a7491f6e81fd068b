"""What a server says of itself when it is asked once: is it there, does it take the key, which models has it."""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from textllm_adapters.openai.client import Client
from textllm_adapters.openai.decoding import anything
from textllm_adapters.openai.errors import BROKEN_ANSWER, Asked, refusal, unanswered
from textllm_adapters.openai.http import whole
from textllm_core.errors import ProviderError

_WITHIN_S: Final = 10.0  # an operator waits for it; a server that takes longer is not well
# As vLLM, OpenRouter and Together, Groq, Mistral, and llama.cpp name it.
_CONTEXTS: Final = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")


class Listing(NamedTuple):
    """What was found.

    Args:
        fault: what is wrong, in a sentence; None: it is well.
        models: their contexts in tokens, by name, None where it says none; None: it lists none.
    """

    fault: str | None
    models: Mapping[str, int | None] | None = None


async def listing(client: Client, path: str = "/models") -> Listing:
    """Ask for the models; nothing that costs anything."""
    asked = Asked.of(client.base_url, path)
    try:
        async with asyncio.timeout(_WITHIN_S):
            answer = await client.fetch(path)
            said = await whole(answer)
    except TimeoutError:
        return Listing(f"{asked} at {asked.address} did not answer within {_WITHIN_S:.0f} seconds.")
    except ProviderError as error:
        return Listing(_told(error))
    except tuple(BROKEN_ANSWER) as failure:
        return Listing(_told(unanswered(failure, asked)))
    if answer.status in (404, 405, 501):
        return Listing(None)
    if answer.status // 100 != 2:
        return Listing(_told(refusal(answer.status, answer.headers, said, asked)))
    body = anything(said)
    listed = body.get("data") if isinstance(body, dict) else body
    if not isinstance(listed, list):
        return Listing(f"{asked} at {asked.address} answered something that is no list of models; check its address.")
    models = [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
    return Listing(None, {model["id"]: _context(model) for model in models})


def _told(error: Exception) -> str:
    """It is the operator who asks: with where it was."""
    return " ".join([str(error), *getattr(error, "__notes__", ())])


def _context(model: Mapping[str, object]) -> int | None:
    meta = model.get("meta")
    for place in (model, meta if isinstance(meta, dict) else {}):
        for name in _CONTEXTS:
            if isinstance(stated := place.get(name), int) and stated > 0:
                return stated
    return None


async def served_context(client: Client) -> int | None:
    """How many tokens llama.cpp's server has for a conversation, which it tells beside its API; None for any other."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            body = anything(await whole(await client.fetch("/props")))
    except (TimeoutError, ProviderError):
        return None
    except tuple(BROKEN_ANSWER):
        return None
    given = body.get("default_generation_settings") if isinstance(body, dict) else None
    stated = given.get("n_ctx") if isinstance(given, dict) else None
    return stated if isinstance(stated, int) and stated > 0 else None
