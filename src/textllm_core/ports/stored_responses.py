"""Responses that can be asked for again."""

from typing import Protocol

from textllm_core.records.stored_responses import FollowedResponse, ResponseFailure, StoredResponse


class StoredResponses(Protocol):
    """What is kept of responses beside their messages and entries. It goes with the conversation that it is of.

    `Ledger.reserve` and `Turnstile.admit` write it, in their transactions; `Ledger.release` and `Ledger.settle` take it
    back where nobody was told of the response.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def get(self, tenant_id: str, response_id: str) -> StoredResponse | None:
        """One response of the tenant; None, too, where its conversation is hidden."""
        ...

    async def followed(self, tenant_id: str, response_id: str) -> FollowedResponse | None:
        """What a response needs to know of one that it is to follow; None where `get` has none.

        One that has not ended, or ended without a reply, is not the last thing that was said.
        """
        ...

    async def fail(self, tenant_id: str, user_id: str, response_id: str, failure: ResponseFailure) -> None:
        """Write down why one failed; nothing where there is none."""
        ...

    async def remove(self, tenant_id: str, user_id: str, response_id: str) -> int | None:
        """Forget one; how many others are of its conversation. None: there was none."""
        ...
