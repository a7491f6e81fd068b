"""Images and documents among the parts of messages as clients of other APIs send them: looked at, and made content."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Final, Literal

from msgspec import Struct

from textllm_core.cancellation import carried_through
from textllm_core.chat.chat_with_image import MAX_IMAGES
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.routes import Reads
from textllm_core.chat.seen_files import SeenDocument, SeenImage, refuse_too_many_bytes, seen_document, seen_image
from textllm_core.chat.turn_files import TurnFiles, TurnFolder
from textllm_core.errors import FileTooLargeError, InvalidRequestError, NotFoundError, TextLLMError
from textllm_core.file_names import SNIFFED_BYTES, clean_name, media_type_of
from textllm_core.file_tokens import FileTokens, linked_tokens
from textllm_core.files import ReadFile
from textllm_core.ports.document_reader import DocumentReader
from textllm_core.records.files import StoredFile
from textllm_core.records.parts import ContentPart, Detail, InputFile, InputImage, InputLink
from textllm_core.tenancy import Caller, Owner, is_unnamed
from textllm_core.uploads import Attached, HeldFiles, Upload

MAX_FILES: Final = 100  # of one request, which may have the images of a whole conversation


class GivenFile(Struct, frozen=True, kw_only=True):
    """An image or a document that somebody sends with a message, or names: exactly one of the three is there.

    Args:
        kind: what it is said to be; a document that turns out to be an image is shown as one.
        upload: the file itself; `key`: of one that is stored; `url`: where the provider may read it.
        place: where it stood in the request, for what is refused.
    """

    kind: Literal["image", "file"]
    upload: Upload | None = None
    key: str | None = None
    url: str | None = None
    detail: Detail = "auto"
    place: str = "input"


GivenPart = ContentPart | GivenFile
"""One part of a message as it is sent: content already, or a file that is to become some."""


def has_files(content: Sequence[GivenPart]) -> bool:
    """Whether `TakeParts` has something to do for it."""
    return any(isinstance(part, GivenFile) for part in content)


class TakenParts(Struct, frozen=True, kw_only=True):
    """Messages whose files are looked at.

    Args:
        contents: of each message, in their order.
        kind: what a turn with them is in the ledger.
        tokens: of the files alone, in all messages.
        attached: for the turn: what is stored nowhere; None: nothing.
        show_files, discard_files: for the turn: see to what was stored; None: nothing was.
    """

    contents: tuple[tuple[ContentPart, ...], ...]
    kind: Literal["text", "image", "document"]
    tokens: FileTokens
    attached: Attached | None = None
    show_files: Callable[[], Coroutine[None, None, None]] | None = None
    discard_files: Callable[[], Coroutine[None, None, None]] | None = None


@dataclass(frozen=True, slots=True)
class TakeParts:
    """Make content of what messages bring: images as `ChatWithImage` has it, documents as `ChatWithDocument` has it."""

    exchange: Exchange
    files: TurnFiles
    reader: DocumentReader
    read: ReadFile

    async def __call__(
        self,
        caller: Caller,
        messages: Sequence[Sequence[GivenPart]],
        *,
        user_id: str,
        model: str | None,
        held: HeldFiles | None,
    ) -> TakenParts:
        """
        Args:
            user_id: for whom, and whose the files are that are stored.
            held: where files wait that are not to be stored, until the turn has ended; None: they are stored, as those
                of a turn with files are.
        Raises:
            InvalidRequestError: too many files, one that is not there, or one of a kind that this model does not read.
            FileTooLargeError, UnsupportedMediaTypeError, UnreadableDocumentError, TextLLMError: one cannot be taken.
        """
        taking = _Taking(self, caller, user_id, model or self.exchange.policy.model, held)
        given = [part for message in messages for part in message if isinstance(part, GivenFile)]
        if len(given) > MAX_FILES:
            raise InvalidRequestError.of(given[MAX_FILES].place, f"is one file too many: send up to {MAX_FILES}")
        refuse_too_many_bytes([part.upload for part in given if part.upload is not None])
        try:
            contents = tuple([tuple(await taking.content(message)) for message in messages])
        except BaseException:
            await carried_through(taking.discard())
            raise
        return TakenParts(
            contents=contents,
            kind=_kind_of(contents),
            tokens=taking.tokens,
            attached=None if held is None or not taking.uploads else Attached(taking.uploads, held),
            show_files=partial(self.files.show, caller, taking.stored) if taking.stored else None,
            discard_files=taking.discard if taking.stored else None,
        )


@dataclass(slots=True)
class _Taking:
    """The files of one request, one after the other."""

    take: TakeParts
    caller: Caller
    user_id: str
    model: str
    held: HeldFiles | None
    tokens: FileTokens = field(default_factory=lambda: FileTokens(0, 0))
    stored: list[StoredFile] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)

    @property
    def reads(self) -> Reads:
        return self.take.exchange.reads(self.model)

    @property
    def reader(self) -> str:
        """The model by which tokens of files are bounded."""
        return self.take.exchange.reader(self.model)

    @property
    def owner(self) -> Owner:
        return Owner(self.caller.tenant_id, self.user_id)

    async def discard(self) -> None:
        await self.take.files.discard(self.caller.tenant_id, self.user_id, [file.key for file in self.stored])

    async def content(self, message: Sequence[GivenPart]) -> list[ContentPart]:
        parts: list[ContentPart] = []
        for part in message:
            if isinstance(part, GivenFile):
                with _told_of(part.place):
                    parts.extend(await self._shown(part))
            else:
                parts.append(part)
        return parts

    async def _shown(self, given: GivenFile) -> Sequence[ContentPart]:
        if given.url is not None:
            return [self._linked(given, given.url)]
        file = None if given.key is None else await self._stored_file(given, given.key)
        upload = given.upload if file is None else self._upload_of(file)
        if upload is None:
            raise InvalidRequestError.of(given.place, "has no file")
        most = self.take.exchange.policy.max_file_bytes
        if upload.size > most:
            raise FileTooLargeError(limit=most)
        if given.kind == "image" or await _is_image(upload):
            return [await self._image(given, upload, file)]
        return await self._document(upload, file)

    def _linked(self, given: GivenFile, url: str) -> InputLink:
        reads = self.reads.images if given.kind == "image" else self.reads.files
        if not reads:
            raise _unread(given.place, "images" if given.kind == "image" else "files at addresses")
        self.tokens += linked_tokens(given.kind, model=self.reader)
        return InputLink(kind=given.kind, url=url, detail=given.detail)

    async def _stored_file(self, given: GivenFile, key: str) -> StoredFile:
        says = "names a file that does not exist; upload it first"
        try:
            file = await self.take.files.get(self.caller, key)
        except NotFoundError as error:
            raise InvalidRequestError.of(given.place, says) from error
        if file.user_id != self.user_id and not (is_unnamed(file.user_id) or is_unnamed(self.user_id)):
            raise InvalidRequestError.of(given.place, says)
        return file

    def _upload_of(self, file: StoredFile) -> Upload:
        return Upload(file.name, file.size, partial(self.take.read, file))

    async def _image(self, given: GivenFile, upload: Upload, file: StoredFile | None) -> InputImage:
        if not self.reads.images:
            raise _unread(given.place, "images")
        seen = await seen_image(upload, self.take.reader, self.owner)
        self.tokens += seen.tokens(self.reader)
        is_made = seen.upload is not upload
        if file is not None and not is_made:
            return seen.part(key=file.key, name=file.name, detail=given.detail, is_borrowed=True)
        return await self._kept_image(seen, given.detail, is_made=is_made)

    async def _kept_image(self, seen: SeenImage, detail: Detail = "auto", *, is_made: bool) -> InputImage:
        key, name = await self._kept(seen.upload, "chat_images", is_made=is_made)
        return seen.part(key=key, name=name, detail=detail)

    async def _document(self, upload: Upload, file: StoredFile | None) -> Sequence[ContentPart]:
        policy, most_drawn = self.take.exchange.policy, MAX_IMAGES if self.reads.images else 0
        seen = await seen_document(
            upload, self.reads, policy, self.take.reader, owner=self.owner, most_drawn=most_drawn
        )
        part = await self._kept_document(seen, file)
        self.tokens += seen.tokens(part, model=self.reader)
        parts: list[ContentPart] = [part]
        for drawn in seen.drawn:
            self.tokens += drawn.tokens(self.reader)
            parts.append(await self._kept_image(drawn, is_made=True))
        return parts

    async def _kept_document(self, seen: SeenDocument, file: StoredFile | None) -> InputFile:
        if file is not None:
            return seen.part(key=file.key, name=file.name, is_borrowed=True)
        key, name = await self._kept(seen.upload, "documents", is_made=False)
        return seen.part(key=key, name=name)

    async def _kept(self, upload: Upload, folder: TurnFolder, *, is_made: bool) -> tuple[str, str]:
        """Under which key and name its bytes are found from now on.

        Args:
            is_made: it was made of another one, and is in memory.
        """
        if self.held is None:
            [stored] = await self.take.files.keep(self.caller, [upload], user_id=self.user_id, folder=folder)
            self.stored.append(stored)
            return stored.key, stored.name
        key = f"held/{token_hex(16)}"  # like no key of a store, which begins with LLM
        self.uploads[key] = await self.held.keep(upload) if is_made else upload
        return key, clean_name(upload.name)


@contextmanager
def _told_of(place: str) -> Iterator[None]:
    """A refusal of a file says where it stood; those of what the request says do so already."""
    try:
        yield
    except InvalidRequestError:
        raise
    except TextLLMError as refusal:
        refusal.tell_of(place)
        raise


async def _is_image(upload: Upload) -> bool:
    return media_type_of(await upload.beginning(SNIFFED_BYTES)).startswith("image/")


def _unread(place: str, what: str) -> InvalidRequestError:
    return InvalidRequestError.of(place, f"this model reads no {what}; choose another one, or send the text")


def _kind_of(contents: Sequence[Sequence[ContentPart]]) -> Literal["text", "image", "document"]:
    parts = [part for content in contents for part in content]
    if any(isinstance(part, InputFile) or (isinstance(part, InputLink) and part.kind == "file") for part in parts):
        return "document"
    return "image" if any(isinstance(part, InputImage | InputLink) for part in parts) else "text"
