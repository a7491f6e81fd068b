"""The files that come with a turn: kept before it is admitted, shown once it is, discarded where it is not."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import UNSET
from msgspec.structs import asdict, replace

from textllm_core.cancellation import carried_through
from textllm_core.errors import ConversationNotFoundError, StorageUnavailableError, TextLLMError
from textllm_core.file_links import LinkFile
from textllm_core.files import GetFile, StoreFile
from textllm_core.ids import new_user_id
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.document_reader import MEDIA_TYPES
from textllm_core.records.file_replies import DocumentReply, ImageReply
from textllm_core.records.files import StoredFile
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, Turn
from textllm_core.records.parts import InputFile, InputImage
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload

TurnFolder = Literal["chat_images", "documents"]

_NO_LINKS: Final = (
    "The storage does not answer, so there are no links; the messages of the conversation name the files."
)
_FILE_TYPES: Final = {media_type: f".{kind}" for kind, media_type in MEDIA_TYPES.items()}


@dataclass(frozen=True, slots=True)
class TurnFiles:
    """Keeps, links and discards the files of turns."""

    store: StoreFile
    get: GetFile
    link: LinkFile
    conversations: ConversationRepository

    async def owner(self, caller: Caller, *, user_id: str | None, conversation_id: str | None) -> str:
        """Whose the files of a turn are: a new user's where nothing says.

        Raises:
            InvalidRequestError, NotFoundError: the caller may not act for the user.
            ConversationNotFoundError: there is none of this id for the caller.
        """
        user = caller.acts_for(user_id)
        if conversation_id is None:
            return user or new_user_id()
        conversation = await self.conversations.state(caller.tenant_id, conversation_id, user_id=user)
        if conversation is None:
            raise ConversationNotFoundError
        return conversation.user_id

    async def keep(
        self, caller: Caller, uploads: Sequence[Upload], *, user_id: str, folder: TurnFolder
    ) -> tuple[StoredFile, ...]:
        """Store all of them, or none; nobody sees them yet.

        Raises:
            FileTooLargeError, StorageUnavailableError: nothing was stored.
        """
        stored: list[StoredFile] = []
        try:
            for upload in uploads:
                stored.append(await self.store.keep(caller, upload, user_id=user_id, folder=folder))  # noqa: PERF401
        except BaseException:
            await carried_through(self.discard(caller.tenant_id, user_id, [file.key for file in stored]))
            raise
        return tuple(stored)

    async def show(self, caller: Caller, files: Sequence[StoredFile]) -> None:
        """Let them be seen: a turn is admitted to which they belong.

        Raises:
            StorageUnavailableError: not all can be.
        """
        for file in files:
            await self.store.show(caller.tenant_id, file)

    async def discard(self, tenant_id: str, user_id: str, keys: Sequence[str]) -> None:
        """Delete them; what the store keeps is hidden and swept, what cannot be hidden stays among the user's."""
        for key in keys:
            with suppress(TextLLMError):
                await self.store.discard(tenant_id, user_id, key)

    async def linked(
        self, caller: Caller, events: AsyncGenerator[ReplyEvent, None]
    ) -> AsyncGenerator[ReplyEvent, None]:
        """The events as the user is told them: a completed reply with links to the files of its turn."""
        async with aclosing(events):
            async for event in events:
                yield await self.with_links(caller, event)

    async def with_links(self, caller: Caller, event: ReplyEvent) -> ReplyEvent:
        """One event, as `linked` has it. A reply whose links cannot be made is told all the same, and says so."""
        if not isinstance(event, ReplyCompleted) or not event.files:
            return event
        files, links = event.files, dict[str, str]()
        told = [warning for file in files for warning in file.warnings]
        reply = replace(event.reply, warnings=(*event.reply.warnings, *told))
        try:
            links.update(await self.links_to(caller, [file.key for file in files]))
        except StorageUnavailableError:
            reply = replace(reply, warnings=(*reply.warnings, _NO_LINKS))
        documents = [file for file in files if isinstance(file, InputFile)]
        images = [file for file in files if isinstance(file, InputImage)]
        to_images = [links[image.key] for image in images if image.key in links]
        match documents:
            case [file, *others]:
                to_documents = [links[each.key] for each in documents if each.key in links]
                shown: Reply = DocumentReply(
                    **asdict(reply),
                    file_url=links.get(file.key),
                    file_type=_FILE_TYPES[file.media_type],
                    pages=UNSET if file.pages is None else file.pages,
                    file_urls=to_documents if others else UNSET,
                    image_urls=to_images if images else UNSET,
                    image_count=len(images) or UNSET,
                )
            case _:
                shown = ImageReply(**asdict(reply), image_urls=to_images, image_count=len(images))
        return replace(event, reply=shown)

    async def links_to(self, caller: Caller, keys: Sequence[str]) -> Mapping[str, str]:
        """Links to those of the files that were not deleted, by their keys."""
        return {key: await self.link(caller, file) for key, file in (await self.get.all(caller, keys)).items()}


async def discard_files(turn: Turn) -> None:
    """Let go of what was stored for a turn that its conversation knows nothing of."""
    if turn.discard_files is not None:
        await carried_through(turn.discard_files())
