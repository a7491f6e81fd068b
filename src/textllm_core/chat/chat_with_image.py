"""The use case of images: checked, stored, then parts of a user's message."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, overload

from msgspec import Struct

from textllm_core.chat.calls import call_of
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.reply_log import last_reply
from textllm_core.chat.routes import Reads
from textllm_core.chat.seen_files import SeenImage, refuse_too_many_bytes, seen_image
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.chat.turns_with_files import KeptFiles, stream_with_files, told_apart
from textllm_core.errors import (
    Allowance,
    FileTooLargeError,
    InvalidRequestError,
)
from textllm_core.file_tokens import FileTokens
from textllm_core.policy import ChatPolicy
from textllm_core.ports.document_reader import DocumentReader
from textllm_core.records.files import StoredFile
from textllm_core.records.messages import Idempotency, Reply, ReplyEvent, TurnOptions
from textllm_core.tenancy import Caller, Owner
from textllm_core.uploads import Upload

MAX_IMAGES: Final = 10


class ImageTurn(Struct, frozen=True):
    """What a user says about 1 to 10 images; all else is as in a `TextTurn`."""

    text: str
    images: Sequence[Upload]
    conversation_id: str | None = None
    user_id: str | None = None
    options: TurnOptions = TurnOptions()
    idempotency: Idempotency | None = None
    is_resumable: bool = False
    allowance: Allowance | None = None


@dataclass(frozen=True, slots=True)
class ChatWithImage:
    """Answer a turn with images, each at most `policy.max_file_bytes` long.

    PNG, JPEG, WebP and GIF are sent as they are; HEIC, AVIF, BMP, TIFF and what is animated in another form.
    """

    exchange: Exchange
    files: TurnFiles
    reader: DocumentReader
    policy: ChatPolicy

    @overload
    async def __call__(self, turn: ImageTurn, /) -> Reply: ...
    @overload
    async def __call__(self, caller: Caller, turn: ImageTurn) -> Reply: ...
    async def __call__(self, caller: Caller | ImageTurn, turn: ImageTurn | None = None) -> Reply:
        """The whole reply, settled; an `ImageReply`.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        return await last_reply(self.stream(*call_of(ImageTurn, caller, turn)))

    @overload
    def stream(self, turn: ImageTurn, /) -> AsyncGenerator[ReplyEvent, None]: ...
    @overload
    def stream(self, caller: Caller, turn: ImageTurn) -> AsyncGenerator[ReplyEvent, None]: ...
    def stream(self, caller: Caller | ImageTurn, turn: ImageTurn | None = None) -> AsyncGenerator[ReplyEvent, None]:
        """As `SendMessage.stream`; `ReplyCompleted` has an `ImageReply`. Everything is raised at the first event.

        The images are kept for as long as the user keeps them; those of a turn that never began are not.
        Those of a repeat are not looked at.
        Raises:
            TypeError: it was given something else, at the call.
            InvalidRequestError, InputTooLongError: the message is wrong, or the number of images, or this model reads
                none.
            UnsupportedMediaTypeError, FileTooLargeError: an image is not one, or too large.
            TextLLMError: what `Exchange.run` raises.
        """
        who, what = call_of(ImageTurn, caller, turn)
        keep = partial(self._keep, who, what)
        return stream_with_files(self.exchange, self.files, who, what, kind="image", keep=keep)

    async def _keep(self, caller: Caller, turn: ImageTurn, user_id: str) -> KeptFiles:
        owner = Owner(caller.tenant_id, user_id)
        reads = self.exchange.reads(turn.options.model)
        images = await checked_images(turn.images, reads, self.policy, self.reader, owner=owner)
        model = self.exchange.reader(turn.options.model)
        stored = await self.files.keep(
            caller, [image.upload for image in images], user_id=user_id, folder="chat_images"
        )
        return kept_images(stored, images, model=model)


async def checked_images(
    uploads: Sequence[Upload], reads: Reads, policy: ChatPolicy, reader: DocumentReader, *, owner: Owner
) -> Sequence[SeenImage]:
    """What the images of a turn are, in forms that models take.

    Raises:
        InvalidRequestError: it has none or too many, or the model reads none.
        UnsupportedMediaTypeError, FileTooLargeError: an image is not one, or too large.
    """
    if not 1 <= len(uploads) <= MAX_IMAGES:
        raise InvalidRequestError.of("images", f"send 1 to {MAX_IMAGES} images")
    if not reads.images:
        raise InvalidRequestError.of(
            "images",
            "the model that is configured reads text alone; set OPENAI_API_KEY, or another model that sees images",
        )
    for place, upload in enumerate(uploads, 1):
        if upload.size > policy.max_file_bytes:
            with told_apart("Image", place, len(uploads)):
                raise FileTooLargeError(limit=policy.max_file_bytes)
    refuse_too_many_bytes(uploads)
    seen = []
    for place, upload in enumerate(uploads, 1):
        with told_apart("Image", place, len(uploads)):
            found = await seen_image(upload, reader, owner)
        which = f"image {place} of {len(uploads)}: " if len(uploads) > 1 else ""
        seen.append(found._replace(warnings=tuple(which + warning for warning in found.warnings)))
    refuse_too_many_bytes([image.upload for image in seen])
    return seen


def kept_images(stored: Sequence[StoredFile], images: Sequence[SeenImage], *, model: str) -> KeptFiles:
    """The parts of a message that images become, once they are stored."""
    parts = [image.part(key=file.key, name=file.name) for file, image in zip(stored, images, strict=True)]
    tokens = (image.tokens(model) for image in images)
    return KeptFiles(stored, parts, sum(tokens, FileTokens(0, 0)))
