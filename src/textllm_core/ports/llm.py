"""The model: takes a turn with what came before it, and writes the reply piece by piece."""

from collections.abc import AsyncGenerator
from typing import Protocol

from textllm_core.records.model import (
    ModelEnded,
    ModelEvent,
    ModelRequest,
)


class LLM(Protocol):
    """A model behind an API or in this process. Stateless: it keeps no history and places no hold."""

    @property
    def reads_images(self) -> bool:
        """Whether messages may have images."""
        ...

    @property
    def reads_files(self) -> bool:
        """Whether messages may have files without extracted text, which are then sent as they are."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """`ModelStarted`, any number of `TextDelta`, then exactly one `ModelEnded`, whose text is all deltas joined.

        Before and between deltas `ModelThinking` says that the model is at work, `ModelCounted` what it has used, and
        `ToolStep` that a tool of the provider's own has begun, or is done; of those alone whose items have ids.

        Reading it to its end frees the connection for the next call; closing it earlier ends the call at once.
        Only what surely was not executed is tried again.
        Raises:
            ConversationLostError: `transcript_id` does not exist any more, or cannot be gone on with; nothing ran.
            ConversationBusyError: the provider is still at work on `transcript_id`; nothing ran.
            ContextTooLongError, ContentRefusedError, InvalidRequestError, UnsupportedMediaTypeError: refused before it
                ran; the last where it cannot read an image or a file.
            StoredFileNotFoundError, StorageUnavailableError: a file could not be read; nothing ran.
            ModelError: any other failure, at any event; its `may_have_run` says whether it can have cost anything.
        """
        ...

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:
        """What became of a response whose stream broke off; None where that is not, or not yet, known.

        Raises:
            ModelError: the provider could not be asked.
        """
        ...
