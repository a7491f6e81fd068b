"""Ends a reply before the model does."""

from dataclasses import dataclass

from textllm_core.chat.running import RunningExchanges
from textllm_core.tenancy import Caller


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Cut a running reply short: what is written of it stays in the conversation, and what it cost is charged."""

    running: RunningExchanges

    async def __call__(self, caller: Caller, response_id: str) -> bool:
        """Returns once it is settled; False where no such reply of the caller is running in this process."""
        return await self.running.cancel(caller.tenant_id, caller.user_id, response_id)
