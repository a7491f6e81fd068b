"""What is still to be erased at the provider."""

from typing import Literal

from textllm_core.wire import Record

ErasureKind = Literal["transcript", "reply", "ready"]


class Erasure(Record, frozen=True, kw_only=True):
    """Something that the provider is to forget.

    Args:
        kind: `ready` is a transcript that was made ahead, and is of nobody yet.
        provider_id: the provider's name for it.
        attempts: how often it was tried, this time included.
    """

    tenant_id: str
    user_id: str
    id: str
    kind: ErasureKind
    provider_id: str
    attempts: int
