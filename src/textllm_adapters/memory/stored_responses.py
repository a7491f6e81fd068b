"""Responses that can be asked for again, in memory."""

from dataclasses import dataclass

from msgspec.structs import replace

from textllm_adapters.memory.store import MemoryStore
from textllm_core.records.messages import reply_message_id
from textllm_core.records.stored_responses import FollowedResponse, ResponseFailure, StoredResponse


@dataclass(frozen=True, slots=True)
class MemoryStoredResponses:
    """`StoredResponses` over a store in memory, which forgets those whose conversation is gone when it is asked."""

    store: MemoryStore

    async def get(self, tenant_id: str, response_id: str) -> StoredResponse | None:
        for (tenant, _, kept_id), kept in self.store.responses.items():
            if (tenant, kept_id) == (tenant_id, response_id) and self._is_there(kept):
                return kept
        return None

    async def followed(self, tenant_id: str, response_id: str) -> FollowedResponse | None:
        response = await self.get(tenant_id, response_id)
        if response is None:
            return None
        kept = self.store.conversations[tenant_id, response.user_id, response.conversation_id]
        newest = kept.messages[-1].id if kept.messages else None
        return FollowedResponse(
            id=response_id,
            conversation=kept.state,
            is_of_conversation=response.is_of_conversation,
            has_failed=response.failure is not None,
            is_last=newest == reply_message_id(response_id),
        )

    async def fail(self, tenant_id: str, user_id: str, response_id: str, failure: ResponseFailure) -> None:
        key = tenant_id, user_id, response_id
        if (kept := self.store.responses.get(key)) is not None:
            self.store.responses[key] = replace(kept, failure=failure)

    async def remove(self, tenant_id: str, user_id: str, response_id: str) -> int | None:
        gone = self.store.responses.pop((tenant_id, user_id, response_id), None)
        if gone is None or not self._is_there(gone):
            return None
        of_it = (tenant_id, user_id, gone.conversation_id)
        others = (each for each in self.store.responses.values() if self._is_there(each))
        return sum((each.tenant_id, each.user_id, each.conversation_id) == of_it for each in others)

    def _is_there(self, response: StoredResponse) -> bool:
        key = response.tenant_id, response.user_id, response.conversation_id
        kept = self.store.conversations.get(key)
        return kept is not None and not kept.conversation.is_deleted
