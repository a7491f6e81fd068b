"""What a message consists of."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from textllm_core.fields import FileKey, FileName, MediaType, SizeInBytes, Text
from textllm_core.records.hosted import Approval, HostedItem
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import ToolCall, ToolResult
from textllm_core.wire import Record

Detail: TypeAlias = Literal["auto", "low", "high", "original"]
"""How closely a model is to look at an image."""


class InputText(Record, frozen=True, tag="input_text"):
    """Text that the user sent."""

    text: Text


class InputImage(Record, frozen=True, kw_only=True, omit_defaults=True, tag="input_image"):
    """An image that the user sent; its bytes lie in the blob store, as `key`.

    Args:
        warnings: what of it the model does not see.
        detail: how closely the model is to look.
        is_borrowed: it was uploaded by itself, and outlives the message that names it.
    """

    key: FileKey
    media_type: MediaType
    size: SizeInBytes
    name: FileName
    warnings: Annotated[tuple[str, ...], Meta(description="What of it the model does not see.")] = ()
    detail: Annotated[Detail, Meta(description="How closely the model is to look.")] = "auto"
    is_borrowed: Annotated[
        bool, Meta(description="Whether it was uploaded by itself, and outlives the message that names it.")
    ] = False


class InputFile(Record, frozen=True, kw_only=True, omit_defaults=True, tag="input_file"):
    """A document that the user sent; its bytes lie in the blob store.

    Args:
        extracted: its text, which is sent in its place; None where the model is to read the file itself.
        pages: how many it has, where that is known.
        warnings: what may be wrong or missing in what the model is told of it.
        is_borrowed: it was uploaded by itself, and outlives the message that names it.
    """

    key: FileKey
    media_type: MediaType
    size: SizeInBytes
    name: FileName
    extracted: str | None = None
    pages: int | None = None
    warnings: tuple[str, ...] = ()
    is_borrowed: bool = False


class InputLink(Record, frozen=True, kw_only=True, omit_defaults=True, tag="input_link"):
    """An image or a document at an address that the provider reads itself; nobody here ever does."""

    kind: Annotated[Literal["image", "file"], Meta(description="What is there.")]
    url: Annotated[str, Meta(description="Where the provider reads it.")]
    detail: Annotated[Detail, Meta(description="How closely the model is to look at an image.")] = "auto"


class ShownText(Record, frozen=True, tag="output_text"):
    """Text that the model wrote, as everybody may see it.

    Args:
        annotations: of it, such as the pages that it cites, in the words of the Responses API.
    """

    text: Text
    annotations: Annotated[
        Sequence[Mapping[str, Any]] | UnsetType,
        Meta(description="What the text cites, as OpenAI's Responses API tells it; left out where there is nothing."),
    ] = UNSET


class OutputText(ShownText, frozen=True, tag="output_text"):
    """Text that the model wrote; `reasoning`: what it thought before, in a conversation's own record."""

    reasoning: Reasoning | UnsetType = UNSET

    @property
    def shown(self) -> ShownText:
        """The text as everybody may see it."""
        return self if self.reasoning is UNSET else replace(self, reasoning=UNSET)


class ShownRefusal(Record, frozen=True, tag="refusal"):
    """The model's words for why it would not answer, as everybody may see them."""

    refusal: Annotated[str, Meta(description="The model's words for why it would not answer.")]

    @property
    def text(self) -> str:
        return self.refusal


class Refusal(ShownRefusal, frozen=True, tag="refusal"):
    """The model's words for why it would not answer; `reasoning` as `OutputText` has it."""

    reasoning: Reasoning | UnsetType = UNSET

    @property
    def shown(self) -> ShownRefusal:
        """The words as everybody may see them."""
        return self if self.reasoning is UNSET else replace(self, reasoning=UNSET)


ContentPart = (
    InputText
    | InputImage
    | InputFile
    | InputLink
    | OutputText
    | Refusal
    | ToolCall
    | ToolResult
    | HostedItem
    | Approval
)
"""One part of what a message says."""


def words_of(part: ContentPart) -> str | None:
    """What a part says in words: a file the text extracted from it; None where it is sent as something else."""
    match part:
        case InputImage() | InputFile(extracted=None) | InputLink():
            return None
        case ToolCall() | ToolResult() | HostedItem() | Approval():
            return None
        case InputFile():
            return f"File {part.name}:\n\n{part.extracted}"
    return part.text


def approvals_asked(message_id: str, content: Sequence[ContentPart]) -> tuple[str, ...]:
    """The ids of those parts of a message that wait for an approval, as callers know them."""
    return tuple(part.id_in(message_id) for part in content if isinstance(part, HostedItem) and part.asks_approval)


def file_keys(content: Sequence[ContentPart]) -> list[str]:
    """Where the files of a message lie in the blob store, but for those that are not its own."""
    return [part.key for part in content if isinstance(part, InputImage | InputFile) and not part.is_borrowed]


def files_of(content: Sequence[ContentPart]) -> tuple[InputImage | InputFile, ...]:
    """The images and documents among the parts, without extracted text."""
    return tuple(
        replace(part, extracted=None) if isinstance(part, InputFile) else part
        for part in content
        if isinstance(part, InputImage | InputFile)
    )


def lent(content: Sequence[ContentPart]) -> tuple[ContentPart, ...]:
    """The same for a copy of the message: its files stay those of the message that brought them."""
    return tuple(
        replace(part, is_borrowed=True) if isinstance(part, InputImage | InputFile) else part for part in content
    )
