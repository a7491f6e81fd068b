"""Images and documents through all three doors: the provider gets what was sent, byte for byte or word for word."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.documents import pdf_of_pages, written_docx
from tests.e2e.conftest import Books, Service, serving
from tests.e2e.test_cli import textllm
from tests.image_files import gif, jpeg, png, webp
from tests.servers.openai import OpenAIStandIn

from textllm_adapters.wiring import load_settings, open_textllm
from textllm_core import Caller, DocumentTurn, ImageTurn, TextTurn, Upload
from textllm_core.ids import new_id

IMAGES = {
    "a.png": png(640, 480, padding=3_000_000),
    "b.jpg": jpeg(320, 200),
    "c.webp": webp(64, 64),
    "d.gif": gif(32, 32),
}
PDF = pdf_of_pages(["Tea is at five.", "Cake is at six."])
FILES = IMAGES | {"e.pdf": PDF}
TEXTS = {
    "a.txt": b"Tea is at five.",
    "b.md": b"# Tea\n\nTea is at *five*.",
    "c.csv": b"what,when\ntea,five\n",
    "d.json": b'{"tea": "five"}',
    "e.html": b"<!doctype html><html><body><p>Tea is at five.</p></body></html>",
    "f.docx": written_docx(),
}


def seen(*contents: bytes) -> str:
    """How the echo of the provider names what it has got."""
    return "Seen: " + " ".join(hashlib.sha256(content).hexdigest()[:8] for content in contents)


def assert_arrived(provider: OpenAIStandIn, *contents: bytes) -> None:
    wanted = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    assert any(request.files == wanted for request in provider.requests)


def send(
    service: Service, files: Mapping[str, bytes], text: str = "When?", key: str | None = None, **fields: str
) -> httpx.Response:
    """A turn over REST. `key`: its `Idempotency-Key`."""
    kind, field = ("image", "images") if files.keys() <= IMAGES.keys() else ("file", "file")
    parts = [(field, (name, content)) for name, content in files.items()]
    headers = {} if key is None else {"Idempotency-Key": key}
    data = {"message": text} | fields
    return httpx.post(f"{service.url}/chat/{kind}", data=data, files=parts, headers=headers, timeout=60)


@pytest.mark.parametrize("name", FILES)
def test_rest_sends_a_file_byte_for_byte_and_the_conversation_knows_it(
    service: Service, provider: OpenAIStandIn, name: str
) -> None:
    answer = send(service, {name: FILES[name]})
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    assert reply["text"] == f"[0] You said: When? {seen(FILES[name])}"
    assert_arrived(provider, FILES[name])
    for link in reply.get("image_urls", [reply.get("file_url")]):
        assert httpx.get(link, timeout=30).content == FILES[name]
    asked = {"conversation_id": reply["conversation_id"], "user_id": reply["user_id"]}
    assert service.chat("And now?", **asked).json()["text"] == f"[2] You said: And now? {seen(FILES[name])}"


@pytest.mark.parametrize(("name", "kind"), [("a.bmp", "BMP"), ("b.avif", "AVIF")])
def test_rest_sends_an_image_that_no_model_takes_in_another_form(
    service: Service, provider: OpenAIStandIn, name: str, kind: str
) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, kind)
    answer = httpx.post(
        f"{service.url}/chat/image", data={"message": "What?"}, files={"images": (name, file.getvalue())}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    kept = httpx.get(answer.json()["image_urls"][0], timeout=30).content
    assert_arrived(provider, kept)
    seen_by_the_model = Image.open(io.BytesIO(kept))
    assert seen_by_the_model.format == "PNG"
    assert seen_by_the_model.tobytes() == Image.open(file).convert("RGB").tobytes()


@pytest.mark.parametrize("name", TEXTS)
def test_rest_sends_the_text_of_a_document(service: Service, name: str) -> None:
    reply = send(service, {name: TEXTS[name]}).json()
    head, _, words = reply["text"].partition(f"File {name}:\n\n")
    assert head.startswith("[0] You said: When?")
    said = {"e.html": "Tea is at five.", "f.docx": "Amazon"}.get(name)  # of these all but the text is left out
    assert (said or TEXTS[name].decode().strip()) in words
    assert "Seen" not in words
    asked = {"conversation_id": reply["conversation_id"], "user_id": reply["user_id"]}
    assert service.chat("And now?", **asked).json()["text"] == "[2] You said: And now?"


async def test_several_images_are_one_turn_that_is_charged_once(
    service: Service, provider: OpenAIStandIn, books: Books
) -> None:
    user = new_id("user")
    reply = send(service, IMAGES, user_id=user).json()
    assert reply["text"] == f"[0] You said: When? {seen(*IMAGES.values())}"
    assert_arrived(provider, *IMAGES.values())
    assert (reply["image_count"], reply["message_number"]) == (4, 1)
    (entry,) = await books.entries(user)
    assert (entry.kind, entry.status, entry.usage.input_tokens) == ("image", "completed", reply["usage"]["input"])
    shown = service.get(f"/conversations/{reply['conversation_id']}").json()
    assert service.get(shown["last_image_url"].removeprefix(service.url)).content == IMAGES["d.gif"]


def last_of(stream: httpx.Response) -> dict[str, Any]:
    """The data of the last event of a stream."""
    data = [line.removeprefix("data: ") for line in stream.text.splitlines() if line.startswith("data: ")]
    return dict(json.loads(data[-1]))


def test_a_stream_is_read_again_with_its_links(service: Service) -> None:
    streamed = send(service, {"b.jpg": IMAGES["b.jpg"]}, stream="true", stream_format="events")
    response_id = streamed.headers["x-response-id"]
    replies = [last_of(streamed)] + [last_of(service.get(f"/chat/stream/{response_id}")) for _ in range(3)]
    for reply in replies:  # of either worker
        (link,) = reply.pop("image_urls")
        assert httpx.get(link, timeout=30).content == IMAGES["b.jpg"]
        assert reply == replies[0]


@pytest.mark.parametrize("empty_database", ["sqlite_url", "postgres_url"])
def test_repeats_are_answered_where_the_first_turns_have_filled_the_quota(
    provider: OpenAIStandIn, tmp_path: Path, request: pytest.FixtureRequest, empty_database: str
) -> None:
    database = request.getfixturevalue(empty_database)
    files = {
        "a.png": png(64, 64, padding=255_000),
        "b.html": b"<!doctype html><p>Tea is at five.</p><!--" + b"-" * 255_000 + b"-->",
    }
    turns = [({name: content}, stream) for name, content in files.items() for stream in ("false", "true")]
    with serving(tmp_path, provider, database, TEXTLLM_MAX_STORAGE_MB_PER_TENANT="1") as service:
        first, again = [
            [send(service, sent, key=f"key-{n}", stream=stream) for n, (sent, stream) in enumerate(turns)]
            for _ in range(2)
        ]
        other = send(service, {"a.png": files["a.png"]})
    assert (other.status_code, other.json()["code"]) == (413, "file_too_large")
    assert [answer.status_code for answer in first + again] == [200] * 8
    assert [answer.headers.get("idempotent-replayed") for answer in first + again] == [None] * 4 + ["true"] * 4
    assert [answer.headers.get("x-response-id") for answer in again] == [
        answer.headers.get("x-response-id") for answer in first
    ]
    for told, retold in zip(first[::2], again[::2], strict=True):
        assert without_links(retold) == without_links(told)


def without_links(answer: httpx.Response) -> dict[str, Any]:
    """The reply but for its links, which are made anew each time."""
    return {name: value for name, value in answer.json().items() if name not in {"image_urls", "file_url"}}


@pytest.fixture
def openai() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key="sk-test") as provider:
        yield provider


def environment(openai: OpenAIStandIn) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": openai.base_url}


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
@pytest.mark.parametrize("name", FILES)
def test_the_command_line_sends_a_file_byte_for_byte(tmp_path: Path, openai: OpenAIStandIn, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    option = "-i" if name in IMAGES else "-f"
    first = textllm(tmp_path, "ask", "When?", option, name, **environment(openai))
    assert (first.returncode, first.stdout, first.stderr) == (0, f"[0] You said: When? {seen(FILES[name])}\n", "")
    assert_arrived(openai, FILES[name])


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
def test_a_chat_at_the_command_line_remembers_its_files(tmp_path: Path, openai: OpenAIStandIn) -> None:
    (tmp_path / "my cat.png").write_bytes(IMAGES["a.png"])
    stdin = '/image "my cat.png" What is it?\nAnd now?\n'
    result = textllm(tmp_path, "chat", stdin=stdin, **environment(openai))
    both = seen(IMAGES["a.png"])
    assert result.stdout == f"[0] You said: What is it? {both}\n[2] You said: And now? {both}\n"


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
def test_where_the_api_takes_no_files_the_text_of_a_pdf_is_sent(tmp_path: Path, openai: OpenAIStandIn) -> None:
    (tmp_path / "e.pdf").write_bytes(PDF)
    api = {"TEXTLLM_LLM_API": "chat_completions"} | environment(openai)
    first = textllm(tmp_path, "ask", "When?", "-f", "e.pdf", "--no-stream", **api)
    said = "[1] You said: When?\n\nFile e.pdf:\n\n[page 1]\nTea is at five.\n[page 2]\nCake is at six.\n"
    assert (first.stdout, first.stderr) == (said, "")
    assert all(request.files == () for request in openai.requests)


async def test_the_library_sends_files_byte_for_byte(
    tmp_path: Path, openai: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (environment(openai) | {"TEXTLLM_DATA_DIR": str(tmp_path / "data")}).items():
        monkeypatch.setenv(name, value)
    caller, uploads = Caller(), {name: Upload.of_bytes(name, content) for name, content in FILES.items()}
    async with open_textllm(load_settings()) as textllm:
        images = [uploads[name] for name in IMAGES]
        reply = await textllm.chat_with_image(caller, ImageTurn("What?", images, user_id="ada"))
        assert reply.text == f"[0] You said: What? {seen(*IMAGES.values())}"
        document = DocumentTurn("When?", uploads["e.pdf"], conversation_id=reply.conversation_id)
        reply = await textllm.chat_with_document(caller, document)
        assert reply.text == f"[2] You said: When? {seen(*FILES.values())}"
        reply = await textllm.send_message(caller, TextTurn("And?", conversation_id=reply.conversation_id))
        assert reply.text == f"[4] You said: And? {seen(*FILES.values())}"
    assert_arrived(openai, *IMAGES.values())
