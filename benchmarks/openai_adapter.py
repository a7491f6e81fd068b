"""CPU of a streamed reply in this process: the SDK's typed stream against ours, as a ratio.

    python -m benchmarks.openai_adapter

A server in a process of its own sends the same canned stream to both, over the same transport. Times are CPU time of
this process, the median of alternating rounds; only the ratio means anything on another machine.
"""

import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from openai import AsyncOpenAI

from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_core.chat.messages import InputText, Message
from textllm_core.ports.llm import ModelRequest

DELTAS = 500
REPLIES = 10  # in a round
ROUNDS = 7


def canned_stream() -> bytes:
    text = "word " * DELTAS
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    usage = {"input_tokens": 8, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": DELTAS}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 8 + DELTAS}
    response = {"id": "resp_1", "object": "response", "created_at": 1795348800, "model": "gpt-4o", "output": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, object]] = [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        *({"type": "response.output_text.delta", **place, "delta": "word ", "logprobs": []} for _ in range(DELTAS)),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {
            "type": "response.completed",
            "response": {**response, "status": "completed", "output": [{**item, "content": [part]}], "usage": usage},
        },
    ]
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n".encode()
        for n, event in enumerate(events)
    )


def serve(listener: socket.socket) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    answer = canned_stream()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                await reader.readexactly(next(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
                writer.write(head % len(answer) + answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def run() -> None:
        async with await asyncio.start_server(talk, sock=listener) as server:
            await server.serve_forever()

    asyncio.run(run())


async def with_the_sdk(client: AsyncOpenAI) -> None:
    text = ""
    async with await client.responses.create(model="gpt-4o", input="Hello", stream=True) as events:
        async for event in events:
            if event.type == "response.output_text.delta":
                text += event.delta
    assert len(text) == 5 * DELTAS


async def with_ours(client: AsyncOpenAI) -> None:
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


async def cpu_per_event(way: Callable[[AsyncOpenAI], Awaitable[None]], client: AsyncOpenAI) -> float:
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
    listener = socket.create_server(("127.0.0.1", 0))
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    try:
        asyncio.run(compare(f"http://127.0.0.1:{listener.getsockname()[1]}/v1"))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
