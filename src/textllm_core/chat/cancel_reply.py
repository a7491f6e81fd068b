"""Ends a reply before the model does."""

from contextlib import aclosing
from dataclasses import dataclass

from textllm_core.chat.reply_log import last_reply
from textllm_core.chat.resume_reply import ResumeReply
from textllm_core.chat.running import RunningExchanges
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.records.messages import Reply
from textllm_core.tenancy import Caller


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Cut a running reply short: what is written of it stays in the conversation, and what it cost is charged."""

    running: RunningExchanges
    journal: ReplyJournal
    resume_reply: ResumeReply

    async def __call__(self, caller: Caller, response_id: str) -> Reply:
        """What it came to, settled; one that had ended before is as it was.

        Raises:
            NotFoundError: the caller has no such reply running in this process, nor a resumable one in another.
            TextLLMError: what it failed with.
        """
        here = self.running.find(caller.tenant_id, caller.user_id, response_id)
        if here is not None:
            here.cancel()
            return await last_reply(self.resume_reply.files.linked(caller, here.log.read()))
        resumed = await self.resume_reply(caller, response_id)
        async with aclosing(resumed.events) as events:
            await self.journal.ask_to_cancel(caller.tenant_id, resumed.started.user_id, response_id)
            return await last_reply(event async for _, event in events)
