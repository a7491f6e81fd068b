"""JSON bodies with files in them: these are cut out, in whatever pieces the body comes, and held until read."""

import asyncio
import base64
import json
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from tests.http.test_multipart import open_files
from tests.unit.conftest import NOON

from textllm_core.chat.given_parts import GivenFile
from textllm_core.errors import FileTooLargeError, InvalidRequestError
from textllm_core.file_names import file_id_of, new_key
from textllm_core.records.parts import InputText, OutputText, Refusal
from textllm_core.uploads import Upload
from textllm_http.openai_door.bodies import DoorBody, HeldSpool, Lifting
from textllm_http.openai_door.parts import FileContent, ImageAddress, WirePart, parts_of
from textllm_http.spool import Spool

MIB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
ENCODED = base64.b64encode(PNG)


def url_of(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def lift(
    body: bytes, folder: Path, *, step: int | None = None, text: int = MIB, file: int = MIB
) -> tuple[DoorBody, HeldSpool]:
    held = HeldSpool(Spool(folder))
    lifting = Lifting(held, max_text_bytes=text, max_file_bytes=file)
    try:
        for at in range(0, len(body), step or len(body)):
            await lifting.take(body[at : at + (step or len(body))])
        lifted = await lifting.ended()
    except BaseException:
        held.let_go()
        raise
    lifted.held = held
    return lifted, held


async def content_of(upload: Upload | None) -> bytes:
    assert upload is not None
    return b"".join([piece async for piece in upload.read()])


def strings(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for each in value.values() for text in strings(each)]
        case list():
            return [text for each in value for text in strings(each)]
    return []


AWKWARD = st.sampled_from(
    ['"data:image/png;base64,AAAA"', "data:", "\\", '\\"data:a;base64,', "held:", 'x"file_data":"', "é\u2028"]
)
TEXTS = st.lists(st.one_of(AWKWARD, st.text(max_size=9)), max_size=5).map(lambda texts: "x" + "".join(texts))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(TEXTS, st.binary(max_size=400)), max_size=8),
    st.integers(1, 400),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_any_body_in_any_pieces_has_its_files_cut_out_and_all_else_left(
    tmp_path: Path, items: Sequence[str | bytes], step: int, escapes_slashes: bool, indent: int | None
) -> None:
    whole = json.dumps([item if isinstance(item, str) else {"u": url_of(item)} for item in items], indent=indent)
    if escapes_slashes:
        whole = whole.replace("/", "\\/")

    async def check() -> None:
        body, held = await lift(whole.encode(), tmp_path, step=step)
        for sent, got in zip(items, strings(json.loads(body.content)), strict=True):
            if isinstance(sent, str):
                assert got == sent
                assert body.upload(got, None) is None
            else:
                assert await content_of(body.upload(got, None)) == sent
        held.let_go()

    asyncio.run(check())


@pytest.mark.parametrize(
    "written",
    [
        b'{"file_data": "%s"}' % ENCODED,
        b'{"file_data" :"data:application/pdf;name=a.pdf;base64,%s"}' % ENCODED,
        b'{"url":"data:image\\/png;base64,%s"}'
        % base64.b64encode(PNG).replace(b"/", b"\\u002f").replace(b"+", b"\\u002B"),
        b'{"url":"data:image/png;base64,%s"}' % base64.encodebytes(PNG).replace(b"\n", b"\\n"),
        b'{"url":"data:image/png;base64,%s"}' % ENCODED.rstrip(b"="),
    ],
)
async def test_files_are_taken_in_each_way_that_clients_write_them(tmp_path: Path, written: bytes) -> None:
    for step in (1, 7, 1000):
        body, held = await lift(written, tmp_path, step=step)
        [text] = strings(json.loads(body.content))
        assert await content_of(body.upload(text, "a")) == PNG
        held.let_go()


@pytest.mark.parametrize(
    ("written", "error", "says"),
    [
        (b'{"url":"data:image/png;base64,$$$$"}', InvalidRequestError, "image_url: is not valid base64"),
        (b'{"url":"data:image/png;base64,AA==AAAA"}', InvalidRequestError, "not valid base64"),
        (b'{"file_data":"A"}', InvalidRequestError, "file_data: is not valid base64"),
        (b'{"file_data":"https://a.org/b.pdf"}', InvalidRequestError, "file_data: is not valid base64"),
        (b'{"url":"data:image/png;base64,AAAA', InvalidRequestError, "not valid JSON"),
        (b"[%s]" % b",".join([b'"data:;base64,AAAA"'] * 101), InvalidRequestError, "more than 100 files"),
        (b'{"url":"data:image/png;base64,%s"}' % (b"A" * 3000), FileTooLargeError, "larger than"),
        (b'{"text":"%s"}' % (b"A" * 6000), RequestEntityTooLarge, None),
    ],
)
async def test_what_is_no_file_or_too_much_is_refused(
    tmp_path: Path, written: bytes, error: type[Exception], says: str | None
) -> None:
    with pytest.raises(error, match=says):
        await lift(written, tmp_path, text=5000, file=2000)


async def test_two_bodies_that_ask_for_the_same_are_known_by_it(tmp_path: Path) -> None:
    one, another, third = [
        await lift(json.dumps({"u": url_of(content)}).encode(), tmp_path) for content in (PNG, PNG, PNG + b"x")
    ]
    assert one[0].content != another[0].content
    assert one[0].canonical == another[0].canonical != third[0].canonical
    assert DoorBody(b"{}").canonical == b"{}"
    for _, held in (one, another, third):
        held.let_go()


async def test_a_file_waits_until_nobody_holds_it(tmp_path: Path) -> None:
    body, held = await lift(json.dumps({"u": url_of(PNG)}).encode(), tmp_path)
    [text] = strings(json.loads(body.content))
    upload = body.upload(text, None)
    assert upload is not None
    assert upload.name == "file.png"
    made = await held.keep(Upload.of_bytes("b.png", b"made of it"))
    held.hold()
    held.let_go()
    assert (await content_of(upload), await content_of(made)) == (PNG, b"made of it")
    assert len(open_files(tmp_path)) == 1
    held.let_go()
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    for _ in range(100):
        if not open_files(tmp_path):
            break
        await asyncio.sleep(0.01)
    assert open_files(tmp_path) == []


async def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    piece = base64.b64encode(bytes(48 * 1024))

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b'{"u":"data:image/png;base64,'
        for _ in range(400):
            yield piece
        yield b'"}'

    held = HeldSpool(Spool(tmp_path))
    lifting = Lifting(held, max_text_bytes=MIB, max_file_bytes=20 * MIB)
    tracemalloc.start()
    async with aclosing(pieces()) as coming:
        async for part in coming:
            await lifting.take(part)
    await lifting.ended()
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()
    held.let_go()


NO_FILES = DoorBody(b"{}")
KEY = new_key("uploads", "ada", "a b.pdf", NOON)


def read(*parts: WirePart, role: str = "user") -> tuple[object, ...]:
    return parts_of(parts, NO_FILES, role=role, place="input[0].content")


def test_texts_are_said_by_who_says_them() -> None:
    assert parts_of("Hello", NO_FILES, role="user", place="input") == (InputText("Hello"),)
    assert parts_of(None, NO_FILES, role="assistant", place="input") == ()
    assert read(WirePart("text", text="a"), WirePart("output_text", text=""), role="assistant") == (OutputText("a"),)
    assert read(WirePart("refusal", refusal="No."), role="assistant") == (Refusal("No."),)


def test_images_and_files_of_both_apis_are_told_by_address_and_by_id() -> None:
    url, file_id = "https://example.com/a", file_id_of(KEY)
    place = "input[0].content[0]"
    image = GivenFile(kind="image", url=url, detail="low", place=f"{place}.image_url.url")
    assert read(WirePart("image_url", image_url=ImageAddress(url, "low"))) == (image,)
    image = GivenFile(kind="image", url=url, detail="high", place=f"{place}.image_url")
    assert read(WirePart("input_image", image_url=url, detail="high")) == (image,)
    assert read(WirePart("input_image", file_id=file_id)) == (
        GivenFile(kind="image", key=KEY, place=f"{place}.file_id"),
    )
    assert read(WirePart("input_file", file_url=url)) == (GivenFile(kind="file", url=url, place=f"{place}.file_url"),)
    for part in (WirePart("input_file", file_id=file_id), WirePart("file", file=FileContent(file_id))):
        [given] = read(part)
        assert isinstance(given, GivenFile)
        assert given.key == KEY


@pytest.mark.parametrize(
    ("part", "role", "says"),
    [
        (WirePart("input_audio"), "user", "audio"),
        (WirePart("reasoning_text"), "user", "no type of a part"),
        (WirePart("text"), "user", "required"),
        (WirePart("input_image"), "user", "required"),
        (WirePart("input_image", image_url="ftp://a"), "user", "https://"),
        (WirePart("input_image", image_url="data:image/png,AAAA"), "user", "base64"),
        (WirePart("input_image", image_url="https://a", detail="close"), "user", "must be auto, low"),
        (WirePart("input_image", image_url="https://" + "a" * 9000), "user", "8192"),
        (WirePart("input_image", image_url="https://["), "user", "name a host"),
        (WirePart("input_image", image_url="https:///a"), "user", "name a host"),
        (WirePart("input_image", image_url="https://a/\nb"), "user", r"\[0\].image_url: has a control character"),
        (
            WirePart("image_url", image_url=ImageAddress("https://a/\x00")),
            "user",
            "image_url.url: has a control character",
        ),
        (WirePart("input_file", file_url="https://a/\x7fb"), "user", "file_url: has a control character"),
        (WirePart("input_image", image_url="https://a/\udc00"), "user", "half of a character"),
        (WirePart("input_image", image_url="https://a"), "assistant", "only messages of users"),
        (WirePart("input_file"), "user", "required"),
        (WirePart("input_file", file_id="file-abc"), "user", "does not exist"),
        (WirePart("file"), "user", "required"),
    ],
)
def test_a_part_that_is_not_taken_is_named(part: WirePart, role: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as refused:
        read(part, role=role)
    assert refused.value.errors[0][0].startswith("input[0].content[0]")
