"""A stand-in for OpenAI on loopback: Conversations, Responses and Chat Completions, with faults on request.

It runs in a thread of its own, so that synchronous tests, asynchronous tests and other processes can all use it. What
it keeps (requests, bills, conversations, disconnects) is safe to read from any thread, and readable after the stop.
"""

import asyncio
import json
import secrets
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, Self

from aiohttp import web
from tests.servers.openai_chat import ChatWire, check_thoughts, items_of
from tests.servers.openai_items import check_calls, check_reasoning, digests_in, full_items, invalid, shown, wrong_type
from tests.servers.openai_responses import ResponsesWire, check_capability, check_include, check_references
from tests.servers.openai_runs import Conversation, Prompt, Run
from tests.servers.openai_script import ApiError, Bill, Fault, Json, RecordedRequest, Reply, Usage
from tests.servers.openai_shapes import refusal_of
from tests.servers.openai_tools import approved_calls, asks, played

__all__ = ["Bill", "Fault", "OpenAIStandIn", "RecordedRequest", "Reply", "Usage"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES = 128 * 1024 * 1024
BODY = web.RequestKey("body", dict[str, Any])


class OpenAIStandIn:
    """The provider; a context manager that serves until its block ends.

    It judges every body by the provider's own description of its route. A body that the provider would refuse is
    answered as the provider does, and fails the test when the block ends: nothing we send may be such a body.

    Args:
        api_key: whom it serves.
        expects_malformed: the test sends such bodies on purpose.

    Attributes:
        malformed: why each body of a wrong form was refused.
        base_url: what the SDK takes, e.g. "http://127.0.0.1:40123/v1".
        default: the step taken when no scripted one is left.
        choose: makes that step of the body and of all items that the model sees, the latest last; None: `default`
        finish_after_disconnect: a response whose client left is finished, stored and billed, yet its turn is not added
            to the conversation. Otherwise the response stops at once, as `cancelled`, and costs nothing.
        locks_items: nothing is added to a conversation in which a response is being written.
        requests: every request, refused ones too, in order of arrival.
        bills: one for every response that reached `completed` or `incomplete` (a failed one if its usage is scripted).
        disconnects: ids of responses whose client went away before the end.
    """

    def __init__(self, api_key: str = "sk-test", *, expects_malformed: bool = False) -> None:
        self.api_key = api_key
        self.malformed: list[str] = []
        self._expects_malformed = expects_malformed
        self.default: Reply | Fault = Reply()
        self.choose: Callable[[Json, Sequence[Json]], Reply | Fault] | None = None
        self.finish_after_disconnect = False
        self.locks_items = False
        self.requests: list[RecordedRequest] = []
        self.bills: list[Bill] = []
        self.disconnects: list[str] = []
        self._steps: deque[Reply | Fault] = deque()
        self._route_faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._conversations: dict[str, Conversation] = {}
        self._orphans: dict[str, tuple[Json, ...]] = {}
        self._responses: dict[str, Run] = {}
        self._runs: list[Run] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="openai stand-in", daemon=True)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.malformed and not self._expects_malformed:
            raise AssertionError(f"OpenAI would refuse what was sent: {'; '.join(self.malformed)}")

    def script(self, *steps: Reply | Fault) -> None:
        """Queue what the next creations of a response or chat completion get; a refused request takes no step."""
        self._steps.extend(steps)

    def script_route(self, route: str, *faults: Fault) -> None:
        """Queue faults for another route, named as in "POST /conversations/{conversation_id}/items"."""
        self._route_faults[route].extend(faults)

    @property
    def conversations(self) -> dict[str, tuple[Json, ...]]:
        """The items of every conversation that exists, oldest first, as stored."""
        return {key: conversation.items for key, conversation in self._conversations.copy().items()}

    @property
    def responses(self) -> frozenset[str]:
        """The ids of all responses that are stored."""
        return frozenset(self._responses.copy())

    @property
    def orphaned_items(self) -> dict[str, tuple[Json, ...]]:
        """Items that outlived their deleted conversation, since deleting one does not delete its items."""
        return self._orphans.copy()

    # The thread

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._front_door])
        app.on_response_prepare.append(self._sign)
        app.router.add_routes(self._routes())
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        await self._stop.wait()
        for run in self._runs:
            run.stop()
        for _ in range(
            5
        ):  # a client that is gone already may still wait to be accepted, and nobody would close it then
            await asyncio.sleep(0)
        await runner.cleanup()

    def _routes(self) -> list[web.RouteDef]:
        conversation, response = "/v1/conversations/{conversation_id}", "/v1/responses/{response_id}"
        return [
            web.post("/v1/conversations", self._create_conversation),
            web.get(conversation, self._retrieve_conversation),
            web.post(conversation, self._update_conversation),
            web.delete(conversation, self._delete_conversation),
            web.post(f"{conversation}/items", self._create_items),
            web.get(f"{conversation}/items", self._list_items),
            web.get(f"{conversation}/items/{{item_id}}", self._retrieve_item),
            web.delete(f"{conversation}/items/{{item_id}}", self._delete_item),
            web.post("/v1/responses", self._create_response),
            web.post("/v1/responses/input_tokens", self._count_input_tokens),
            web.get(response, self._retrieve_response),
            web.delete(response, self._delete_response),
            web.post(f"{response}/cancel", self._cancel_response),
            web.get(f"{response}/input_items", self._list_input_items),
            web.post("/v1/chat/completions", self._create_chat_completion),
        ]

    # Every request

    @web.middleware
    async def _front_door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            body = await self._record(request)
            self._check_key(request)
            resource = request.match_info.route.resource
            route = f"{request.method} {resource.canonical.removeprefix('/v1') if resource else ''}"
            if request.method == "POST":
                request[BODY] = self._checked(route, body)
            if self._route_faults[route]:
                return await _suffer(self._route_faults[route].popleft(), request)
            return await handler(request)
        except ApiError as error:
            return web.Response(status=error.status, body=error.body, content_type="application/json")
        except web.HTTPException as error:
            refusal = ApiError(error.status, f"Invalid URL ({request.method} {request.path})")
            return web.Response(status=error.status, body=refusal.body, content_type="application/json")

    async def _record(self, request: web.Request) -> Any:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else ({} if request.path.endswith("/cancel") else None)
        except ValueError:
            body = None
        headers = {name.lower(): value for name, value in request.headers.items()}
        query, files = dict(request.query), tuple(_digests(body))
        self.requests.append(RecordedRequest(request.method, request.path, query, headers, body, files))
        return body

    def _checked(self, route: str, body: Any) -> Json:
        if not isinstance(body, dict):
            refusal: ApiError | None = ApiError(400, "We could not parse the JSON body of your request.")
        else:
            refusal = refusal_of(route, body)
        if refusal is not None:
            self.malformed.append(f"{route}: {refusal}")
            raise refusal
        checked: Json = body
        return checked

    def _check_key(self, request: web.Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            raise ApiError(401, "You didn't provide an API key.", code="invalid_api_key")
        if not secrets.compare_digest(key, self.api_key):
            raise ApiError(401, f"Incorrect API key provided: {key[:3]}***.", code="invalid_api_key")

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-request-id"] = f"req_{secrets.token_hex(16)}"
        response.headers["openai-processing-ms"] = "1"
        response.headers["openai-version"] = "2020-10-01"
        if request.path in ("/v1/responses", "/v1/chat/completions"):
            for unit, limit, reset in (("requests", 10_000, "6ms"), ("tokens", 2_000_000, "1m30s")):
                response.headers[f"x-ratelimit-limit-{unit}"] = str(limit)
                response.headers[f"x-ratelimit-remaining-{unit}"] = str(limit - 1)
                response.headers[f"x-ratelimit-reset-{unit}"] = reset

    # Conversations

    async def _create_conversation(self, request: web.Request) -> web.Response:
        body = request[BODY]
        conversation = Conversation(body.get("metadata") or {}, self._new_items(body.get("items") or []))
        self._conversations[conversation.id] = conversation
        return web.json_response(_wire_conversation(conversation))

    async def _retrieve_conversation(self, request: web.Request) -> web.Response:
        return web.json_response(_wire_conversation(self._conversation(request.match_info["conversation_id"])))

    async def _update_conversation(self, request: web.Request) -> web.Response:
        conversation = self._conversation(request.match_info["conversation_id"])
        conversation.metadata = request[BODY]["metadata"] or {}
        return web.json_response(_wire_conversation(conversation))

    async def _delete_conversation(self, request: web.Request) -> web.Response:
        conversation = self._conversation(request.match_info["conversation_id"])
        del self._conversations[conversation.id]
        if conversation.items:
            self._orphans[conversation.id] = conversation.items
        return web.json_response({"id": conversation.id, "object": "conversation.deleted", "deleted": True})

    async def _create_items(self, request: web.Request) -> web.Response:
        include = _included(request)
        items = self._new_items(request[BODY]["items"])
        conversation = self._conversation(request.match_info["conversation_id"])
        if self.locks_items:
            _check_lock(conversation)
        conversation.items = (*conversation.items, *items)
        return web.json_response(_page([shown(item, include) for item in items], has_more=False))

    async def _list_items(self, request: web.Request) -> web.Response:
        conversation = self._conversation(request.match_info["conversation_id"])
        return web.json_response(_listed(conversation.items, request))

    async def _retrieve_item(self, request: web.Request) -> web.Response:
        include = _included(request)
        conversation = self._conversation(request.match_info["conversation_id"])
        return web.json_response(shown(_item(conversation.items, request.match_info["item_id"]), include))

    async def _delete_item(self, request: web.Request) -> web.Response:
        conversation = self._conversation(request.match_info["conversation_id"])
        item = _item(conversation.items, request.match_info["item_id"])
        conversation.items = tuple(kept for kept in conversation.items if kept is not item)
        return web.json_response(_wire_conversation(conversation))

    def _conversation(self, conversation_id: str) -> Conversation:
        if conversation_id not in self._conversations:
            raise ApiError(404, f"Conversation with id '{conversation_id}' not found.")
        return self._conversations[conversation_id]

    def _new_items(self, given: list[Json]) -> tuple[Json, ...]:
        check_reasoning(given, is_all=False)
        return tuple(full_items(given, "items", self._known))

    def _known(self, item_id: str) -> Json | None:
        """The stored item of this id, in a conversation or in a stored response."""
        in_conversations = (conversation.items for conversation in self._conversations.values())
        in_responses = ((*run.prompt.items, *run.wire.output) for run in self._responses.values())
        every_item = chain.from_iterable(chain(in_conversations, in_responses))
        return next((item for item in every_item if item["id"] == item_id), None)

    # Responses

    async def _create_response(self, request: web.Request) -> web.StreamResponse:
        body = request[BODY]
        prompt, conversation = self._read_prompt(body)
        if conversation is not None:
            _check_lock(conversation)
        check_capability(body)
        check_calls(prompt.context)
        approved = approved_calls(prompt.history, prompt.items, body, in_conversation=conversation is not None)
        step = self._next_step(body, prompt.context)
        if isinstance(step, Fault):
            return await _suffer(step, request)
        wire = ResponsesWire(
            body,
            conversation_id=conversation.id if conversation else None,
            service_tier=step.service_tier,
            refuses=step.refusal is not None,
            annotations=step.annotations,
        )
        tools = played(step.hosted, body, approved)
        if asks(tools):
            step = replace(step, deltas=(), refusal=None, calls=())
        run = self._start(Run(step, prompt, wire, conversation, self.bills, body.get("max_output_tokens"), tools))
        if body.get("store") is not False or body.get("background"):
            self._responses[run.wire.id] = run
        if body.get("stream"):
            return await self._stream(request, run, leaves=not body.get("background"))
        if body.get("background"):
            return web.json_response(wire.response)
        return await self._answer(request, run, lambda: wire.response)

    def _read_prompt(self, body: Json) -> tuple[Prompt, Conversation | None]:
        """What the model is to read: first the body is judged, then what it refers to."""
        check_reasoning(body.get("input"))
        items = tuple(full_items(body.get("input") or [], "input", self._known))
        check_references(body)
        history: tuple[Json, ...] = ()
        conversation, seen_before = None, False
        if (named := body.get("conversation")) is not None:
            conversation = self._conversation(str(named.get("id")) if isinstance(named, dict) else named)
            history, seen_before = conversation.items, conversation.answered
        elif (previous_id := body.get("previous_response_id")) is not None:
            previous = self._responses.get(previous_id)
            if previous is None:
                message = f"Previous response with id '{previous_id}' not found."
                raise ApiError(400, message, param="previous_response_id", code="previous_response_not_found")
            history, seen_before = (*previous.prompt.context, *previous.wire.output), True
        return Prompt(body.get("instructions"), history, items, seen_before), conversation

    async def _count_input_tokens(self, request: web.Request) -> web.Response:
        body = request[BODY]
        prompt, _ = self._read_prompt(body)
        return web.json_response({"object": "response.input_tokens", "input_tokens": prompt.input_tokens})

    async def _retrieve_response(self, request: web.Request) -> web.StreamResponse:
        check_include(_included(request))
        run, wire = self._response(request)
        if request.query.get("stream") != "true":
            return web.json_response(wire.response)
        if not (wire.response["background"] and wire.streamed):
            raise ApiError(404, f"Response with id '{wire.id}' cannot be streamed.")
        return await self._stream(request, run, after=_whole(request.query, "starting_after", -1), leaves=False)

    async def _delete_response(self, request: web.Request) -> web.Response:
        _, wire = self._response(request)
        del self._responses[wire.id]
        return web.json_response({"id": wire.id, "object": "response", "deleted": True})

    async def _cancel_response(self, request: web.Request) -> web.Response:
        run, wire = self._response(request)
        if not wire.response["background"]:
            raise ApiError(400, "Cannot cancel a synchronous response.")
        if not run.ended:
            run.stop()
        return web.json_response(wire.response)

    async def _list_input_items(self, request: web.Request) -> web.Response:
        run, _ = self._response(request)
        return web.json_response(_listed(run.prompt.context, request))

    def _response(self, request: web.Request) -> tuple[Run, ResponsesWire]:
        response_id = request.match_info["response_id"]
        run = self._responses.get(response_id)
        if run is None or not isinstance(run.wire, ResponsesWire):
            raise ApiError(404, f"Response with id '{response_id}' not found.")
        return run, run.wire

    # Chat Completions

    async def _create_chat_completion(self, request: web.Request) -> web.StreamResponse:
        body = request[BODY]
        items = tuple(full_items(items_of(body), "messages", self._known))
        check_capability(body)
        check_calls(items)
        check_thoughts(body)
        step = self._next_step(body, items)
        if isinstance(step, Fault):
            return await _suffer(step, request)
        wire = ChatWire(body, service_tier=step.service_tier, refuses=step.refusal is not None)
        cap = body.get("max_completion_tokens") or body.get("max_tokens")
        run = self._start(Run(step, Prompt(None, (), items, seen_before=False), wire, None, self.bills, cap))
        if body.get("stream"):
            return await self._stream(request, run)
        return await self._answer(request, run, lambda: wire.completion)

    # Answers

    def _next_step(self, body: Json, context: Sequence[Json]) -> Reply | Fault:
        if self._steps:
            return self._steps.popleft()
        return self.default if self.choose is None else self.choose(body, context)

    def _start(self, run: Run) -> Run:
        self._runs.append(run)
        return run

    async def _answer(self, request: web.Request, run: Run, result: Callable[[], Json]) -> web.StreamResponse:
        try:
            outcome = await run.end()
        except asyncio.CancelledError:
            self._client_left(run)
            raise
        if run.reply.end in ("cut", "silent"):
            return await _suffer(Fault.cut(), request)
        if outcome.status == "failed" and (outcome.shape != "failed" or isinstance(run.wire, ChatWire)):
            raise ApiError(500, "The model failed, as it was told to.", code=outcome.detail, kind="server_error")
        return web.json_response(result())

    async def _stream(
        self, request: web.Request, run: Run, *, after: int = -1, leaves: bool = True
    ) -> web.StreamResponse:
        """Pass on the frames of a run; `leaves` says whether it ends when its reader goes away."""
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(request)
            async for frame in run.frames(after):
                for piece in [frame] if run.reply.split == "event" else _awkward_pieces(frame):
                    await response.write(piece)
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._client_left(run, stops=leaves)
            raise
        except ConnectionError:  # a write noticed before the connection's own end did
            self._client_left(run, stops=leaves)
            return response
        if run.reply.end == "cut" and request.transport is not None:
            request.transport.abort()
        return response

    def _client_left(self, run: Run, *, stops: bool = True) -> None:
        if run.ended or self._stop.is_set():
            return
        self.disconnects.append(run.wire.id)
        if stops:
            run.client_left(finish=self.finish_after_disconnect)


def _digests(body: Any) -> list[str]:
    try:
        return digests_in(body)
    except ValueError:  # no base64; whoever it is for says so
        return []


async def _suffer(fault: Fault, request: web.Request) -> web.StreamResponse:
    if fault.action == "stall":
        await asyncio.Event().wait()
    if fault.action == "cut" and request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by RST
        request.transport.abort()
    return web.Response(
        status=fault.status, body=fault.body, content_type=fault.content_type, headers=dict(fault.headers)
    )


def _awkward_pieces(frame: bytes) -> list[bytes]:
    """Cut before every continuation byte of UTF-8, inside the first word, inside the blank line and every 61 bytes."""
    cuts = {2, len(frame) - 1, *range(61, len(frame), 61)}
    cuts.update(n for n, byte in enumerate(frame) if byte & 0xC0 == 0x80)
    bounds = [0, *sorted(cuts), len(frame)]
    return [frame[start:end] for start, end in pairwise(bounds)]


def _wire_conversation(conversation: Conversation) -> Json:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": conversation.metadata,
    }


def _check_lock(conversation: Conversation) -> None:
    if conversation.locked:
        message = "Another process is currently operating on this conversation. Please retry in a few seconds."
        raise ApiError(400, message, param="conversation", code="conversation_locked")


def _item(items: Iterable[Json], item_id: str) -> Json:
    for item in items:
        if item["id"] == item_id:
            return item
    raise ApiError(404, f"Item with id '{item_id}' not found in conversation.")


def _included(request: web.Request) -> list[str]:
    include = [*request.query.getall("include[]", []), *request.query.getall("include", [])]
    check_include(include)
    return include


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise wrong_type(name, "an integer") from None


def _listed(items: tuple[Json, ...], request: web.Request) -> Json:
    """One page of items, newest first unless `order` says otherwise."""
    include = _included(request)
    limit = _whole(request.query, "limit", 20)
    if not 1 <= limit <= 100:
        side = "below_min" if limit < 1 else "above_max"
        message = f"Invalid 'limit': expected a value from 1 to 100, but got {limit}."
        raise ApiError(400, message, param="limit", code=f"integer_{side}_value")
    order = request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid(order, ("asc", "desc"), "order")
    ordered = items if order == "asc" else items[::-1]
    if after := request.query.get("after"):
        ordered = ordered[ordered.index(_item(ordered, after)) + 1 :]
    return _page([shown(item, include) for item in ordered[:limit]], has_more=len(ordered) > limit)


def _page(data: list[Json], *, has_more: bool) -> Json:
    first_id, last_id = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first_id, "last_id": last_id, "has_more": has_more}
