"""Replies to turns that came with files."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from textllm_core.fields import Pages
from textllm_core.records.messages import Reply


class ImageReply(Reply, frozen=True, kw_only=True):
    """A reply to a turn with images; the wire shape of `/chat/image`."""

    image_urls: Annotated[
        Sequence[str], Meta(description="Links, to be followed for a while, to those of the images that still exist.")
    ]
    image_count: Annotated[int, Meta(description="How many images the turn had.")]


class DocumentReply(Reply, frozen=True, kw_only=True):
    """A reply to a turn with documents; the wire shape of `/chat/file`. With several, `file_url`, `file_type` and
    `pages` are those of the first.
    """

    file_url: Annotated[
        str | None,
        Meta(description="A link to the document that can be followed for a while; null once it is deleted."),
    ]
    file_type: Annotated[str, Meta(description="What the document is, such as `.pdf`.")]
    pages: Pages = UNSET
    file_urls: Annotated[
        Sequence[str] | UnsetType,
        Meta(description="Where the turn had several documents: links to those that still exist, in their order."),
    ] = UNSET
    image_urls: Annotated[
        Sequence[str] | UnsetType,
        Meta(description="Where images came with them: links to those that still exist."),
    ] = UNSET
    image_count: Annotated[int | UnsetType, Meta(description="Where images came with them: how many the turn had.")] = (
        UNSET
    )
