"""Turns with images and documents: what the model is sent, what is kept, and what is left of a refusal."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace
from tests.documents import pdf_of_pages
from tests.image_files import gif, jpeg, png
from tests.unit.chat.kept_files import FaultyBlobs, PlainReader, kept
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.memory.file_repository import MemoryFileRepository
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import Caller, Reply, TextLLMError, TurnOptions
from textllm_core.chat.admission import Admission
from textllm_core.chat.chat_with_document import ChatWithDocument, DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.errors import (
    BudgetExceededError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationNotFoundError,
    FileTooLargeError,
    ImageTooLargeError,
    InputTooLongError,
    InvalidRequestError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServiceUnavailableError,
    StorageUnavailableError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
)
from textllm_core.records.file_replies import DocumentReply, ImageReply
from textllm_core.records.messages import Idempotency, Message, ReplyFailed, ReplyStarted
from textllm_core.records.model import ReadBlob
from textllm_core.records.parts import InputImage, InputText, words_of
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

ADA = Caller(user_id="ada", role="user")
PNG, GIF, JPEG = png(640, 480), gif(320, 200), jpeg(64, 64)
PDF = b"%PDF-1.7 of three pages"
TEXT = "Tea is at five."


def upload(name: str, content: bytes) -> Upload:
    return Upload.of_bytes(name, content)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Desk:
    """A bench with files."""

    bench: Bench

    def __post_init__(self) -> None:
        bench = self.bench
        self.chat_with_image = bench.chat_with_image
        files = bench.files.of_turns(bench.conversations)
        self.reader = PlainReader()
        self.chat_with_document = ChatWithDocument(bench.exchange, files, self.reader, bench.policy)

    @property
    def kept(self) -> Mapping[str, int]:
        return kept(self.bench.store)

    @property
    def blobs(self) -> FaultyBlobs:
        assert isinstance(self.bench.blobs, FaultyBlobs)
        return self.bench.blobs

    async def delete_first(self) -> None:
        await self.bench.files.delete(ADA, next(iter(self.kept)))

    async def show(self, text: str, *images: Upload, conversation_id: str | None = None) -> ImageReply:
        self.bench.clock.advance(timedelta(seconds=1))
        reply = await self.chat_with_image(ADA, ImageTurn(text, images, conversation_id))
        assert isinstance(reply, ImageReply)
        return reply

    async def hand(self, text: str, document: Upload, conversation_id: str | None = None) -> DocumentReply:
        self.bench.clock.advance(timedelta(seconds=1))
        reply = await self.chat_with_document(ADA, DocumentTurn(text, document, conversation_id))
        assert isinstance(reply, DocumentReply)
        return reply


@pytest.fixture(params=["conversations", "stateless"])
def bench(request: pytest.FixtureRequest) -> Bench:
    transcript = MemoryTranscript() if request.param == "conversations" else None
    return Bench(transcript=transcript, blobs=FaultyBlobs())


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


async def test_images_shown_to_one_model_do_not_keep_another_without_eyes_from_text(desk: Desk) -> None:
    shown = await desk.show("Well?", upload("one.png", PNG))
    refusal = ScriptedReply(error=UnsupportedMediaTypeError("The model takes no images."))
    desk.bench.llm.script(refusal)
    if desk.bench.transcript is not None:
        with pytest.raises(UnsupportedMediaTypeError, match="This conversation has an image"):
            await desk.bench.say("And now?", shown.conversation_id)
    else:
        reply = await desk.bench.say("And now?", shown.conversation_id)
        assert reply.text == "[2] You said: And now?"
        told = desk.bench.llm.requests[-1].messages[0].content[1:]
        assert told == (InputText("[The file one.png was sent before, and this model cannot read it.]"),)
    assert "Seen:" in (await desk.bench.say("And then?", shown.conversation_id)).text
    await desk.bench.check_books()


async def test_images_reach_the_model_as_they_were_sent(desk: Desk) -> None:
    reply = await desk.show("Well?", upload("one.png", PNG), upload("two.gif", GIF))
    assert list(desk.bench.llm.received.values()) == [digest(PNG), digest(GIF)]
    assert reply.text == f"[0] You said: Well? Seen: {digest(PNG)[:8]} {digest(GIF)[:8]}"
    await desk.bench.check_books()


async def test_images_are_told_by_their_content_whatever_they_are_named(desk: Desk) -> None:
    reply = await desk.show("Well?", upload("one.jpg", PNG), upload("two.png", GIF))
    [asked, _] = await desk.bench.conversations.last_messages("default", "ada", reply.conversation_id, limit=None)
    assert [part.media_type for part in asked.content if isinstance(part, InputImage)] == ["image/png", "image/gif"]


async def test_a_reply_to_images_has_links_to_them(desk: Desk) -> None:
    reply = await desk.show("Well?", upload("one.png", PNG), upload("two.gif", GIF))
    assert [url.partition("?")[0] for url in reply.image_urls] == [f"/files/{key}/content" for key in desk.kept]
    assert reply.image_count == 2
    assert all(key.startswith("LLM/chat_images/ada/") for key in desk.kept)


async def test_a_reply_that_is_paid_for_is_told_though_no_links_can_be_made(desk: Desk) -> None:
    desk.blobs.is_away = True
    seen = await desk.show("Well?", upload("one.png", PNG))
    read = await desk.hand("Well?", upload("a.txt", TEXT.encode()))
    assert (seen.image_urls, seen.image_count, read.file_url) == ([], 1, None)
    for reply in (seen, read):
        assert "Well?" in reply.text
        assert "no links" in reply.warnings[-1]
    await desk.bench.check_books()


async def test_the_wire_shapes_add_to_that_of_a_text_turn(desk: Desk) -> None:
    plain = msgspec.to_builtins(await desk.bench.say("Hello"))
    with_image = msgspec.to_builtins(await desk.show("Well?", upload("one.png", PNG)))
    with_text = msgspec.to_builtins(await desk.hand("Well?", upload("a.txt", TEXT.encode())))
    with_pdf = msgspec.to_builtins(await desk.hand("Well?", upload("a.pdf", PDF)))
    assert "image_urls" not in plain
    assert with_image.keys() - plain.keys() == {"image_urls", "image_count"}
    assert with_text.keys() - plain.keys() == {"file_url", "file_type"}
    assert with_pdf.keys() - plain.keys() == {"file_url", "file_type", "pages"}
    assert (with_text["file_type"], with_pdf["file_type"], with_pdf["pages"]) == (".txt", ".pdf", 3)


async def test_the_entry_names_the_kind_of_the_turn(desk: Desk) -> None:
    await desk.show("Well?", upload("one.png", PNG))
    await desk.hand("Well?", upload("a.txt", TEXT.encode()))
    assert [entry.kind for entry in await desk.bench.entries()] == ["image", "document"]


async def test_a_later_turn_still_knows_the_images(desk: Desk) -> None:
    first = await desk.show("Look", upload("one.png", PNG))
    second = await desk.bench.say("And now?", first.conversation_id)
    assert second.text == f"[2] You said: And now? Seen: {digest(PNG)[:8]}"


async def test_the_conversation_keeps_the_images_as_parts(desk: Desk) -> None:
    reply = await desk.show("Look", upload("one.png", PNG))
    messages = await desk.bench.conversations.last_messages("default", "ada", reply.conversation_id, limit=None)
    [key] = desk.kept
    assert messages[0].content[1] == InputImage(key=key, media_type="image/png", size=len(PNG), name="one.png")
    assert messages[0].text == "Look"


async def test_a_pdf_goes_to_the_model_as_it_is(desk: Desk) -> None:
    reply = await desk.hand("Well?", upload("a.pdf", PDF))
    assert list(desk.bench.llm.received.values()) == [digest(PDF)]
    assert reply.text == f"[0] You said: Well? Seen: {digest(PDF)[:8]}"
    assert reply.file_url is not None
    assert reply.file_url.startswith(f"/files/{next(iter(desk.kept))}/content?")


async def test_of_a_text_file_the_text_is_sent(desk: Desk) -> None:
    reply = await desk.hand("When?", upload("a.txt", TEXT.encode()))
    assert desk.bench.llm.received == {}
    assert reply.text == f"[0] You said: When?\n\nFile a.txt:\n\n{TEXT}"


async def test_a_model_that_reads_no_files_is_sent_the_text_of_a_pdf(desk: Desk) -> None:
    desk.bench.llm.reads_files = False
    reply = await desk.hand("Well?", upload("a.pdf", PDF))
    assert reply.text == f"[0] You said: Well?\n\nFile a.pdf:\n\n[page 1] {PDF.decode()}"
    assert reply.pages == 3


async def test_of_a_scan_the_pages_are_shown_to_a_model_that_sees_where_it_reads_no_files(desk: Desk) -> None:
    bench = desk.bench
    reader, files = ChildDocumentReader(timeout_s=120), bench.files.of_turns(bench.conversations)
    desk.chat_with_document = ChatWithDocument(bench.exchange, files, reader, bench.policy)
    bench.llm.reads_files = False
    scan = upload("scan.pdf", pdf_of_pages([""] * 11))
    reply = await desk.hand("What is it?", scan)
    assert (reply.pages, reply.warnings) == (11, ("no text was found: 10 of its 11 pages were sent as images",))
    _, document, *pages = bench.llm.requests[-1].messages[-1].content
    assert words_of(document) == "File scan.pdf:\n\n[It has no text; 10 of its 11 pages were sent as images.]"
    assert [part.media_type for part in pages if isinstance(part, InputImage)] == ["image/jpeg"] * 10
    bench.llm.reads_images = False
    with pytest.raises(UnreadableDocumentError) as refusal:
        await desk.hand("What is it?", scan)
    assert refusal.value.reason == "empty"


async def test_a_document_that_is_none_is_refused_and_not_kept(desk: Desk) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        await desk.hand("Well?", upload("a.txt", b"\0\0"))
    assert desk.kept == {}


@pytest.mark.parametrize("reads_files", [True, False])
async def test_a_document_is_read_for_the_user_whom_a_service_acts_for(desk: Desk, reads_files: bool) -> None:
    desk.bench.llm.reads_files = reads_files
    desk.reader.busy_for = Owner("acme", "ada")

    async def hand(tenant_id: str, user_id: str) -> Reply:
        turn = DocumentTurn("Well?", upload("a.pdf", PDF), user_id=user_id)
        return await desk.chat_with_document(Caller(tenant_id), turn)

    with pytest.raises(ServiceUnavailableError):
        await hand("acme", "ada")
    await hand("acme", "bob")
    await hand("globex", "ada")


async def test_a_model_that_reads_no_images_is_sent_none(desk: Desk) -> None:
    reply = await desk.show("Look", upload("one.png", PNG))
    desk.bench.llm.reads_images = False
    with pytest.raises(InvalidRequestError, match="text alone; set OPENAI_API_KEY"):
        await desk.show("Look again", upload("one.png", PNG))
    assert list(desk.kept.values()) == [len(PNG)]
    assert (await desk.bench.say("And now?", reply.conversation_id)).text.startswith("[2] You said: And now?")


async def test_a_deleted_image_does_not_break_its_conversation() -> None:
    desk = Desk(Bench(transcript=None))
    reply = await desk.show("Look", upload("one.png", PNG), upload("two.gif", GIF))
    await desk.delete_first()
    later = await desk.bench.say("And now?", reply.conversation_id)
    assert later.text == f"[2] You said: And now? Seen: {digest(GIF)[:8]}"
    told = desk.bench.llm.requests[-1].messages[0]
    assert told.text_for_model == "Look\n\n[The file one.png was deleted.]"


async def test_a_damaged_image_does_not_break_its_conversation() -> None:
    desk = Desk(Bench(transcript=None, blobs=FaultyBlobs()))
    reply = await desk.show("Look", upload("one.png", PNG))
    key = next(iter(desk.kept))
    await desk.blobs.delete(key)
    await desk.blobs.put(key, upload("", PNG[:-1]).read(), max_bytes=len(PNG))
    assert (await desk.bench.say("And now?", reply.conversation_id)).text == "[2] You said: And now?"
    told = desk.bench.llm.requests[-1].messages[0]
    assert told.content[1] == InputText("[The file one.png was damaged.]")


async def test_images_that_leave_no_room_for_older_ones_replace_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textllm_core.chat.attachments.MOST_BYTES", len(PNG) + len(GIF))
    desk = Desk(Bench(transcript=None))
    reply = await desk.show("One", upload("one.png", PNG))
    await desk.show("Two", upload("two.png", PNG), conversation_id=reply.conversation_id)
    last = await desk.show("Three", upload("three.gif", GIF), conversation_id=reply.conversation_id)
    assert last.text == f"[4] You said: Three Seen: {digest(PNG)[:8]} {digest(GIF)[:8]}"
    assert "one.png is not sent again" in desk.bench.llm.requests[-1].messages[0].text_for_model


async def test_a_lost_transcript_is_made_anew_with_its_images() -> None:
    desk = Desk(bench := Bench())
    reply = await desk.show("Look", upload("one.png", PNG))
    assert bench.transcript is not None
    [transcript_id] = [kept.transcript_id for kept in bench.store.conversations.values()]
    assert transcript_id is not None
    bench.transcript.lose(transcript_id)
    bench.transcript.received.clear()
    assert (await bench.say("And now?", reply.conversation_id)).text.endswith(f"Seen: {digest(PNG)[:8]}")


@pytest.mark.parametrize(
    ("images", "error"),
    [
        ([], InvalidRequestError),
        ([upload("one.png", PNG)] * 11, InvalidRequestError),
        ([upload("one.png", b"hello")], UnsupportedMediaTypeError),
        ([upload("one.png", PNG), upload("two.png", PDF)], UnsupportedMediaTypeError),
        ([upload("one.svg", b"<svg/>")], UnsupportedMediaTypeError),
        ([upload("one.png", b"")], UnsupportedMediaTypeError),
        ([upload("one.png", png(60_000, 60_000))], ImageTooLargeError),
        ([Upload("one.png", 20 * 1024 * 1024 + 1, upload("one.png", PNG).read)], FileTooLargeError),
        ([Upload("one.png", 18 * 1024 * 1024, upload("one.png", PNG).read)] * 3, ImageTooLargeError),
    ],
)
async def test_images_that_are_not_taken_are_refused_and_not_kept(
    desk: Desk, images: list[Upload], error: type[TextLLMError]
) -> None:
    with pytest.raises(error):
        await desk.show("Well?", *images)
    assert desk.kept == {}
    assert await desk.bench.entries() == []


@pytest.mark.parametrize(
    "second",
    [
        upload("two.png", b""),
        upload("two.png", b"hello"),
        upload("two.png", PDF),
        upload("two.png", png(60_000, 60_000)),
        Upload("two.png", 20 * 1024 * 1024 + 1, upload("two.png", PNG).read),
    ],
)
async def test_a_refusal_of_one_of_several_images_says_which(desk: Desk, second: Upload) -> None:
    with pytest.raises(TextLLMError, match=r"^Image 2 of 3: The "):
        await desk.show("Well?", upload("one.png", PNG), second, upload("three.png", b""))
    with pytest.raises(TextLLMError, match=r"^The "):
        await desk.show("Well?", second)


async def test_images_that_are_too_large_together_are_refused_in_words_that_people_read(desk: Desk) -> None:
    with pytest.raises(ImageTooLargeError, match=r"more than 52428800 bytes \(50 MiB\); send fewer"):
        await desk.show("Well?", *[Upload("one.png", 18 * 1024 * 1024, upload("one.png", PNG).read)] * 3)


@pytest.mark.parametrize(
    ("turn", "error"),
    [
        (ImageTurn(" ", [upload("one.png", PNG)]), InvalidRequestError),
        (ImageTurn("\ud800", [upload("one.png", PNG)]), InvalidRequestError),
        (ImageTurn("x" * 10_001, [upload("one.png", PNG)]), InputTooLongError),
        (ImageTurn("Well?", [upload("one.png", PNG)], "conv_unknown"), ConversationNotFoundError),
        (ImageTurn("Well?", [upload("one.png", PNG)], None, "bob"), NotFoundError),
        (ImageTurn("Well?", [upload("one.png", PNG)], options=TurnOptions(model="!")), InvalidRequestError),
        (ImageTurn("Well?", [upload("one.png", PNG)], options=TurnOptions(prompt="none")), InvalidRequestError),
    ],
)
async def test_a_turn_that_is_wrong_leaves_no_file(desk: Desk, turn: ImageTurn, error: type[TextLLMError]) -> None:
    with pytest.raises(error):
        await desk.chat_with_image(ADA, turn)
    assert desk.kept == {}
    await desk.bench.check_books()


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"daily_limit": Decimal("0.0001")}, BudgetExceededError), ({"rate_per_minute": 1}, RateLimitedError)],
)
async def test_a_turn_that_is_not_admitted_leaves_no_file(limits: dict[str, object], error: type[TextLLMError]) -> None:
    desk = Desk(bench := Bench(policy=replace(POLICY, **limits)))
    if error is RateLimitedError:
        await bench.say("Hello")
    with pytest.raises(error):
        await desk.chat_with_image(ADA, ImageTurn("Well?", [upload("one.png", PNG)]))
    with pytest.raises(error):
        await desk.chat_with_document(ADA, DocumentTurn("Well?", upload("a.pdf", PDF)))
    assert desk.kept == {}
    await bench.check_books()


async def test_a_turn_that_the_process_takes_no_more_leaves_no_file(desk: Desk) -> None:
    desk.bench.running.refuse_new()
    with pytest.raises(ServiceUnavailableError):
        await desk.show("Well?", upload("one.png", PNG))
    assert desk.kept == {}
    await desk.bench.check_books()


async def test_a_busy_conversation_takes_no_files(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.bench.llm.script(ScriptedReply(gate=gate))
    async with aclosing(desk.chat_with_image.stream(ADA, ImageTurn("Look", [upload("one.png", PNG)]))) as events:
        started = await anext(events)
        assert isinstance(started, ReplyStarted)
        with pytest.raises(ConversationBusyError):
            await desk.show("Me too", upload("two.gif", GIF), conversation_id=started.conversation_id)
        gate.set()
    assert list(desk.kept.values()) == [len(PNG)]
    await desk.bench.check_books()


async def test_a_turn_that_the_model_never_took_leaves_no_file(desk: Desk) -> None:
    desk.bench.llm.script(ScriptedReply(error=ContextTooLongError()))
    with pytest.raises(ContextTooLongError, match="What was sent is too long for the model; send less"):
        await desk.show("Well?", upload("one.png", PNG))
    assert desk.kept == {}
    await desk.bench.check_books()


async def test_a_turn_that_failed_leaves_no_file_whatever_it_cost(desk: Desk) -> None:
    desk.bench.llm.script(ScriptedReply(text="so far", error=ProviderError("broken"), after=0, unheard="failed"))
    with pytest.raises(ProviderError):
        await desk.show("Well?", upload("one.png", PNG))
    await desk.bench.running.drain(10)
    assert desk.kept == {}
    await desk.bench.check_books()


async def test_what_a_reply_that_was_cut_short_is_about_stays(desk: Desk) -> None:
    desk.bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event(), unheard="cancelled"))
    async with aclosing(desk.chat_with_image.stream(ADA, ImageTurn("Look", [upload("one.png", PNG)]))) as events:
        started = await anext(events)
        await anext(events)
        await desk.bench.running.drain(0)
        assert isinstance([event async for event in events][-1], ReplyFailed)
    assert isinstance(started, ReplyStarted)
    (asked, _) = await desk.bench.conversations.last_messages("default", "ada", started.conversation_id, limit=None)
    assert [part.key for part in asked.stored_parts] == list(desk.kept)
    await desk.bench.check_books()


async def test_a_failure_in_the_middle_of_storing_leaves_no_file(desk: Desk) -> None:
    desk.blobs.full_after = 1
    with pytest.raises(StorageUnavailableError):
        await desk.show("Well?", upload("one.png", PNG), upload("two.gif", GIF))
    assert desk.kept == {}


async def test_a_client_who_leaves_while_files_are_stored_leaves_none(desk: Desk) -> None:
    reached = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        if len(desk.kept) == 2:  # it is announced
            reached.set()
            await asyncio.Event().wait()
        yield PNG

    turn = ImageTurn("Well?", [upload("one.png", PNG), Upload("two.png", len(PNG), slow)])
    leaving = asyncio.create_task(desk.chat_with_image(ADA, turn))
    await reached.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert desk.kept == {}
    await desk.bench.check_books()


async def test_a_client_who_leaves_before_a_refusal_leaves_no_file(desk: Desk) -> None:
    desk.blobs.delay = asyncio.Event()
    turn = ImageTurn("Well?", [upload("one.png", PNG)], options=TurnOptions(model="!"))
    leaving = asyncio.create_task(desk.chat_with_image(ADA, turn))
    await desk.blobs.deleting.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    desk.blobs.delay.set()
    await desk.bench.check_books()
    assert desk.kept == {}


async def test_the_files_of_a_client_who_leaves_in_the_middle_of_a_reply_stay(desk: Desk) -> None:
    desk.bench.llm.script(ScriptedReply(gate=(gate := asyncio.Event())))
    events = desk.chat_with_image.stream(ADA, ImageTurn("Look", [upload("one.png", PNG)]))
    await anext(events)
    await events.aclose()
    gate.set()
    [entry] = await desk.bench.entries()
    assert entry.status == "completed"
    assert list(desk.kept.values()) == [len(PNG)]


async def test_a_repeat_is_told_the_same_and_stores_nothing(desk: Desk) -> None:
    turn = ImageTurn("Look", [upload("one.png", PNG)], idempotency=Idempotency("key", "/chat/image", "same"))
    first = await desk.chat_with_image(ADA, turn)
    again = await desk.chat_with_image(ADA, turn)
    assert again == first
    assert isinstance(again, ImageReply)
    await desk.bench.check_books()
    assert len(desk.kept) == 1
    assert len(desk.bench.llm.requests) == 1


async def test_a_repeat_of_a_document_links_to_the_first_one_while_it_exists(desk: Desk) -> None:
    turn = DocumentTurn("Well?", upload("a.txt", TEXT.encode()), idempotency=Idempotency("key", "/chat/file", "same"))
    first = await desk.chat_with_document(ADA, turn)
    assert await desk.chat_with_document(ADA, turn) == first
    await desk.delete_first()
    again = await desk.chat_with_document(ADA, turn)
    assert isinstance(again, DocumentReply)
    assert again.file_url is None


async def test_a_new_user_owns_the_files_of_the_first_turn(desk: Desk) -> None:
    reply: Reply = await desk.chat_with_image(Caller(), ImageTurn("Look", [upload("one.png", PNG)]))
    assert reply.user_id.startswith("user_")
    assert [key.split("/")[2] for key in desk.kept] == [reply.user_id]


async def test_a_turn_without_stated_usage_is_estimated_with_its_images(desk: Desk) -> None:
    desk.bench.llm.script(ScriptedReply(text="fine", usage_stated=False))
    await desk.show("Well?", upload("one.png", PNG))
    [entry] = await desk.bench.entries()
    assert entry.estimated
    assert entry.usage.input_tokens >= 300  # 20 x 15 patches


async def test_an_image_turn_holds_what_the_image_may_cost() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.01")))  # room for 4,000 tokens of input
    with pytest.raises(BudgetExceededError):
        await Desk(bench).show("Well?", upload("one.png", png(2000, 2000)))
    await Desk(bench).show("Well?", upload("one.png", png(100, 100)))
    await bench.check_books()


async def test_a_turn_with_a_dense_pdf_holds_what_its_text_may_cost() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.30")))  # room for 120,000 tokens of input
    with pytest.raises(BudgetExceededError):
        await Desk(bench).hand("Well?", upload("a.pdf", PDF + b"word " * 40_000))
    await Desk(bench).hand("Well?", upload("a.pdf", PDF + b"word " * 4_000))
    await bench.check_books()


async def test_the_turn_after_a_dense_pdf_that_was_never_billed_holds_its_text_again() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.60")))
    bench.llm.script(ScriptedReply(text="fine", usage_stated=False))
    dense = await Desk(bench).hand("Well?", upload("a.pdf", PDF + b"word " * 36_000))
    with pytest.raises(BudgetExceededError):
        await bench.say("And now?", dense.conversation_id)
    await bench.say("And now?")
    await bench.check_books()


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_files_of_a_turn_whose_process_died_before_it_asked_are_gone(keeps: bool) -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=keeps))
    hanging = asyncio.Event()

    class Hanging(MemoryTranscript):
        async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
            hanging.set()
            await asyncio.Event().wait()
            return await super().create(messages, read=read)

    dying = bench.over(transcript=Hanging())
    turn = ImageTurn("What is it?", [Upload.of_bytes("a.png", PNG)], user_id="ada")
    reading = asyncio.create_task(dying.chat_with_image(Caller(), turn))
    await hanging.wait()
    assert len(bench.store.files) == 1

    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(seconds=30))
    assert await survivor.reconcile() == 1
    assert not bench.store.files
    reading.cancel()
    await survivor.check_books()


@pytest.mark.parametrize("name", ["one.png", "a.txt"])
@pytest.mark.parametrize("is_admitted", [False, True])
async def test_files_of_a_turn_whose_process_died_before_the_model_was_asked_do_not_stay(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_admitted: bool, name: str
) -> None:
    bench = desk.bench
    kept = await (desk.show("Look", upload(name, PNG)) if name == "one.png" else desk.hand("Read", upload(name, b"Hi")))
    before = dict(desk.kept)

    async def dying(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    owner = MemoryFileRepository if is_admitted else Admission
    monkeypatch.setattr(owner, "make_ready" if is_admitted else "admit", dying)
    turn = desk.show("Look", upload(name, PNG)) if name == "one.png" else desk.hand("Read", upload(name, b"Hi"))
    asking = asyncio.create_task(turn)
    await asyncio.sleep(0.05)
    assert (len(desk.kept), len(bench.store.holds)) == (2, int(is_admitted))
    monkeypatch.undo()
    survivor = Bench(store=bench.store, blobs=bench.blobs, transcript=bench.transcript)
    survivor.clock.advance(timedelta(hours=2))
    assert await survivor.reconcile() == int(is_admitted)
    await survivor.files.sweep()
    assert desk.kept == before
    assert (await survivor.say("Well?", kept.conversation_id)).text
    asking.cancel()


async def test_files_that_cannot_be_shown_refuse_their_turn_and_leave_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> bool:
        raise StorageUnavailableError

    monkeypatch.setattr(MemoryFileRepository, "make_ready", away)
    with pytest.raises(StorageUnavailableError):
        await desk.show("Look", upload("one.png", PNG), upload("two.gif", GIF))
    assert (desk.kept, desk.bench.store.holds, desk.bench.store.conversations) == ({}, {}, {})
    assert desk.bench.llm.requests == []
    await desk.bench.check_books()
