"""Every route, walked: who is let in, and that nobody can tell what belongs to others from what never was."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from tests.http.conftest import JSON, Answer, Server, serving
from tests.image_files import png
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.store import MemoryStore
from textllm_core import Caller, TextTurn
from textllm_core.api_keys import new_secret
from textllm_core.errors import StorageUnavailableError
from textllm_core.file_names import file_id_of
from textllm_core.records.parts import InputText
from textllm_core.records.response_turns import ResponseTurn
from textllm_core.uploads import Upload
from textllm_core.wire import to_json
from textllm_http.app import routes
from textllm_http.auth import admin_caller, any_caller, any_caller_or_link, open_to_all, operator
from textllm_http.openai_door.charging import caller_at_door
from textllm_http.openai_door.response_request import ResponseRequest

GUARDS: Final = {
    open_to_all: "nobody",
    any_caller: "user",
    any_caller_or_link: "user",
    caller_at_door: "user",
    admin_caller: "admin",
    operator: "operator",
}
ROLES: Final = ("user", "service", "admin")
LEVELS: Final = (*ROLES, "operator")  # of whom no key is


@dataclass(frozen=True)
class Ask:
    """A request that names something by an id, which takes the place of `{}`.

    Args:
        kind: of what the id is: "conversation", "response", "session", "user", "file", "file_id" or "key".
        target: path and query; left out, the route's own.
    """

    kind: str
    target: str = ""
    body: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Door:
    """A route.

    Args:
        least: the least role that it lets in; "nobody" needs a key, and no key opens what is the operator's.
        asks: one for each id that a request can name: in the path, the query or the body.
        body, form: of a request that names none; a form also has a file.
        files: the field of that file.
        at: an address of it, where it has a parameter that is no id.
    """

    least: str
    asks: Sequence[Ask] = ()
    body: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    files: str = "file"
    at: str = ""


EXPORTED: Final[Mapping[str, Any]] = {
    "id": "conv_" + "1" * 24,
    "user_id": "ada",
    "session_id": None,
    "message_count": 0,
    "title": None,
    "created_at": "2026-03-14T09:26:53Z",
    "updated_at": "2026-03-14T09:26:53Z",
    "summary": None,
    "tags": [],
    "total_tokens_input": 0,
    "total_tokens_output": 0,
    "total_cost": 0,
    "metadata": {},
    "is_deleted": False,
    "messages": [],
}


SAID: Final[Mapping[str, Any]] = {"items": [{"role": "user", "content": "A secret."}]}


def _chat(path: str) -> Door:
    asks = [
        Ask("conversation", path, {"message": "hi", "conversation_id": "{}"}),
        Ask("user", path, {"message": "hi", "user_id": "{}"}),
    ]
    return Door("user", asks, {"message": "hi"})


def _chat_files(path: str, files: str) -> Door:
    asks = [
        Ask("conversation", path, form={"message": "hi", "conversation_id": "{}"}),
        Ask("user", path, form={"message": "hi", "user_id": "{}"}),
    ]
    return Door("user", asks, form={"message": "hi"}, files=files)


# A route that is not here, or asks for a path parameter that is not here, fails this suite.
DOORS: Final[Mapping[str, Door]] = {
    "GET /health": Door("nobody"),
    "GET /metrics": Door("operator"),
    "GET /openapi.json": Door("nobody"),
    "GET /docs": Door("nobody"),
    "GET /redoc": Door("nobody"),
    "GET /": Door("nobody"),
    "GET /problems/{code:str}": Door("nobody", at="/problems/rate_limited"),
    "GET /docs/assets/{name:str}": Door("nobody", at="/docs/assets/swagger-ui.css"),
    "GET /health/live": Door("nobody"),
    "GET /health/ready": Door("nobody"),
    "GET /config": Door("operator"),
    # It reads no conversation, and a key of one user is charged as that one, whomever it names.
    "POST /v1/chat/completions": Door("user", body={"messages": [{"role": "user", "content": "Hi"}]}),
    "GET /v1/models": Door("user"),
    "GET /v1/models/{model:path}": Door("user", at="/v1/models/gpt-4o"),
    "POST /v1/responses": Door(
        "user",
        [
            Ask("conversation", "/v1/responses", {"input": "hi", "conversation": "{}"}),
        ],
        {"input": "hi"},
    ),
    "GET /v1/responses/{response_id:str}": Door("user", [Ask("stored", "/v1/responses/{}")]),
    "DELETE /v1/responses/{response_id:str}": Door("user", [Ask("stored", "/v1/responses/{}")]),
    "POST /v1/responses/{response_id:str}/cancel": Door("user", [Ask("stored", "/v1/responses/{}/cancel")]),
    "GET /v1/responses/{response_id:str}/input_items": Door("user", [Ask("stored", "/v1/responses/{}/input_items")]),
    "POST /v1/conversations": Door("user", body={"metadata": {"a": "b"}}),
    "GET /v1/conversations/{conversation_id:str}": Door("user", [Ask("conversation", "/v1/conversations/{}")]),
    "POST /v1/conversations/{conversation_id:str}": Door(
        "user", [Ask("conversation", "/v1/conversations/{}", {"metadata": {}})], {"metadata": {}}
    ),
    "DELETE /v1/conversations/{conversation_id:str}": Door("user", [Ask("conversation", "/v1/conversations/{}")]),
    "POST /v1/conversations/{conversation_id:str}/items": Door(
        "user", [Ask("conversation", "/v1/conversations/{}/items", SAID)], SAID
    ),
    "GET /v1/conversations/{conversation_id:str}/items": Door(
        "user", [Ask("conversation", "/v1/conversations/{}/items")]
    ),
    "GET /v1/conversations/{conversation_id:str}/items/{item_id:str}": Door(
        "user", [Ask("item", "/v1/conversations/{}")]
    ),
    "DELETE /v1/conversations/{conversation_id:str}/items/{item_id:str}": Door(
        "user", [Ask("item", "/v1/conversations/{}")]
    ),
    "POST /v1/files": Door("user", form={"purpose": "user_data"}),
    "GET /v1/files": Door("user", [Ask("file_id", "/v1/files?after={}")]),
    "GET /v1/files/{file_id:str}": Door("user", [Ask("file_id", "/v1/files/{}")]),
    "GET /v1/files/{file_id:str}/content": Door("user", [Ask("file_id", "/v1/files/{}/content")]),
    "DELETE /v1/files/{file_id:str}": Door("user", [Ask("file_id", "/v1/files/{}")]),
    "POST /chat": _chat("/chat"),
    "POST /chat/stream": _chat("/chat/stream"),
    "POST /chat/image": _chat_files("/chat/image", "images"),
    "POST /chat/file": _chat_files("/chat/file", "file"),
    "GET /chat/stream/{response_id:str}": Door("user", [Ask("response", "/chat/stream/{}")]),
    "POST /chat/stream/{response_id:str}/cancel": Door("user", [Ask("response", "/chat/stream/{}/cancel")]),
    "POST /files/upload": Door("user", [Ask("user", "/files/upload", form={"user_id": "{}"})], form={}),
    "GET /files": Door("user", [Ask("user", "/files?user_id={}"), Ask("file", "/files?after={}")]),
    "GET /files/{_:path}": Door("user", [Ask("file", "/files/{}/content"), Ask("file", "/files/{}")]),
    "DELETE /files/{_:path}": Door("user", [Ask("file", "/files/{}")]),
    "POST /conversations": Door("user", [Ask("user", "/conversations", {"user_id": "{}"})], {"title": "x"}),
    "POST /conversations/import": Door("user", [Ask("user", "/conversations/import?user_id={}", EXPORTED)], EXPORTED),
    "GET /conversations": Door("user", [Ask("user", "/conversations?user_id={}")]),
    "GET /conversations/{conversation_id:str}": Door("user", [Ask("conversation", "/conversations/{}")]),
    "PATCH /conversations/{conversation_id:str}": Door(
        "user", [Ask("conversation", "/conversations/{}", {"title": "x"})], {"title": "x"}
    ),
    "DELETE /conversations/{conversation_id:str}": Door(
        "user", [Ask("conversation", "/conversations/{}"), Ask("conversation", "/conversations/{}?soft=false")]
    ),
    "POST /conversations/{conversation_id:str}/restore": Door(
        "user", [Ask("conversation", "/conversations/{}/restore")]
    ),
    "POST /conversations/{conversation_id:str}/summary": Door(
        "user", [Ask("conversation", "/conversations/{}/summary")]
    ),
    "GET /conversations/{conversation_id:str}/messages": Door(
        "user", [Ask("conversation", "/conversations/{}/messages")]
    ),
    "GET /sessions/{session_id:str}": Door("user", [Ask("session", "/sessions/{}")]),
    "POST /sessions/{session_id:str}/end": Door("user", [Ask("session", "/sessions/{}/end")]),
    "GET /users/{user_id:str}/sessions": Door(
        "user", [Ask("user", "/users/{}/sessions"), Ask("user", "/users/{}/sessions?days=2")]
    ),
    "GET /stats": Door("user"),
    "GET /users/{user_id:str}/stats": Door("user", [Ask("user", "/users/{}/stats")]),
    "GET /users/{user_id:str}/stats/conversations": Door("user", [Ask("user", "/users/{}/stats/conversations")]),
    "POST /keys": Door("admin", body={"role": "service"}),
    "GET /keys": Door("admin", [Ask("key", "/keys?after={}")]),
    "DELETE /keys/{key_id:str}": Door("admin", [Ask("key", "/keys/{}")]),
}

RANDOM: Final = {
    "conversation": "conv_" + "0" * 24,
    "response": "resp_" + "0" * 24,
    "stored": "resp_" + "0" * 24,
    "session": "sess_" + "0" * 24,
    "user": "nobody",
    "file": "LLM/uploads/nobody/20260101_000000_00000000_x.txt",
    "file_id": "file-uploads~nobody~20260101_000000_00000000_x.txt",
    "key": "key_0",
    "item": f"conv_{'0' * 24}/items/msg_{'0' * 24}",
}
_STRANGE: Final = ["x", "'; --", "ü", "..", "%2e%2e", "*", "x" * 5000, "\0", " "]
MALFORMED: Final = {
    "conversation": _STRANGE,
    "response": _STRANGE,
    "stored": _STRANGE,
    "file": _STRANGE,
    "file_id": _STRANGE,
    "session": _STRANGE,
    "user": ["'; --", "ü", "a b", "*", "x" * 256, "\0", " "],
    "key": _STRANGE,
    "item": [f"conv_{'0' * 24}/items/{strange}" for strange in _STRANGE if strange != ".."],
}


def handlers(server_or_app: Any) -> Iterator[tuple[str, HTTPRouteHandler]]:
    """The handlers of all routes by method and path; the framework's own answer to OPTIONS is none of them."""
    for route in server_or_app.routes:
        assert isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items():
            if method == "HEAD":
                assert handler is route.route_handler_map["GET"][0]
            elif not handler.fn.__module__.startswith("litestar."):
                yield f"{method} {route.path}", handler


def test_every_route_is_in_the_matrix() -> None:
    assert {name for name, _ in handlers(routes())} == DOORS.keys()


@pytest.mark.parametrize("name", DOORS)
def test_every_path_parameter_is_in_the_matrix(name: str) -> None:
    in_path = 0 if DOORS[name].at else len(re.findall(r"{\w+:\w+}", name))
    path = re.escape(name.split()[1])
    pattern = re.sub(r"\\{\w+:\w+\\}", "{}", re.sub(r"\\{\w+:path\\}", "{}(/content)?", path))
    asked = [ask.target.partition("?")[0] for ask in DOORS[name].asks]
    if in_path == 2:  # an item is named by its conversation and its own id
        asked = [ask.target.replace("{}", "{}/items/{}") for ask in DOORS[name].asks if ask.kind == "item"]
    assert in_path == 0 or any(re.fullmatch(pattern, target) for target in asked)
    assert in_path <= 2  # a third one needs asks of its own


def test_every_handler_has_exactly_the_guard_that_the_matrix_says() -> None:
    found = handlers(routes())
    guards = {name: [GUARDS.get(guard) for guard in handler.guards or ()] for name, handler in found}
    assert guards == {name: [door.least] for name, door in DOORS.items()}


@dataclass
class World:
    """Two tenants: `acme` with the users ada and bob, `rival` with mallory; each has a conversation, and keys."""

    server: Server
    foreign_tenant: dict[str, str] = field(default_factory=dict)
    foreign_user: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, name: str, secret: str | None, ask: Ask | None = None, id_: str = "", *, is_head: bool = False
    ) -> Answer:
        """A request of the route `name`; without `ask` a plain one, of random ids."""
        method, path = name.split()
        method = "HEAD" if is_head else method
        ask = ask or next(iter(DOORS[name].asks), None)
        id_ = id_ or (RANDOM[ask.kind] if ask else "")
        target = ask.target.replace("{}", id_) if ask and ask.target else DOORS[name].at or path
        body = ask.body if ask and ask.body else DOORS[name].body
        written = {name: value.replace("{}", id_) if value == "{}" else value for name, value in (body or {}).items()}
        headers = (JSON if body else {}) | ({} if secret is None else {"authorization": f"Bearer {secret}"})
        content = json.dumps(written).encode()
        if (form := ask.form if ask and ask.form is not None else DOORS[name].form) is not None:
            headers = {**headers, "content-type": "multipart/form-data; boundary=limit"}
            content = form_of({field: value.replace("{}", id_) for field, value in form.items()}, DOORS[name].files)
        return await self.server.call(method, target, [content], headers=headers)

    async def own_id(self, kind: str) -> str:
        """Something of ada's, which may be deleted."""
        bench = self.server.bench
        match kind:
            case "file" | "file_id":
                key = (await bench.files.upload(Caller("acme"), FILE, user_id="ada")).key
                return key if kind == "file" else file_id_of(key)
            case "conversation":
                return (await bench.send_message(Caller("acme"), TextTurn("Hi", user_id="ada"))).conversation_id
            case "stored":
                return await self.stored("acme", "ada")
            case "item":
                reply = await bench.send_message(Caller("acme"), TextTurn("Hi", user_id="ada"))
                return await self.item_of(reply.conversation_id, "ada")
        return self.own[kind]

    async def stored(self, tenant: str, user: str) -> str:
        """A response that is kept, and has ended."""
        responses, caller = self.server.bench.textllm.responses, Caller(tenant)
        turn = ResponseTurn(content=(InputText("A secret."),), user_id=user, is_background=True, asked=TOLD)
        begun = await responses.create.begin(caller, turn)
        while not (await responses.get(caller, begun.response_id)).is_over:  # noqa: ASYNC110 - as clients poll
            await asyncio.sleep(0)
        return begun.response_id

    async def item_of(self, conversation_id: str, user: str, tenant: str = "acme") -> str:
        """The newest item of a conversation, with that before it."""
        (newest,) = await self.server.bench.conversations.last_messages(tenant, user, conversation_id, limit=1)
        return f"{conversation_id}/items/{newest.id}"

    def rows(self, tenant: str | None = None) -> list[tuple[Any, Any]]:
        """All that is kept, or all that is kept of one tenant."""
        store = self.server.bench.store
        tables: list[dict[Any, Any]] = [store.conversations, store.sessions, store.daily_usage, store.entries]
        tables += [store.api_keys, store.holds, store.files, store.spoken, store.ends]
        return [row for table in tables for row in table.items() if tenant in (None, row[0][0])]


FILE: Final = Upload.of_bytes("x.txt", b"A secret.")


def form_of(texts: Mapping[str, str], files: str) -> bytes:
    """A form of texts and a file: a text, or an image where its field is called so."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in texts.items()]
    name, content = ("x.png", png(8, 8)) if files == "images" else ("x.txt", b"Hello.")
    parts.append(f'Content-Disposition: form-data; name="{files}"; filename="{name}"\r\n\r\n')
    return "\r\n".join(f"--limit\r\n{part}" for part in parts).encode() + content + b"\r\n--limit--\r\n"


@pytest.fixture
async def world(bench: Bench, tmp_path: Path) -> AsyncIterator[World]:
    administration = memory_administration(bench.store, bench.clock)
    async with serving(bench, requires_keys=True, spool_dir=tmp_path) as server:
        world = World(server)
        things = {"acme ada": world.own, "acme bob": world.foreign_user, "rival mallory": world.foreign_tenant}
        for owner, ids in things.items():
            tenant, user = owner.split()
            turn = TextTurn("A secret.", user_id=user, is_resumable=True)
            reply = await bench.send_message(Caller(tenant), turn)
            admin = Caller(tenant, "admin")
            ids |= {"conversation": reply.conversation_id, "session": reply.session_id, "user": user}
            ids |= {"response": reply.response_id}
            ids |= {"stored": await world.stored(tenant, user)}
            ids |= {"item": await world.item_of(reply.conversation_id, user, tenant)}
            ids |= {"file": (await bench.files.upload(Caller(tenant), FILE, user_id=user)).key}
            ids |= {"file_id": file_id_of(ids["file"])}
            ids["key"] = (await administration.issue_api_key(admin, role="user", user_id=user)).id
        for role in ROLES:
            issued = await administration.issue_api_key(
                Caller("acme", "admin"), role=role, user_id="ada" if role == "user" else None
            )
            world.secrets[role] = issued.secret
        revoked = await administration.issue_api_key(Caller("acme", "admin"), role="admin")
        await administration.revoke_api_key(Caller("acme", "admin"), revoked.id)
        world.secrets["revoked"] = revoked.secret
        yield world


TOLD: Final = to_json(ResponseRequest().told(created_at=0, is_stored=True)).decode()


def is_of_door(name: str) -> bool:
    """Whether the route is of OpenAI's API."""
    return "/v1/" in name


def code_of(answer: Answer) -> str:
    """The code of a failure, in either shape."""
    told = answer.json()
    return str(told.get("error", told)["code"])


def told(answer: Answer, id_: str = "") -> tuple[int, str, dict[str, str]]:
    """What an answer says, but for what is new in every answer, and for the id it was asked about."""
    ids = r"(req|conv|resp|sess|msg)_(t\d{10})?[0-9a-f]{24}"
    new = rf"{ids}|\d{{8}}_\d{{6}}_\w{{8}}_|signature=\w+|{re.escape(id_) or '(?!)'}"
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "ratelimit")}
    headers = {name: re.sub(new, "…", value) for name, value in headers.items()}
    return answer.status, re.sub(new, "…", answer.body.decode()), headers | {"content-length": ""}


ASKS: Final = [(name, ask) for name, door in DOORS.items() for ask in door.asks]
NAMES: Final = [f"{name} {ask.kind}" for name, ask in ASKS]


@pytest.mark.parametrize(("name", "ask"), [(n, a) for n, a in ASKS if DOORS[n].least == "user"])
async def test_what_is_not_a_users_own_is_not_there(world: World, name: str, ask: Ask) -> None:
    before = world.rows()
    ids = [RANDOM[ask.kind], world.foreign_user[ask.kind], world.foreign_tenant[ask.kind]]
    answers = [await world.ask(name, world.secrets["user"], ask, id_) for id_ in ids]
    assert {answer.status for answer in answers} == {400 if "after=" in ask.target else 404}
    assert len({str(told(answer)) for answer in answers}) == 1
    assert world.rows() == before


@pytest.mark.parametrize(("name", "ask"), ASKS, ids=NAMES)
async def test_what_is_another_tenants_is_not_there(world: World, name: str, ask: Ask) -> None:
    before = world.rows("rival")
    for role in ("service", "admin") if DOORS[name].least != "admin" else ("admin",):
        ids = [RANDOM[ask.kind], world.foreign_tenant[ask.kind]]
        random, foreign = [told(await world.ask(name, world.secrets[role], ask, id_), id_) for id_ in ids]
        assert foreign == random
        # A user's name is free to take in every tenant: there it is nobody yet. All else is refused.
        assert random[0] in (400, 404) or ask.kind == "user"
    assert world.rows("rival") == before


@pytest.mark.parametrize(("name", "ask"), ASKS, ids=NAMES)
async def test_what_is_malformed_is_refused_or_not_there(world: World, name: str, ask: Ask) -> None:
    before = world.rows()
    roles = ROLES[ROLES.index(DOORS[name].least) :]
    for role in roles:
        unknown = told(await world.ask(name, world.secrets[role], ask, RANDOM[ask.kind]))
        before = world.rows()
        for malformed in MALFORMED[ask.kind]:
            answer = await world.ask(name, world.secrets[role], ask, malformed)
            if answer.status == 400:
                assert code_of(answer) == "invalid_request"
                if not is_of_door(name):
                    assert [sorted(error) for error in answer.json()["errors"]] == [["field", "message"]]
            elif ask.kind == "user":
                raise AssertionError(f"{malformed!r} got {answer.status}")
            else:
                assert told(answer) == unknown
    assert world.rows() == before


@pytest.mark.parametrize(("name", "ask"), ASKS, ids=NAMES)
async def test_what_is_ones_own_is_there(world: World, name: str, ask: Ask) -> None:
    for role in ROLES[ROLES.index(DOORS[name].least) :]:
        assert (await world.ask(name, world.secrets[role], ask, await world.own_id(ask.kind))).status in (200, 201)


NO_KEYS: Final = {
    "none": [],
    "empty": [("authorization", "")],
    "no scheme": [("authorization", "{good}")],
    "another scheme": [("authorization", "Basic {good}")],
    "no key": [("authorization", "Bearer ")],
    "malformed": [("authorization", "Bearer tllm_x")],
    "bytes": [("authorization", "Bearer \xff\xfe")],
    "long": [("authorization", "Bearer " + "x" * 10_000)],
    "mistyped": [("authorization", "Bearer {good}x")],
    "unknown": [("authorization", "Bearer {unknown}")],
    "revoked": [("authorization", "Bearer {revoked}")],
    "two": [("authorization", "Bearer {good}"), ("authorization", "Bearer {good}")],
    "list": [("authorization", "Bearer {good}, Bearer {good}")],
    "another header": [("x-api-key", "{good}")],
}
IN_NO_FORCE: Final = {"unknown", "revoked"}
NOT_OURS: Final = {"malformed", "bytes", "long", "mistyped"}


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if door.least != "nobody"])
async def test_without_a_key_in_force_nobody_is_let_in_and_each_is_told_what_to_do(world: World, name: str) -> None:
    method, path = name.split()
    before = world.rows()
    values = {"good": world.secrets["admin"], "unknown": new_secret(), "revoked": world.secrets["revoked"]}
    answers, of_cause = [], dict[str, set[str]]()
    for what, given in NO_KEYS.items():
        headers = [(header, value.format(**values)) for header, value in given]
        answer = await world.server.call(method, path + "?x=1", [b"no JSON"], headers=headers)
        answers.append(answer)
        cause = "not in force" if what in IN_NO_FORCE else "no key of ours" if what in NOT_OURS else "none"
        of_cause.setdefault(cause, set()).add(str(told(answer)))
    assert [len(said) for said in of_cause.values()] == [1, 1, 1]
    assert len(set.union(*of_cause.values())) == (1 if name.split()[1] in ("/config", "/metrics") else 3)
    assert not any(secret in str(of_cause) for secret in values.values())
    assert (answers[0].status, code_of(answers[0])) == (401, "unauthenticated")
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert answers[0].headers["content-type"] == f"application/{'json' if is_of_door(name) else 'problem+json'}"
    assert world.rows() == before


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_is_let_in_where_the_matrix_says(world: World, name: str, role: str) -> None:
    answer = await world.ask(name, world.secrets[role])
    least = DOORS[name].least
    if least == "nobody" or LEVELS.index(role) >= LEVELS.index(least):
        assert answer.status not in (401, 403)
    else:
        assert (answer.status, answer.json()["code"]) == (403, "forbidden")
        assert least in answer.json()["detail"]


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if door.least == "nobody"])
async def test_an_open_door_needs_no_key(world: World, name: str) -> None:
    assert (await world.ask(name, None)).status in (200, 307)
    assert (await world.ask(name, "tllm_x")).status in (200, 307)


@pytest.mark.parametrize("name", DOORS)
async def test_where_no_keys_are_required_all_is_open_but_what_needs_an_admin(server: Server, name: str) -> None:
    answer = await World(server).ask(name, None)
    assert answer.status != 401
    assert (answer.status == 403) == (DOORS[name].least == "admin")


STREAM: Final = "GET /chat/stream/{response_id:str}"


@pytest.mark.parametrize("name", [name for name in DOORS if name.startswith("GET ") and name != STREAM])
async def test_who_asks_with_head_learns_what_get_tells_without_the_body(world: World, name: str) -> None:
    asks: list[Ask | None] = [*DOORS[name].asks]
    for ask in asks or [None]:
        kind = ask.kind if ask else "user"
        for id_ in (RANDOM[kind], world.foreign_user[kind], world.foreign_tenant[kind], await world.own_id(kind)):
            for secret in (None, *world.secrets.values()):
                got = await world.ask(name, secret, ask, id_)
                head = await world.ask(name, secret, ask, id_, is_head=True)
                assert (head.status, head.body) == (got.status, b"")
                assert told(head)[2] == told(got)[2]


async def test_a_stream_is_nothing_that_has_a_head(world: World) -> None:
    answer = await world.ask(STREAM, world.secrets["admin"], is_head=True)
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "OPTIONS"}


async def test_no_key_is_in_any_answer_or_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    said = ""
    for secret in [*world.secrets.values(), new_secret()]:
        for name in DOORS:
            answer = await world.ask(name, secret)
            said += answer.body.decode() + repr(answer.headers)
    assert not any(secret in said + caplog.text for secret in world.secrets.values())


async def test_a_page_of_another_origin_may_ask_what_is_allowed_without_a_key(world: World) -> None:
    answer = await world.server.call("OPTIONS", "/chat", headers={"origin": "https://chat.example.org"})
    assert answer.status == 204


async def test_the_scheme_is_written_as_one_likes(world: World) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):
        answer = await world.server.get("/keys", {"authorization": f"{scheme} {world.secrets['admin']}"})
        assert answer.status == 200


async def test_storage_that_does_not_answer_lets_nobody_in() -> None:
    class Gone(dict[Any, Any]):
        def values(self) -> Any:
            raise StorageUnavailableError

    async with serving(Bench(store=MemoryStore(api_keys=Gone())), requires_keys=True) as server:
        answer = await server.get("/keys", {"authorization": f"Bearer {new_secret()}"})
        assert (answer.status, answer.json()["code"]) == (503, "storage_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await server.get("/keys", {"authorization": "Bearer tllm_x"})).status == 401


async def test_readiness_says_what_is_wrong_only_where_no_keys_are_required(world: World) -> None:
    world.server.probe.fault = "It does not answer."
    answer = await world.server.get("/health/ready")
    assert answer.status == 503
    assert answer.json() == {"status": "not_ready", "checks": {"database": {"status": "unhealthy"}}}
