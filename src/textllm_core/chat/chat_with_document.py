"""The use case of documents: checked, stored, then a file or its text as a part of a user's message."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, overload

from msgspec import Struct

from textllm_core.cancellation import carried_through
from textllm_core.chat.attachments import MOST_BYTES
from textllm_core.chat.calls import call_of
from textllm_core.chat.chat_with_image import MAX_IMAGES, SeenImage, checked_images, kept_images
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.reply_log import last_reply
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.chat.turns_with_files import KeptFiles, stream_with_files, told_apart
from textllm_core.errors import Allowance, FileTooLargeError, InvalidRequestError, UnreadableDocumentError
from textllm_core.file_tokens import FileTokens, pdf_tokens
from textllm_core.images import Image
from textllm_core.policy import ChatPolicy
from textllm_core.ports.document_reader import Document, DocumentReader, DocumentText
from textllm_core.ports.llm import LLM
from textllm_core.records.messages import Idempotency, Reply, ReplyEvent, TurnOptions
from textllm_core.records.parts import InputFile, words_of
from textllm_core.tenancy import Caller, Owner
from textllm_core.uploads import Upload
from textllm_core.usage import estimated_tokens

MAX_DOCUMENTS: Final = 10


class DocumentTurn(Struct, frozen=True):
    """What a user says about a document, or up to 10, and perhaps images; all else is as in a `TextTurn`.

    Args:
        others: documents beside the first; `images`: at most 10.
    """

    text: str
    document: Upload
    conversation_id: str | None = None
    user_id: str | None = None
    options: TurnOptions = TurnOptions()
    idempotency: Idempotency | None = None
    is_resumable: bool = False
    allowance: Allowance | None = None
    others: Sequence[Upload] = ()
    images: Sequence[Upload] = ()


@dataclass(frozen=True, slots=True)
class ChatWithDocument:
    """Answer a turn with documents, each of at most `policy.max_file_bytes`.

    A PDF goes to the model as it is, where the model reads files; of all others the text is sent. Of a PDF without
    text, such as a scan, the first pages are sent as images, where the model sees.
    """

    exchange: Exchange
    files: TurnFiles
    reader: DocumentReader
    policy: ChatPolicy

    @overload
    async def __call__(self, turn: DocumentTurn, /) -> Reply: ...
    @overload
    async def __call__(self, caller: Caller, turn: DocumentTurn) -> Reply: ...
    async def __call__(self, caller: Caller | DocumentTurn, turn: DocumentTurn | None = None) -> Reply:
        """The whole reply, settled; a `DocumentReply`.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        return await last_reply(self.stream(*call_of(DocumentTurn, caller, turn)))

    @overload
    def stream(self, turn: DocumentTurn, /) -> AsyncGenerator[ReplyEvent, None]: ...
    @overload
    def stream(self, caller: Caller, turn: DocumentTurn) -> AsyncGenerator[ReplyEvent, None]: ...
    def stream(
        self, caller: Caller | DocumentTurn, turn: DocumentTurn | None = None
    ) -> AsyncGenerator[ReplyEvent, None]:
        """As `SendMessage.stream`; `ReplyCompleted` has a `DocumentReply`. Everything is raised at the first event.

        The document is kept for as long as the user keeps it; that of a turn that never began is not.
        That of a repeat is not looked at.
        Raises:
            TypeError: it was given something else, at the call.
            InvalidRequestError, InputTooLongError: the message is wrong.
            FileTooLargeError, TextLLMError: the document is, as `DocumentReader` says.
            TextLLMError: what `Exchange.run` raises.
        """
        who, what = call_of(DocumentTurn, caller, turn)
        keep = partial(self._keep, who, what)
        return stream_with_files(self.exchange, self.files, who, what, kind="document", keep=keep)

    async def _keep(self, caller: Caller, turn: DocumentTurn, user_id: str) -> KeptFiles:
        uploads, owner = (turn.document, *turn.others), Owner(caller.tenant_id, user_id)
        if len(uploads) > MAX_DOCUMENTS:
            raise InvalidRequestError.of("file", f"send 1 to {MAX_DOCUMENTS} documents")
        llm = self.exchange.route(turn.options.model).llm
        read, drawn = [], list[SeenImage]()
        for place, upload in enumerate(uploads, 1):
            with told_apart("Document", place, len(uploads)):
                if upload.size > self.policy.max_file_bytes:
                    raise FileTooLargeError(limit=self.policy.max_file_bytes)
                try:
                    read.append(await self._read(upload, owner, llm))
                except UnreadableDocumentError as error:
                    most = MAX_IMAGES - len(drawn) if llm.reads_images else 0
                    if error.reason != "empty" or most == 0:
                        raise
                    document, pages = await self._drawn(upload, owner, error, most=most)
                    read.append((document, document.text))
                    drawn += pages
        images = await checked_images(turn.images, llm, self.policy, self.reader, owner=owner) if turn.images else ()
        images = [*images, *drawn]
        stored = await self.files.keep(caller, uploads, user_id=user_id, folder="documents")
        model = turn.options.model or self.policy.model
        parts = [
            InputFile(
                key=file.key,
                media_type=document.media_type,
                size=file.size,
                name=file.name,
                extracted=extracted,
                pages=document.pages,
                warnings=tuple(f"{file.name}: {warning}" if turn.others else warning for warning in document.warnings),
            )
            for file, (document, extracted) in zip(stored, read, strict=True)
        ]
        sizes = [_tokens(document, part, model=model) for (document, _), part in zip(read, parts, strict=True)]
        documents = KeptFiles(stored, parts, sum(sizes, FileTokens(0, 0)))
        if not images:
            return documents
        try:
            kept = await self.files.keep(
                caller, [image.upload for image in images], user_id=user_id, folder="chat_images"
            )
        except BaseException:
            await carried_through(self.files.discard(caller, user_id, [part.key for part in parts]))
            raise
        seen = kept_images(kept, images, model=model)
        return KeptFiles([*stored, *kept], [*parts, *seen.parts], documents.tokens + seen.tokens)

    async def _drawn(
        self, upload: Upload, owner: Owner, refusal: UnreadableDocumentError, *, most: int
    ) -> tuple[DocumentText, list[SeenImage]]:
        """The first pages of a PDF as images, and what tells of them; of other files the refusal is raised."""
        document = await self.reader.inspect(upload, owner=owner, max_pages=self.policy.max_document_pages)
        if document.file_type != "pdf" or not document.pages:
            raise refusal
        pictures = await self.reader.pages(upload, owner=owner, most=most)
        pages = [
            SeenImage(
                Upload.of_bytes(f"{upload.name} page {number}.jpg", picture.content),
                Image(picture.media_type, picture.width, picture.height),
            )
            for number, picture in enumerate(pictures, 1)
        ]
        sent = f"{len(pages)} of its {document.pages} pages were sent as images"
        text = f"[It has no text; {sent}.]"
        warnings = (f"no text was found: {sent}",)
        return DocumentText(file_type="pdf", pages=document.pages, text=text, warnings=warnings), pages

    async def _read(self, upload: Upload, owner: Owner, llm: LLM) -> tuple[Document, str | None]:
        """What the document is, and the text to send in its place."""
        if llm.reads_files and upload.size <= MOST_BYTES:
            document = await self.reader.inspect(upload, owner=owner, max_pages=self.policy.max_document_pages)
            if document.file_type == "pdf":
                return document, None
        text = await self.reader.read(
            upload,
            owner=owner,
            max_chars=self.policy.max_document_chars,
            max_pages=self.policy.max_document_pages,
        )
        return text, text.text


def _tokens(document: Document, part: InputFile, *, model: str) -> FileTokens:
    """Those of the file, or of its text, as it is sent."""
    words = words_of(part)
    if words is not None:
        return FileTokens(len(words.encode()), estimated_tokens(words))
    return pdf_tokens(
        pages=document.pages or 1,
        size=part.size,
        model=model,
        text_bytes=document.text_bytes,
        is_text_counted=document.is_text_counted,
    )
