"""Parts of messages as clients of other APIs send them: what becomes of their files, kept, borrowed or held."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import PIL.Image
import pytest
from tests.documents import pdf_of_pages
from tests.image_files import gif, png
from tests.unit.chat.kept_files import PlainReader, kept
from tests.unit.conftest import Bench

from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import Caller, ReplyCompleted, TurnOptions
from textllm_core.chat.given_parts import MAX_FILES, GivenFile, GivenPart, TakenParts, TakeParts, has_files
from textllm_core.errors import (
    FileTooLargeError,
    InvalidRequestError,
    ProviderError,
    StoredFileNotFoundError,
    UnsupportedMediaTypeError,
)
from textllm_core.file_tokens import image_tokens
from textllm_core.ports.document_reader import DocumentReader
from textllm_core.records.messages import Turn
from textllm_core.records.parts import InputFile, InputImage, InputLink, InputText
from textllm_core.uploads import Upload

ADA, BOB = Caller(user_id="ada", role="user"), Caller(user_id="bob", role="user")
PNG, GIF = png(640, 480), gif(320, 200)
PDF = b"%PDF-1.7 of three pages"


@dataclass
class Held:
    """Where files wait; `holders`: who needs them still."""

    holders: int = 1
    kept: list[Upload] = field(default_factory=list)

    async def keep(self, upload: Upload) -> Upload:
        self.kept.append(upload)
        return upload

    def hold(self) -> None:
        self.holders += 1

    def let_go(self) -> None:
        self.holders -= 1


def image(content: bytes, name: str = "one.png") -> GivenFile:
    return GivenFile(kind="image", upload=Upload.of_bytes(name, content), place="input[0]")


def document(content: bytes, name: str = "a.txt") -> GivenFile:
    return GivenFile(kind="file", upload=Upload.of_bytes(name, content))


@pytest.fixture(params=["conversations", "stateless"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(transcript=MemoryTranscript() if request.param == "conversations" else None)


async def take(
    bench: Bench, *messages: Sequence[GivenPart], held: Held | None = None, reader: DocumentReader | None = None
) -> TakenParts:
    files = bench.files.of_turns(bench.conversations)
    taking = TakeParts(bench.exchange, files, reader or PlainReader(), bench.files.read)
    return await taking(ADA, messages, user_id="ada", model=None, held=held)


async def say(bench: Bench, taken: TakenParts) -> str:
    turn = Turn(
        kind=taken.kind,
        content=taken.contents[-1],
        token_bound=taken.tokens.most,
        conversation_id=None,
        user_id="ada",
        options=TurnOptions(),
        file_tokens=taken.tokens.about,
        attached=taken.attached,
        discard_files=taken.discard_files,
    )
    events = [event async for event in bench.exchange.run(ADA, turn)]
    assert isinstance(events[-1], ReplyCompleted)
    await bench.check_books()
    return events[-1].reply.text


async def test_files_of_a_turn_that_is_kept_are_stored_as_those_of_forms(bench: Bench) -> None:
    said = InputText("Well?")
    taken = await take(bench, [said], [said, image(PNG), document(b"Tea at five.")])
    [_, (_, shown, read)] = taken.contents
    assert isinstance(shown, InputImage)
    assert isinstance(read, InputFile)
    assert list(kept(bench.store).items()) == [(shown.key, len(PNG)), (read.key, 12)]
    assert [key.split("/")[1] for key in kept(bench.store)] == ["chat_images", "documents"]
    assert (read.extracted, taken.kind, taken.attached) == ("Tea at five.", "document", None)
    assert taken.tokens.most > image_tokens(640, 480, model="gpt-4o").most
    assert (await say(bench, taken)).endswith(f"Seen: {bench.llm.received[shown.key][:8]}")
    assert taken.discard_files is not None
    await taken.discard_files()
    assert kept(bench.store) == {}


async def test_files_that_are_held_are_read_from_there_until_the_reply_has_ended(bench: Bench) -> None:
    held = Held()
    taken = await take(bench, [InputText("Well?"), image(PNG), image(GIF)], held=held)
    assert (kept(bench.store), taken.discard_files, taken.kind) == ({}, None, "image")
    assert held.holders == 1
    assert "Seen:" in await say(bench, taken)
    assert len(bench.llm.received) == 2
    assert (kept(bench.store), held.holders) == ({}, 1)


async def test_what_is_held_is_let_go_of_however_the_reply_ends(bench: Bench) -> None:
    held = Held()
    taken = await take(bench, [InputText("Well?"), image(PNG)], held=held)
    bench.llm.script(ScriptedReply(error=ProviderError("It is broken.")))
    with pytest.raises(ProviderError):
        await say(bench, taken)
    await bench.running.drain(10)
    assert held.holders == 1


async def test_what_is_made_of_a_held_image_is_held_as_well(bench: Bench) -> None:
    held = Held()
    bmp = BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(bmp, "BMP")
    taken = await take(bench, [image(bmp.getvalue(), "one.bmp")], held=held, reader=ChildDocumentReader(timeout_s=120))
    [[shown]] = taken.contents
    assert isinstance(shown, InputImage)
    assert (shown.media_type, len(held.kept)) == ("image/png", 1)


async def test_a_file_that_was_uploaded_before_is_named_and_never_taken_away(bench: Bench) -> None:
    file = await bench.files.upload(ADA, Upload.of_bytes("one.png", PNG))
    taken = await take(bench, [InputText("Well?"), GivenFile(kind="file", key=file.key, detail="low")])
    [[_, shown]] = taken.contents
    assert shown == InputImage(
        key=file.key, media_type="image/png", size=len(PNG), name="one.png", detail="low", is_borrowed=True
    )
    assert taken.discard_files is None
    assert "Seen:" in await say(bench, taken)
    [conversation] = bench.store.conversations
    await bench.textllm.conversations.delete(ADA, conversation[2], soft=False)
    await bench.running.drain(10)
    assert list(kept(bench.store)) == [file.key]


async def test_nobody_names_the_file_of_another(bench: Bench) -> None:
    file = await bench.files.upload(BOB, Upload.of_bytes("one.png", PNG))
    with pytest.raises(InvalidRequestError, match="does not exist"):
        await take(bench, [GivenFile(kind="image", key=file.key)])


async def test_an_address_is_passed_on(bench: Bench) -> None:
    url = "https://example.com/one.png"
    taken = await take(bench, [GivenFile(kind="image", url=url, detail="high"), GivenFile(kind="file", url=url)])
    assert taken.contents == ((InputLink(kind="image", url=url, detail="high"), InputLink(kind="file", url=url)),)
    assert taken.tokens.most > 1_000_000
    assert taken.kind == "document"


async def test_a_model_that_reads_text_alone_is_shown_no_images_and_told_of_no_addresses(bench: Bench) -> None:
    bench.llm.reads_images = bench.llm.reads_files = False
    for given in (image(PNG), GivenFile(kind="image", url="https://a"), GivenFile(kind="file", url="https://a")):
        with pytest.raises(InvalidRequestError, match="this model reads no"):
            await take(bench, [given])
    [[read]] = (await take(bench, [document(PDF, "a.pdf")])).contents
    assert isinstance(read, InputFile)
    assert read.extracted is not None


async def test_of_several_one_that_cannot_be_taken_leaves_nothing_behind(bench: Bench) -> None:
    for bad, error in ((b"\0\1", UnsupportedMediaTypeError), (bytes(30_000_000), FileTooLargeError)):
        with pytest.raises(error):
            await take(bench, [image(PNG), document(bad)])
        assert kept(bench.store) == {}
    with pytest.raises(InvalidRequestError, match="one file too many"):
        await take(bench, [image(PNG)] * (MAX_FILES + 1))


async def test_the_pages_of_a_scan_are_shown_behind_it(bench: Bench) -> None:
    bench.llm.reads_files = False
    scan = document(pdf_of_pages([""]), "scan.pdf")
    taken = await take(bench, [scan], reader=ChildDocumentReader(timeout_s=120))
    assert [type(part) for part in taken.contents[0]] == [InputFile, InputImage]


def test_texts_need_no_looking_at() -> None:
    assert not has_files([InputText("Hello")])
    assert has_files([InputText("Hello"), image(PNG)])


async def test_a_file_that_is_gone_is_told(bench: Bench) -> None:
    file = await bench.files.upload(ADA, Upload.of_bytes("one.png", PNG))
    await bench.files.delete(ADA, file.key)
    with pytest.raises(InvalidRequestError, match="does not exist"):
        await take(bench, [GivenFile(kind="image", key=file.key)])
    with pytest.raises(StoredFileNotFoundError):
        await bench.files.get(ADA, file.key)
