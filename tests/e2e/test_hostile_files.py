"""Files of strangers through a real server: each bad one gets its refusal, and nobody else notices."""

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from tests import documents
from tests.documents import docx_of, paragraph, pdf_of_pages
from tests.e2e.conftest import Service, serving
from tests.e2e.test_files import MB, peak_of
from tests.image_files import gif, jpeg, png
from tests.servers.openai import OpenAIStandIn

MIB = 1024 * 1024
WITHIN_S = 20.0
KEY = re.compile(r"LLM/uploads/ann/[0-9]{8}_[0-9]{6}_[0-9a-f]{8}_[A-Za-z0-9_-][A-Za-z0-9._-]*")
UNREADABLE, TOO_LARGE = (422, "unreadable_document"), (413, "document_too_large")
UNSUPPORTED, INVALID = (415, "unsupported_media_type"), (400, "invalid_request")

Case = tuple[str, Callable[[], bytes], tuple[int, str]]
DOCUMENTS: dict[str, Case] = {
    "encrypted PDF": ("a.pdf", lambda: documents.encrypted_pdf(password="secret"), UNREADABLE),
    "no pages": ("a.pdf", lambda: pdf_of_pages([]), UNREADABLE),
    "cut PDF": ("a.pdf", lambda: pdf_of_pages(["Hello"])[:100], UNREADABLE),
    "PDF within itself": ("a.pdf", documents.pdf_whose_pages_contain_themselves, UNREADABLE),
    "a million kids": ("a.pdf", lambda: documents.pdf_of_many_kids(1_000_000), TOO_LARGE),
    "too many pages": ("a.pdf", lambda: pdf_of_pages(["x"] * 1001), TOO_LARGE),
    "PNG as PDF": ("a.pdf", lambda: documents.PNG, UNSUPPORTED),
    "ZIP as PDF": ("a.pdf", lambda: documents.zip_of([("a.txt", b"Hello")]), UNSUPPORTED),
    "entity bomb": ("a.docx", documents.docx_with_an_entity_bomb, UNREADABLE),
    "external entity": (
        "a.docx",
        lambda: documents.docx_with_doctype('<!ENTITY x SYSTEM "file:///etc/passwd">', "&amp;x;"),
        UNREADABLE,
    ),
    "ZIP slip": ("a.docx", lambda: docx_of(paragraph("a"), further={"../x.xml": b"<x/>"}), UNREADABLE),
    "2004 entries": (
        "a.docx",
        lambda: docx_of(paragraph("a"), further={f"{number}.bin": b"" for number in range(2000)}),
        UNREADABLE,
    ),
    "repeated XML": ("a.docx", lambda: docx_of("<w:p/>" * 6_000_000), UNREADABLE),
    "dense XML": ("a.docx", lambda: documents.docx_of_elements(6_000_000), UNREADABLE),
    "deep XML": ("a.docx", lambda: docx_of("<w:tbl><w:tr><w:tc>" * 300_000), UNREADABLE),
    "overlapping entries": ("a.docx", lambda: documents.docx_whose_entries_overlap(1000), UNREADABLE),
    "a lie of size": (
        "a.docx",
        lambda: documents.docx_that_lies_about_its_size(1000, claim=4_000_000_000),
        UNREADABLE,
    ),
    "200 MiB in a ZIP": ("a.docx", lambda: documents.docx_that_unpacks_to(200 * MIB), TOO_LARGE),
    "encrypted DOCX": ("a.docx", documents.encrypted_docx, UNREADABLE),
    "cut DOCX": ("a.docx", lambda: docx_of(paragraph("a"))[:-30], UNREADABLE),
    "macros": ("a.docx", documents.docm, UNSUPPORTED),
    "workbook": ("a.docx", documents.xlsx, UNREADABLE),
    "ZIP in a ZIP": ("a.docx", lambda: documents.zip_of([("a.zip", documents.zip_of([]))]), UNSUPPORTED),
    "empty": ("a.txt", lambda: b"", UNREADABLE),
    "blank": ("a.txt", lambda: b" \n" * 1000, UNREADABLE),
    "program": ("a.csv", lambda: documents.EXE, UNSUPPORTED),
    "nothing but NUL": ("a.json", lambda: bytes(1000), UNSUPPORTED),
    "long text": ("a.txt", lambda: b"x" * 2_000_000, TOO_LARGE),
    "endless comments": ("a.html", lambda: b"<!--" * 4_000_000, UNREADABLE),
    "endless depth": ("a.html", lambda: b"<div>" * 4_000_000, UNREADABLE),
    "longer than any file": ("a.txt", lambda: bytes(21 * MIB), (413, "file_too_large")),
}
IMAGES: dict[str, Case] = {
    "page": ("a.png", lambda: b"<html><script>alert(1)</script>", UNSUPPORTED),
    "SVG": ("a.svg", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', UNSUPPORTED),
    "program": ("a.png", lambda: documents.EXE, UNSUPPORTED),
    "PDF": ("a.png", lambda: pdf_of_pages(["Hello"]), UNSUPPORTED),
    "empty": ("a.png", lambda: b"", UNSUPPORTED),
    "cut PNG": ("a.png", lambda: png(9, 9)[:20], UNSUPPORTED),
    "half a PNG": ("a.png", lambda: png(9, 9, padding=100_000)[:50_000], UNSUPPORTED),
    "cut JPEG": ("a.jpg", lambda: jpeg(9, 9)[:12], UNSUPPORTED),
    "JPEG without its end": ("a.jpg", lambda: jpeg(9, 9)[:-2], UNSUPPORTED),
    "no pixels": ("a.gif", lambda: gif(0, 9), UNSUPPORTED),
    "ZIP": ("a.png", lambda: documents.zip_of([("a.png", png(9, 9))]), UNSUPPORTED),
    "too many pixels": ("a.png", lambda: png(100_000, 100_000), (413, "file_too_large")),
    "too many in a frame": ("a.gif", lambda: gif(9, 9, frame=(65_535, 65_535)), (413, "file_too_large")),
    "longer than any file": ("a.png", lambda: png(9, 9, padding=21 * MIB), (413, "file_too_large")),
}


@pytest.fixture(scope="module")
def exposed(
    provider: OpenAIStandIn, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A server of one worker that has answered a document and an image before."""
    folder = tmp_path_factory.mktemp("exposed")
    database = shutil.copy(migrated_sqlite_file, folder)
    with serving(folder, provider, f"sqlite:///{database}") as service:
        good = [
            ask_as_told(service, "file", "a.docx", documents.written_docx()),
            ask_as_told(service, "images", "a.png", png(9, 9)),
        ]
        assert [answer.status_code for answer in good] == [200, 200], [answer.text for answer in good]
        yield service


def ask(service: Service, field: str, name: str, content: bytes, *, user_id: str = "ann") -> httpx.Response:
    """A turn with a file, or with an image."""
    route = {"file": "/chat/file", "images": "/chat/image"}[field]
    form = {"message": "What is it?", "user_id": user_id}
    return httpx.post(service.url + route, data=form, files={field: (name, content)}, timeout=WITHIN_S)


def ask_as_told(service: Service, field: str, name: str, content: bytes) -> httpx.Response:
    """As `ask`, and again where the answer is to do so: a machine where others work reads less in its time."""
    for _ in range(4):
        answer = ask(service, field, name, content)
        if answer.status_code != 503:
            return answer
        time.sleep(float(answer.headers["retry-after"]))
    return ask(service, field, name, content)


@contextmanager
def watched(service: Service) -> Iterator[list[int]]:
    """What `/health/live` answers meanwhile, again and again."""
    statuses: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while True:
            statuses.append(service.get("/health/live").status_code)
            if is_over.wait(0.2):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield statuses
    finally:
        is_over.set()
        watcher.join()


def check(service: Service, field: str, case: Case) -> None:
    """Send a bad file: it is refused in time, takes no memory and keeps nobody waiting."""
    name, make, refusal = case
    content = make()
    (worker,) = service.workers()
    before = peak_of(worker)
    with watched(service) as statuses:
        answer = ask_as_told(service, field, name, content)
    assert (answer.status_code, answer.json()["code"]) == refusal, answer.text
    assert set(statuses) == {200}
    assert peak_of(worker) - before < 16 * MB
    assert service.workers() == [worker]


@pytest.mark.parametrize("case", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_bad_document_is_refused_and_nobody_else_notices(exposed: Service, case: Case) -> None:
    check(exposed, "file", case)


@pytest.mark.parametrize("case", IMAGES.values(), ids=IMAGES)
def test_a_bad_image_is_refused_and_nobody_else_notices(exposed: Service, case: Case) -> None:
    check(exposed, "images", case)


def test_the_slow_documents_of_one_user_hold_up_nobody_else(
    provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path
) -> None:
    bomb = b"<!--" * 125_000  # busy for as long as it may be
    room = (os.cpu_count() or 1) + 8  # as many of a user's are read, or wait, at a time
    with serving(tmp_path, provider, sqlite_url) as service, ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(room + 1))
        stack.callback(service.kill)  # whatever is still being read then
        bombs = [threads.submit(ask, service, "file", "a.html", bomb) for _ in range(room + 1)]
        refused = next(as_completed(bombs)).result()
        assert (refused.status_code, refused.json()["code"]) == (503, "service_unavailable")
        assert "of this user wait" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "2"
        answer = ask(service, "file", "a.docx", documents.written_docx(), user_id="bob")
        assert answer.status_code == 200, answer.text
        assert not all(sent.done() for sent in bombs)


@pytest.mark.parametrize("case", DOCUMENTS.values(), ids=DOCUMENTS)
def test_what_no_model_may_read_can_be_kept_and_comes_back_as_it_went(exposed: Service, case: Case) -> None:
    name, make, refusal = case
    content = make()
    file = {"file": (name, content)}
    answer = httpx.post(f"{exposed.url}/files/upload", data={"user_id": "bob"}, files=file, timeout=WITHIN_S)
    if refusal[1] == "file_too_large":
        assert (answer.status_code, answer.json()["code"]) == refusal
        return
    assert answer.status_code == 201, answer.text
    back = exposed.get(f"/files/{answer.json()['key']}/content")
    assert (back.status_code, back.content) == (200, content)
    assert back.headers["x-content-type-options"] == "nosniff"
    assert back.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "name",
    [
        b"../../../../etc/passwd",
        b"..",
        b"/etc/passwd",
        b"..\\\\..\\\\windows\\\\system.ini",
        b"a\0b.txt",
        b"a\r\nX-Injected: yes\r\n.txt",
        b"a%0d%0aX-Injected: yes.txt",
        "\u202efdp.exe".encode(),
        b"n" * 4096 + b".txt",
        "\U0001f3de".encode() * 4096,
        b"",
        b"\xff\xfe.txt",
        b'a";name="user_id.txt',
        b"CON",
        b"-rf",
    ],
    ids=repr,
)
def test_a_name_is_refused_or_becomes_a_safe_key(exposed: Service, name: bytes) -> None:
    body = (
        b'--bnd\r\nContent-Disposition: form-data; name="user_id"\r\n\r\nann\r\n'
        b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\nHello\r\n--bnd--\r\n'
    )
    status, head, problem_or_file = exchange(exposed, body)
    assert b"\nx-injected" not in head.lower()
    assert 400 <= status < 500 or status == 201
    if status != 201:
        assert problem_or_file["code"] == "invalid_request"
        return
    key = str(problem_or_file["key"])
    assert KEY.fullmatch(key), key
    assert ".." not in key
    answer = exposed.get(f"/files/{key}/content")
    assert (answer.status_code, answer.text) == (200, "Hello")


def exchange(service: Service, body: bytes) -> tuple[int, bytes, dict[str, object]]:
    """Upload a form as it is, over a socket: status, head and JSON of the answer."""
    address = httpx.URL(service.url)
    head = b"POST /files/upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    form = b"content-type: multipart/form-data; boundary=bnd\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_connection((address.host, address.port or 0), timeout=WITHIN_S) as client:
        client.sendall(head + form + body)
        received = b""
        while piece := client.recv(65536):
            received += piece
    head, _, content = received.partition(b"\r\n\r\n")
    answer = httpx.Response(int(head.split()[1]), content=content)
    return answer.status_code, head, answer.json()
