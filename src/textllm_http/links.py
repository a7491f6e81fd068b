"""Links of ours are paths; clients are shown them with the address by which they reached the server."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from litestar import Request
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from textllm_core.records.conversations import Conversation
from textllm_core.records.file_replies import DocumentReply, ImageReply
from textllm_core.records.messages import Reply

T = TypeVar("T", Reply, Conversation)


def absolute(request: Request[Any, Any, Any], link: str) -> str:
    """The link, followed from anywhere."""
    return f"{request.scope['scheme']}://{request.headers['host']}{link}" if link.startswith("/") else link


def with_absolute_links(request: Request[Any, Any, Any], record: T) -> T:
    """The record, all its links as `absolute` has them."""
    match record:
        case ImageReply():
            return replace(record, image_urls=[absolute(request, link) for link in record.image_urls])
        case DocumentReply():
            return replace(record, **_absolute_files(request, record))
        case Conversation(last_image_url=str(link)):
            return replace(record, last_image_url=absolute(request, link))
    return record


def _absolute_files(request: Request[Any, Any, Any], reply: DocumentReply) -> Mapping[str, Any]:
    def all_absolute(links: Sequence[str] | UnsetType) -> Sequence[str] | UnsetType:
        return UNSET if links is UNSET else [absolute(request, link) for link in links]

    return {
        "file_url": None if reply.file_url is None else absolute(request, reply.file_url),
        "file_urls": all_absolute(reply.file_urls),
        "image_urls": all_absolute(reply.image_urls),
    }
