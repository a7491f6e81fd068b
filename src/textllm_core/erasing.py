"""Erases on the provider's side what is deleted here, however often that takes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from textllm_core.errors import ModelError, ProviderError, ProviderTimeoutError, TextLLMError
from textllm_core.events import UNHEARD, ErasureFailed, ErasuresWaiting
from textllm_core.ports.clock import Clock
from textllm_core.ports.erasures import Erasures
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.transcript import Transcript
from textllm_core.records.erasures import Erasure

_BATCH: Final = 10
_MOST_BATCHES: Final = 50
_TOO_LONG: Final = "The conversation is long; erasing it goes on with the next try."
_KEPT: Final = "The provider has no way to delete it, or {} things in it or more: messages, a reply, the conversation."
_EACH_S: Final = 45.0  # what a long conversation has not lost by then, it loses the next time
_LEASE: Final = timedelta(seconds=_BATCH * _EACH_S * 1.5)  # for a whole batch that is slow, and half of it more
_FIRST_PAUSE: Final = timedelta(seconds=15)  # doubled with each further attempt
_LONGEST_PAUSE: Final = timedelta(hours=1)  # a provider that is back after a day is asked again soon


def absent(counts: Mapping[str, int]) -> str:
    """What cannot be erased as the settings are, by the name of its provider, and what to do about it."""
    return " ".join(
        f"{count} to be erased at the provider {name}, which is not among the settings: put it back under `providers`, "
        "with kind: openai, until that is done."
        if name
        else f"{count} to be erased at a provider without a name, which is not asked for conversations: put "
        "llm_api: conversations, its address and its key back until that is done."
        for name, count in sorted(counts.items())
    )


@dataclass(frozen=True, slots=True)
class EraseAtProvider:
    """Erase what is due, until the provider has confirmed it. Any number of processes may run it at once.

    Args:
        transcript: the provider's side; None where it keeps nothing: erasures from other times wait until it is back.
    """

    erasures: Erasures
    transcript: Transcript | None
    clock: Clock
    telemetry: Telemetry = UNHEARD

    async def __call__(self) -> int:
        """How many were confirmed. It goes on while there are any; a provider that confirms none gets a rest.

        Raises:
            StorageUnavailableError: what is left stays for the next run.
        """
        confirmed = 0 if self.transcript is None else await self._erase_due(self.transcript)
        self.telemetry.emit(await self.waiting())
        return confirmed

    async def waiting(self) -> ErasuresWaiting:
        """What the provider has not confirmed yet.

        Raises:
            StorageUnavailableError
        """
        waiting, asked = await self.erasures.waiting(), self.transcript
        gone = {
            name: count
            for name, count in waiting.by_provider.items()
            if asked is None or not asked.keeps(f"{name}/" if name else "")
        }
        return replace(waiting, absent=gone)

    async def _erase_due(self, transcript: Transcript) -> int:
        total = 0
        for _ in range(_MOST_BATCHES):
            now = self.clock.now()
            batch = await self.erasures.due(at=now, latest=now + _LONGEST_PAUSE, lease_until=now + _LEASE, limit=_BATCH)
            confirmed = sum([await self._erase(erasure, transcript) for erasure in batch])
            total += confirmed
            if not confirmed:
                break
        return total

    async def _erase(self, erasure: Erasure, transcript: Transcript) -> bool:
        try:
            async with asyncio.timeout(_EACH_S):
                erase = transcript.erase_reply if erasure.kind == "reply" else transcript.erase
                left = await erase(erasure.provider_id)
        except (TextLLMError, TimeoutError) as failure:
            pause = min(_FIRST_PAUSE * 2 ** min(erasure.attempts - 1, 20), _LONGEST_PAUSE)
            error = failure if isinstance(failure, TextLLMError) else ProviderTimeoutError(_TOO_LONG)
            self._tell(erasure, error, retry_in_s=int(pause.total_seconds()))
            await self.erasures.put_off(erasure, until=self.clock.now() + pause)
            return False
        if left:  # for ever: whoever runs the provider has to delete them
            self._tell(erasure, ProviderError(_KEPT.format(left)), retry_in_s=None)
        await self.erasures.done(erasure)
        return True

    def _tell(self, erasure: Erasure, error: TextLLMError, *, retry_in_s: int | None) -> None:
        self.telemetry.emit(
            ErasureFailed(
                erasure_id=erasure.id,
                provider_id=erasure.provider_id,
                attempts=erasure.attempts,
                retry_in_s=retry_in_s,
                code=error.code,
                reason=str(error),
                report=error.report if isinstance(error, ModelError) else None,
            )
        )
