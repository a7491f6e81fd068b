"""CPU of a streamed reply in this process: the SDK's typed stream against ours, as a ratio.

    python -m benchmarks.openai_adapter

A server in a process of its own sends the same canned stream to both, over the same transport. Times are CPU time of
this process, the median of alternating rounds; only the ratio means anything on another machine.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from benchmarks.upstream import WORD, upstream

from textllm_adapters.openai.client import Client, open_client
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_core.records.messages import Message
from textllm_core.records.model import ModelRequest
from textllm_core.records.parts import InputText

DELTAS = 500
REPLIES = 10  # in a round
ROUNDS = 7


async def with_the_sdk(client: Client) -> None:
    text = ""
    async with await (await client.sdk()).openai.responses.create(model="gpt-4o", input="Hello", stream=True) as events:
        async for event in events:
            if event.type == "response.output_text.delta":
                text += event.delta
    assert text == WORD * DELTAS


async def with_ours(client: Client) -> None:
    hello = Message(id="msg_1", role="user", content=(InputText("Hello"),), created_at=datetime.now(UTC))
    request = ModelRequest(
        model="gpt-4o",
        messages=(hello,),
        instructions=None,
        max_output_tokens=DELTAS,
        safety_identifier="5afe",
        cache_key="conv_1",
    )
    events = [event async for event in ResponsesLLM(client).stream(request)]
    assert len(events) == DELTAS + 2


async def cpu_per_event(way: Callable[[Client], Awaitable[None]], client: Client) -> float:
    start = time.process_time()
    for _ in range(REPLIES):
        await way(client)
    return (time.process_time() - start) / (REPLIES * DELTAS) * 1e6


async def compare(base_url: str) -> None:
    async with open_client("sk-none", base_url) as client:
        await with_the_sdk(client)
        await with_ours(client)
        pairs = [
            (await cpu_per_event(with_the_sdk, client), await cpu_per_event(with_ours, client)) for _ in range(ROUNDS)
        ]
    sdk, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"µs of CPU per event: SDK {sdk:.1f}, ours {ours:.1f}; the SDK costs {ratio:.1f} times as much")


def main() -> None:
    with upstream(DELTAS) as provider:
        asyncio.run(compare(provider.base_url))


if __name__ == "__main__":
    main()
