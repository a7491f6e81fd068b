"""The use case of documents: checked, stored, then a file or its text as a part of a user's message."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, overload

from msgspec import Struct

from textllm_core.cancellation import carried_through
from textllm_core.chat.calls import call_of
from textllm_core.chat.chat_with_image import MAX_IMAGES, checked_images, kept_images
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.reply_log import last_reply
from textllm_core.chat.seen_files import SeenDocument, SeenImage, seen_document
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.chat.turns_with_files import KeptFiles, stream_with_files, told_apart
from textllm_core.errors import Allowance, FileTooLargeError, InvalidRequestError
from textllm_core.file_tokens import FileTokens
from textllm_core.policy import ChatPolicy
from textllm_core.ports.document_reader import DocumentReader
from textllm_core.records.messages import Idempotency, Reply, ReplyEvent, TurnOptions
from textllm_core.tenancy import Caller, Owner
from textllm_core.uploads import Upload

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
        reads = self.exchange.reads(turn.options.model)
        read, drawn = list[SeenDocument](), list[SeenImage]()
        for place, upload in enumerate(uploads, 1):
            with told_apart("Document", place, len(uploads)):
                if upload.size > self.policy.max_file_bytes:
                    raise FileTooLargeError(limit=self.policy.max_file_bytes)
                most = MAX_IMAGES - len(drawn) if reads.images else 0
                read.append(await seen_document(upload, reads, self.policy, self.reader, owner=owner, most_drawn=most))
                drawn += read[-1].drawn
        images = await checked_images(turn.images, reads, self.policy, self.reader, owner=owner) if turn.images else ()
        images = [*images, *drawn]
        stored = await self.files.keep(caller, uploads, user_id=user_id, folder="documents")
        model = self.exchange.reader(turn.options.model)
        parts = [
            document.part(key=file.key, name=file.name, told_of=file.name if turn.others else None)
            for file, document in zip(stored, read, strict=True)
        ]
        sizes = [document.tokens(part, model=model) for document, part in zip(read, parts, strict=True)]
        documents = KeptFiles(stored, parts, sum(sizes, FileTokens(0, 0)))
        if not images:
            return documents
        try:
            kept = await self.files.keep(
                caller, [image.upload for image in images], user_id=user_id, folder="chat_images"
            )
        except BaseException:
            await carried_through(self.files.discard(caller.tenant_id, user_id, [part.key for part in parts]))
            raise
        seen = kept_images(kept, images, model=model)
        return KeptFiles([*stored, *kept], [*parts, *seen.parts], documents.tokens + seen.tokens)
