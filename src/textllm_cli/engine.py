"""What commands ask of the engine, wherever it runs: the use cases of the core keep it, and so does `remote`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:  # help pages need none of them
    from textllm_core.chat.chat_with_document import DocumentTurn
    from textllm_core.chat.chat_with_image import ImageTurn
    from textllm_core.file_names import Folder
    from textllm_core.import_conversation import ExportedConversation, ImportedConversation
    from textllm_core.list_messages import ListedMessage, MessagePage, Order
    from textllm_core.records.api_keys import ApiKey, ApiKeyPage, IssuedApiKey
    from textllm_core.records.conversations import (
        Conversation,
        ConversationChanges,
        ConversationFilter,
        ConversationPage,
        Deletion,
    )
    from textllm_core.records.files import FilePage, StoredFile
    from textllm_core.records.messages import Reply, ReplyEvent, TextTurn
    from textllm_core.records.sessions import Session
    from textllm_core.records.usage_reports import UsageOfConversation, UsageReport
    from textllm_core.tenancy import Caller, Role
    from textllm_core.uploads import Upload

Progress = Callable[[int, int], None]  # of a fetch: how many bytes there are, of how many
T_contra = TypeVar("T_contra", contravariant=True)


class Answers(Protocol[T_contra]):
    """Answers turns of one kind."""

    def stream(self, caller: Caller, turn: T_contra, /) -> AsyncGenerator[ReplyEvent, None]:
        """As `SendMessage.stream`."""
        ...


class Messages(Protocol):
    """What was said in a conversation; as `ListMessages`."""

    async def __call__(
        self,
        caller: Caller,
        conversation_id: str,
        *,
        limit: int = 100,
        order: Order = "asc",
        after: str | None = None,
    ) -> MessagePage: ...

    def every(self, caller: Caller, conversation_id: str, /) -> AsyncGenerator[ListedMessage, None]: ...


class Conversations(Protocol):
    """What is done with conversations beside talking; as the core's `Conversations`."""

    @property
    def messages(self) -> Messages: ...

    async def list(
        self, caller: Caller, wanted: ConversationFilter = ..., *, limit: int = 50, offset: int = 0
    ) -> ConversationPage: ...
    async def import_one(
        self, caller: Caller, exported: ExportedConversation, *, user_id: str | None = None
    ) -> ImportedConversation: ...
    async def latest(self, caller: Caller, user_id: str) -> Conversation: ...
    async def get(self, caller: Caller, conversation_id: str) -> Conversation: ...
    async def update(self, caller: Caller, conversation_id: str, changes: ConversationChanges) -> Conversation: ...
    async def delete(self, caller: Caller, conversation_id: str, *, soft: bool = True) -> Deletion: ...
    async def restore(self, caller: Caller, conversation_id: str) -> Conversation: ...


class Talk(Protocol):
    """What talks, and what it talks about; as the core's `TextLLM`."""

    @property
    def send_message(self) -> Answers[TextTurn]: ...
    @property
    def chat_with_image(self) -> Answers[ImageTurn]: ...
    @property
    def chat_with_document(self) -> Answers[DocumentTurn]: ...
    @property
    def conversations(self) -> Conversations: ...
    async def cancel_reply(self, caller: Caller, response_id: str) -> Reply: ...
    async def summarize_conversation(self, caller: Caller, conversation_id: str) -> Conversation: ...


class Reports(Protocol):
    """What was used; as `ReportUsage`."""

    async def __call__(self, caller: Caller, user_id: str | None, *, days: int) -> UsageReport: ...
    async def by_conversation(self, caller: Caller, user_id: str, *, days: int) -> Sequence[UsageOfConversation]: ...


class Administration(Protocol):
    """Sessions, usage and keys; as the core's `Administration`, but for what works on the database itself."""

    @property
    def report_usage(self) -> Reports: ...
    async def get_session(self, caller: Caller, session_id: str) -> Session: ...
    async def todays_session(self, caller: Caller, user_id: str) -> Session: ...
    async def list_sessions(self, caller: Caller, user_id: str, *, days: int) -> Sequence[Session]: ...
    async def end_session(self, caller: Caller, session_id: str) -> Session: ...
    async def issue_api_key(
        self,
        caller: Caller,
        *,
        role: Role,
        user_id: str | None = None,
        name: str | None = None,
        models: Sequence[str] | None = None,
    ) -> IssuedApiKey: ...
    async def list_api_keys(self, caller: Caller, *, limit: int, after: str | None = None) -> ApiKeyPage: ...
    async def revoke_api_key(self, caller: Caller, key_id: str) -> ApiKey: ...


class Files(Protocol):
    """What a user keeps; as the core's `Files`."""

    async def upload(self, caller: Caller, upload: Upload, *, user_id: str | None = None) -> StoredFile: ...
    async def list(
        self, caller: Caller, *, user_id: str | None = None, folder: Folder, limit: int, after: str | None = None
    ) -> FilePage: ...
    async def get(self, caller: Caller, key: str) -> StoredFile: ...
    def read(self, file: StoredFile) -> AsyncGenerator[bytes, None]: ...
    async def link(self, caller: Caller, file: StoredFile) -> str: ...
    async def delete(self, caller: Caller, key: str) -> None: ...
