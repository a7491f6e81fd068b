"""Take no more turns, and see those that run to their end."""

from dataclasses import dataclass

from textllm_core.chat.running import RunningExchanges


@dataclass(frozen=True, slots=True)
class WindDown:
    """Ends the turns of this process before the process ends; nothing starts them again."""

    running: RunningExchanges

    async def __call__(self, *, grace_s: float) -> None:
        """Refuse new turns from now on; give the running ones `grace_s` seconds, then cut them short and settle them.

        Called again meanwhile, with less, it shortens their time.
        """
        self.running.refuse_new()
        await self.running.drain(grace_s)
