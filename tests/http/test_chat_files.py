"""`/chat/image` and `/chat/file`: forms that are turns."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from tests.http.conftest import Answer, Server, serving
from tests.image_files import gif, jpeg, png
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY, memory_administration
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderError
from textllm_core.tenancy import Caller
from textllm_http.turns import TurnRequest

FORM = {"content-type": "multipart/form-data; boundary=bnd", "host": "chat.example.org"}
PNG, GIF, JPEG = png(640, 480), gif(320, 200), jpeg(64, 64)
TEXT = b"Tea is at five."
File = tuple[str, str, bytes]
A_PNG: File = ("images", "a.png", PNG)
NOTES: File = ("file", "notes.txt", TEXT)


def form_of(files: Sequence[File], fields: Mapping[str, str]) -> bytes:
    body = b""
    for name, text in fields.items():
        body += f'--bnd\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
    for field, name, content in files:
        head = f'--bnd\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + b"--bnd--\r\n"


async def send(server: Server, *files: File, headers: Mapping[str, str] | None = None, **fields: str) -> Answer:
    """A turn with files, by their field to its route."""
    path = f"/chat/{'image' if files[0][0] == 'images' else 'file'}"
    body = form_of(files, {"message": "What is it?"} | fields)
    return await server.call("POST", path, [body], headers=FORM | dict(headers or {}))


def events_of(answer: Answer) -> list[tuple[str, Any]]:
    frames = [frame.split("\n") for frame in answer.body.decode().split("\n\n") if "event: " in frame]
    return [(frame[-2].removeprefix("event: "), json.loads(frame[-1].removeprefix("data: "))) for frame in frames]


async def content_behind(server: Server, link: str) -> bytes:
    assert link.startswith("http://chat.example.org/files/LLM/")
    url = urlsplit(link)
    return (await server.get(f"{url.path}?{url.query}")).body


async def test_fields_that_a_page_left_empty_are_as_if_left_out(server: Server) -> None:
    empty = {name: "" for name in TurnRequest.__struct_fields__ if name != "message"}
    answer = await send(server, A_PNG, ("images", "", b""), headers=None, **empty)
    assert (answer.status, answer.json()["image_count"]) == (200, 1)
    assert (await send(server, ("images", "", b""))).json()["errors"] == [{"field": "images", "message": "is required"}]
    assert (await send(server, A_PNG, message="")).json()["errors"][0]["field"] == "message"


async def test_a_file_is_what_its_bytes_are_whatever_it_is_called(server: Server) -> None:
    answer = await send(server, ("images", "a.jpg", PNG))
    assert (answer.status, len(answer.json()["image_urls"])) == (200, 1)
    (file,) = (await server.get("/files?folder=chat_images")).json()["data"]
    assert (file["content_type"], file["key"].endswith("_a.jpg")) == ("image/png", True)


async def test_a_reply_to_images_has_the_fields_of_the_contract(server: Server) -> None:
    answer = await send(server, A_PNG, ("images", "b.gif", GIF), ("images", "c.jpg", JPEG), user_id="ada")
    assert answer.status == 200, answer.body
    reply = answer.json()
    plain = (await server.post("/chat", {"message": "Hi", "user_id": "ada"})).json()
    assert list(reply) == [*plain, "image_urls", "image_count"]
    assert (reply["user_id"], reply["message_number"], reply["image_count"]) == ("ada", 1, 3)
    assert [await content_behind(server, link) for link in reply["image_urls"]] == [PNG, GIF, JPEG]
    assert answer.headers["ratelimit"].startswith('"turns";r=999')
    await server.bench.check_books()


async def test_a_reply_to_a_document_has_the_fields_of_the_contract(server: Server) -> None:
    reply = (await send(server, NOTES)).json()
    assert list(reply)[-2:] == ["file_url", "file_type"]
    assert reply["file_type"] == ".txt"
    assert await content_behind(server, reply["file_url"]) == TEXT
    (asked,) = server.bench.llm.requests
    assert asked.messages[-1].text_for_model == "What is it?\n\nFile notes.txt:\n\nTea is at five."


async def test_what_may_be_wrong_in_a_document_is_said_by_the_reply_a_repeat_and_the_messages(server: Server) -> None:
    damaged = ("file", "notes.txt", "Tea is at \ufffd.".encode())
    warnings = ["some characters could not be read"]
    for _ in range(2):
        reply = await send(server, damaged, headers={"idempotency-key": "k"}, user_id="ann")
        assert reply.json()["warnings"] == warnings
    messages = await server.get(f"/conversations/{reply.json()['conversation_id']}/messages")
    [_, part] = messages.json()["data"][0]["content"]
    assert part["warnings"] == warnings


async def test_the_options_of_a_form_reach_the_model(server: Server) -> None:
    options = {"instructions": "Rhyme.", "max_output_tokens": 99, "temperature": 0.5, "metadata": {"topic": "42"}}
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
    assert (await send(server, NOTES, headers=None, **fields)).status == 200
    (request,) = server.bench.llm.requests
    assert {name: getattr(request, name) for name in options} == options


async def test_texts_that_look_like_json_are_texts(server: Server) -> None:
    for message in ("42", "null", "true", '{"a": 1}', '"quoted"'):
        await send(server, NOTES, message=message)
        assert server.bench.llm.requests[-1].messages[-1].text == message


@pytest.mark.parametrize("value", ["42", "null", "true", "1e5", "-1"])
async def test_names_that_look_like_json_are_names(server: Server, value: str) -> None:
    told = (await send(server, NOTES, user_id=value)).json()
    assert told["user_id"] == value
    assert (await send(server, NOTES, conversation_id=value)).json()["code"] == "conversation_not_found"
    answer = await send(server, NOTES, conversation_id=told["conversation_id"], user_id=f"{value}0", model=value)
    assert answer.status == 404
    answer = await send(server, NOTES, stream_format=value)
    assert answer.json()["detail"] == 'stream_format: must be "events" or "text"'


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_output_tokens", "many", "must be a whole number from 16 to 2147483647"),
        ("max_output_tokens", "1.5", "must be a whole number from 16 to 2147483647"),
        ("max_output_tokens", "9" * 5000, "must be a whole number from 16 to 2147483647"),
        ("temperature", "hot", "must be a number"),
        ("temperature", "1e999", "must be a number"),
        ("temperature", "NaN", "must be a number"),
        ("stream", "yes", "must be true or false"),
        ("stream_format", "xml", 'must be "events" or "text"'),
        ("metadata", "topic=cats", "must be an object whose values are strings"),
        ("metadata", "[1]", "must be an object whose values are strings"),
        ("metadata", "[" * 5000, "must be an object whose values are strings"),
        ("metadata.n", '{"n": 1}', "must be a string"),
        ("metadata.n", '{"n": "1", "n": "2"}', "is there more than once"),
        ("metadata.n", '{"n": "\\u0000"}', "must not contain the character NUL"),
        ("message", " ", "must not be blank"),
        ("title", "x", "is no field of this request; it has images, message, conversation_id, "),
        ("user_id", "ü", None),
        ("prompt", "unknown", None),
    ],
)
async def test_a_wrong_field_is_refused_in_the_words_of_json(
    server: Server, field: str, value: str, message: str | None
) -> None:
    answer = await send(server, A_PNG, headers=None, **{field.partition(".")[0]: value})
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert message is None or message in error["message"]
    assert not server.bench.store.files


async def test_a_form_without_a_message_or_without_files_is_refused(server: Server) -> None:
    for path, body, field, message in [
        ("/chat/file", form_of([NOTES], {}), "message", "is required"),
        ("/chat/file", form_of([], {"message": "Hi"}), "file", "is required"),
        ("/chat/image", form_of([], {"message": "Hi"}), "images", "is required"),
        ("/chat/image", form_of([A_PNG] * 11, {"message": "Hi"}), "images", "more than 10 times; send 1 to 10 files"),
        ("/chat/file", form_of([NOTES] * 11, {"message": "Hi"}), "file", "more than 10 times; send 1 to 10 files"),
        ("/chat/image", form_of([NOTES], {"message": "Hi"}), "file", "no field of this request; it has images, "),
        ("/chat/file", form_of([A_PNG], {"message": "Hi"}), "file", "is required"),
    ]:
        answer = await server.call("POST", path, [body], headers=FORM)
        (error,) = answer.json()["errors"]
        assert (answer.status, error["field"]) == (400, field)
        assert message in error["message"]
    answer = await server.post("/chat/image", {"message": "Hi"})
    assert (answer.status, answer.json()["detail"]) == (415, "The body must be multipart/form-data in UTF-8.")
    assert not server.bench.store.files


async def test_an_image_that_is_too_large_on_its_way_is_told_from_the_others() -> None:
    bench = Bench(file_policy=replace(SCRIPTED_FILE_POLICY, max_file_bytes=1000))
    async with serving(bench) as server:
        answer = await send(server, A_PNG, ("images", "b.png", PNG + bytes(1000)))
    assert (answer.status, answer.json()["code"], answer.json()["limit"]) == (413, "file_too_large", 1000)
    assert answer.json()["detail"].startswith("File 2 in images: The file is larger than 1000 bytes, ")


async def test_what_is_no_image_leaves_nothing(server: Server) -> None:
    answer = await send(server, A_PNG, ("images", "b.png", b"GIF8"))
    assert (answer.status, answer.json()["code"]) == (415, "unsupported_media_type")
    assert not server.bench.store.files
    assert not server.bench.llm.requests


@pytest.mark.parametrize("file", [A_PNG, NOTES])
async def test_a_stream_ends_with_the_links_and_can_be_read_again(server: Server, file: File) -> None:
    answer = await send(server, file, stream="true", stream_format="events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    assert (events[0][0], events[-1][0]) == ("reply.started", "reply.completed")
    whole = events[-1][1]
    for link in whole.get("image_urls", [whole.get("file_url")]):
        assert await content_behind(server, link) == file[2]
    again = await server.get(f"/chat/stream/{whole['response_id']}", {"host": FORM["host"]})
    assert events_of(again)[-1] == events[-1]
    cancelled = await server.call("POST", f"/chat/stream/{whole['response_id']}/cancel", headers=FORM)
    assert cancelled.json() == whole


async def test_a_stream_of_text_is_text(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(text="A cat"))
    answer = await send(server, A_PNG, stream="true")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert answer.headers["x-conversation-id"].startswith("conv_")


@pytest.mark.parametrize("file", [A_PNG, NOTES])
async def test_a_repeat_is_told_the_same_and_asks_nobody(server: Server, file: File) -> None:
    key = {"idempotency-key": "k1"}
    first, second = [await send(server, file, headers=key, user_id="ada") for _ in range(2)]
    assert (first.status, second.status, second.headers["idempotent-replayed"]) == (200, 200, "true")
    assert second.json() == first.json()
    assert (len(server.bench.llm.requests), len(server.bench.store.files)) == (1, 1)
    other = (file[0], file[1], png(8, 8) if file is A_PNG else b"Tea is at six.")
    for answer in (
        await send(server, other, headers=key, user_id="ada"),
        await send(server, file, headers=key, user_id="ada", message="And now?"),
    ):
        assert (answer.status, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert (await send(server, A_PNG, headers={"idempotency-key": "ü"})).status == 400


async def test_a_refused_file_of_a_counted_turn_says_what_is_left_of_the_rate_limit(server: Server) -> None:
    told = (await send(server, A_PNG, user_id="ada")).json()
    refused = await send(server, ("images", "b.png", b"none"), conversation_id=told["conversation_id"])
    assert (refused.status, refused.headers["ratelimit"]) == (415, '"turns";r=998;t=1')


async def test_a_failure_of_the_model_has_its_status(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(error=ProviderError("Bad answer.")))
    answer = await send(server, A_PNG)
    assert (answer.status, answer.json()["code"]) == (502, "provider_error")
    await server.bench.check_books()


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that asks for keys and lets users make two requests a minute."""
    bench = Bench(
        policy=replace(POLICY, rate_per_minute=2), file_policy=replace(SCRIPTED_FILE_POLICY, rate_per_minute=2)
    )
    async with serving(bench, spool_dir=tmp_path / "spool", requires_keys=True) as server:
        yield server


async def test_a_turn_counts_once_whoever_sends_it(strict: Server) -> None:
    administration = memory_administration(strict.bench.store, strict.bench.clock)
    admin = Caller("acme", "admin")
    for role, named in (("user", {}), ("service", {"user_id": "bob"}), ("service", {})):
        user = "eve" if role == "user" else None
        issued = await administration.issue_api_key(admin, role=role, user_id=user)  # type: ignore[arg-type]
        key = {"authorization": f"Bearer {issued.secret}"}
        first = await send(strict, NOTES, headers=key, **named)
        assert first.headers["ratelimit"].startswith('"turns";r=1')
        going_on = {"conversation_id": first.json()["conversation_id"]}
        answers = [await send(strict, NOTES, headers=key, **named, **going_on) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert answers[-1].headers["ratelimit"].startswith('"turns";r=0')


async def test_a_bound_caller_is_limited_before_the_body_is_read(strict: Server) -> None:
    issued = await memory_administration(strict.bench.store, strict.bench.clock).issue_api_key(
        Caller("acme", "admin"), role="user", user_id="eve"
    )
    key = {"authorization": f"Bearer {issued.secret}"}
    assert [(await send(strict, NOTES, headers=key)).status for _ in range(2)] == [200, 200]
    answer = await strict.call("POST", "/chat/image", [b"--bn"], headers=FORM | key, is_whole=False)
    assert (answer.status, answer.json()["code"]) == (429, "rate_limited")


async def test_a_conversation_shows_a_link_to_its_newest_image(server: Server) -> None:
    first = (await send(server, A_PNG, user_id="ada")).json()
    going_on = {"conversation_id": first["conversation_id"]}
    await send(server, ("images", "b.gif", GIF), ("images", "c.jpg", JPEG), **going_on)
    await send(server, NOTES, **going_on)
    path = f"/conversations/{first['conversation_id']}"
    host = {"host": FORM["host"]}
    shown = (await server.get(path, host)).json()["last_image_url"]
    assert await content_behind(server, shown) == JPEG
    (listed,) = (await server.get("/conversations?user_id=ada", host)).json()["data"]
    changed = (
        await server.call("PATCH", path, [b'{"title": "x"}'], headers=host | {"content-type": "application/json"})
    ).json()
    assert listed["last_image_url"] == changed["last_image_url"] == shown
    await server.call("DELETE", urlsplit(shown).path.removesuffix("/content"))
    assert (await server.get(path, host)).json()["last_image_url"] is None


async def test_what_came_with_its_turns_is_erased_with_a_conversation(server: Server) -> None:
    first = (await send(server, A_PNG, ("images", "b.gif", GIF), user_id="ada")).json()
    await send(server, NOTES, conversation_id=first["conversation_id"])
    elsewhere = (await send(server, NOTES, user_id="ada")).json()
    path = f"/conversations/{first['conversation_id']}"
    await server.call("DELETE", path)
    assert await content_behind(server, first["image_urls"][0]) == PNG  # it can be restored
    assert (await server.call("DELETE", f"{path}?soft=false")).status == 200
    for link in first["image_urls"]:
        assert json.loads(await content_behind(server, link))["code"] == "file_not_found"
    for folder, expected in (("chat_images", 0), ("documents", 1)):
        assert len((await server.get(f"/files?user_id=ada&folder={folder}")).json()["data"]) == expected
    assert await content_behind(server, elsewhere["file_url"]) == TEXT
    async with asyncio.timeout(5):
        while len(server.bench.store.files) > 1:  # noqa: ASYNC110 - a task of the server's deletes them
            await asyncio.sleep(0.01)


async def test_a_turn_that_fails_brings_no_image_into_its_conversation(server: Server) -> None:
    first = (await send(server, A_PNG, user_id="ada")).json()
    server.bench.llm.script(ScriptedReply(text="One two", error=ProviderError("Bad."), after=0, unheard="failed"))
    await send(server, ("images", "b.gif", GIF), conversation_id=first["conversation_id"])
    shown = (await server.get(f"/conversations/{first['conversation_id']}", {"host": FORM["host"]})).json()
    assert await content_behind(server, shown["last_image_url"]) == PNG
    (kept,) = (await server.get("/files?user_id=ada&folder=chat_images")).json()["data"]
    assert kept["size"] == len(PNG)


async def test_messages_have_their_files_in_openais_words(server: Server) -> None:
    first = (await send(server, A_PNG, user_id="ada")).json()
    await send(server, NOTES, conversation_id=first["conversation_id"])
    messages = (await server.get(f"/conversations/{first['conversation_id']}/messages")).json()["data"]
    said = [message for message in messages if message["role"] == "user"]
    assert [message["text"] for message in said] == ["What is it?"] * 2
    keys = [message["content"][1].pop("key") for message in said]
    assert [key.split("/")[1] for key in keys] == ["chat_images", "documents"]
    text = {"type": "input_text", "text": "What is it?"}
    image = {"type": "input_image", "media_type": "image/png", "size": len(PNG), "name": "a.png"}
    file = {"type": "input_file", "media_type": "text/plain", "size": len(TEXT), "name": "notes.txt"}
    assert [message["content"] for message in said] == [[text, image], [text, file]]


async def test_the_spool_is_empty_while_the_model_speaks(server: Server, tmp_path: Path) -> None:
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(text="Slow reply", gate=gate))
    asking = asyncio.create_task(send(server, A_PNG))
    while not server.bench.llm.requests:  # noqa: ASYNC110 - until the model has been asked
        await asyncio.sleep(0.001)
    gate.set()
    assert (await asking).status == 200
    assert list((tmp_path / "spool").iterdir()) == []
    assert hashlib.sha256(PNG).hexdigest() in {kept.file.sha256 for kept in server.bench.store.files.values()}


async def test_a_turn_may_have_several_documents_and_images_beside_them(server: Server) -> None:
    more: File = ("file", "more.txt", b"Cake is at six.")
    reply = (await send(server, NOTES, more, A_PNG, user_id="ada")).json()
    assert list(reply)[-5:] == ["file_url", "file_type", "file_urls", "image_urls", "image_count"]
    assert [await content_behind(server, link) for link in reply["file_urls"]] == [TEXT, more[2]]
    assert (reply["file_url"], reply["image_count"]) == (reply["file_urls"][0], 1)
    (asked,) = server.bench.llm.requests
    assert asked.messages[-1].text_for_model == (
        "What is it?\n\nFile notes.txt:\n\nTea is at five.\n\nFile more.txt:\n\nCake is at six."
    )
    assert [part.media_type for part in asked.messages[-1].stored_parts] == ["image/png"]
    await server.bench.check_books()


async def test_of_several_documents_none_is_kept_where_one_is_refused(server: Server) -> None:
    answer = await send(server, NOTES, ("file", "b.pdf", b"\xff no text"))
    assert (answer.status, answer.json()["detail"][:17]) == (415, "Document 2 of 2: ")
    answer = await send(server, NOTES, ("images", "a.png", b"no image"))
    assert answer.status == 415
    assert not server.bench.store.files
