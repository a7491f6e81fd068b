"""The use case of images: checked, stored, then parts of a user's message."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec import Struct

from textllm_core.chat.admission import counted
from textllm_core.chat.attachments import MOST_BYTES
from textllm_core.chat.exchange import Exchange, last_reply
from textllm_core.chat.messages import (
    Idempotency,
    InputImage,
    InputText,
    Reply,
    ReplyEvent,
    Turn,
    TurnOptions,
)
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import (
    Allowance,
    FileTooLargeError,
    ImageTooLargeError,
    InvalidRequestError,
    UnsupportedMediaTypeError,
)
from textllm_core.file_tokens import FileTokens, image_tokens
from textllm_core.images import Image, inspect_image
from textllm_core.policy import ChatPolicy
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload, in_bytes

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
    """Answer a turn with images: PNG, JPEG, WebP or GIF, each at most `policy.max_file_bytes` long."""

    exchange: Exchange
    files: TurnFiles
    policy: ChatPolicy

    async def __call__(self, caller: Caller, turn: ImageTurn) -> Reply:
        """The whole reply, settled; an `ImageReply`.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        return await last_reply(self.stream(caller, turn))

    async def stream(self, caller: Caller, turn: ImageTurn) -> AsyncGenerator[ReplyEvent, None]:
        """As `SendMessage.stream`; `ReplyCompleted` has an `ImageReply`. Everything is raised at the first event.

        The images are kept for as long as the user keeps them; those of a turn that never began are not.
        Those of a repeat are not looked at.
        Raises:
            InvalidRequestError, InputTooLongError: the message is wrong, or the number of images, or this model reads
                none.
            UnsupportedMediaTypeError, FileTooLargeError: an image is not one, or too large.
            TextLLMError: what `Exchange.run` raises.
        """
        self.policy.check_message(turn.text)
        admission = self.exchange.admission
        user_id = await self.files.owner(caller, user_id=turn.user_id, conversation_id=turn.conversation_id)
        allowance = turn.allowance or await admission.count(caller, user_id)
        with counted(allowance):
            key = turn.idempotency
            events = None if key is None else await admission.repeat(caller, key)
            if events is None:
                events = self.exchange.run(caller, await self._kept(caller, turn, user_id, allowance))
        async with aclosing(self.files.linked(caller, events)) as linked:
            async for event in linked:
                yield event

    async def _kept(self, caller: Caller, turn: ImageTurn, user_id: str, allowance: Allowance) -> Turn:
        """The turn for the exchange, its images checked and stored."""
        images = await self._checked(turn.images)
        model = turn.options.model or self.policy.model
        tokens = sum((image_tokens(i.width, i.height, model=model) for i in images), FileTokens(0, 0))
        stored = await self.files.keep(caller, turn.images, user_id=user_id, folder="chat_images")
        parts = (
            InputImage(key=file.key, media_type=image.media_type, size=file.size, name=file.name)
            for file, image in zip(stored, images, strict=True)
        )
        return Turn(
            kind="image",
            content=(InputText(turn.text), *parts),
            token_bound=len(turn.text.encode()) + tokens.most,
            file_tokens=tokens.about,
            conversation_id=turn.conversation_id,
            user_id=user_id,
            options=turn.options,
            idempotency=turn.idempotency,
            is_resumable=turn.is_resumable,
            allowance=allowance,
            take_back=partial(self.files.take_back, caller, [file.key for file in stored]),
        )

    async def _checked(self, uploads: Sequence[Upload]) -> list[Image]:
        if not 1 <= len(uploads) <= MAX_IMAGES:
            raise InvalidRequestError.of("images", f"send 1 to {MAX_IMAGES} images")
        if not self.exchange.llm.reads_images:
            raise InvalidRequestError.of(
                "images",
                "the model that is configured reads text alone; set OPENAI_API_KEY, or another model that sees images",
            )
        for place, upload in enumerate(uploads, 1):
            if upload.size > self.policy.max_file_bytes:
                with _told_apart(place, len(uploads)):
                    raise FileTooLargeError(limit=self.policy.max_file_bytes)
        if sum(upload.size for upload in uploads) > MOST_BYTES:
            raise ImageTooLargeError(
                f"The images together have more than {in_bytes(MOST_BYTES)}; send fewer or smaller ones.",
                limit=MOST_BYTES,
            )
        images = []
        for place, upload in enumerate(uploads, 1):
            with _told_apart(place, len(uploads)):
                images.append(await inspect_image(upload))
        return images


@contextmanager
def _told_apart(place: int, count: int) -> Iterator[None]:
    """A refusal of an image says which it is, where there are several."""
    try:
        yield
    except (UnsupportedMediaTypeError, FileTooLargeError) as refusal:
        if count > 1:
            refusal.tell_of(f"Image {place} of {count}")
        raise
