"""Keys that run out, as Microsoft Entra's do: a command prints one, and is asked again before it does."""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from textllm_adapters.openai.provider import Provider
from textllm_core.errors import ProviderError

_WITHIN_S: Final = 30.0  # `az account get-access-token` takes some seconds
_AHEAD_S: Final = 120.0  # a call may wait for its connection, and clocks differ
_LASTS_S: Final = 300.0  # where the token does not say; the shortest that Entra gives live for an hour
_MOST_BYTES: Final = 16_384


class CommandToken:
    """The key of a provider, printed by a command without a shell.

    Args:
        provider: whose key it becomes.
    """

    def __init__(self, provider: Provider, command: Sequence[str]) -> None:
        self._provider, self._command = provider, command
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    async def refresh(self) -> None:
        """Have a key that is good for a while.

        Raises:
            ProviderError: the command prints none; nothing ran.
        """
        if time.time() < self._good_until:
            return
        async with self._asking:
            if time.time() >= self._good_until:
                token = await self._printed()
                self._good_until = _expires_at(token) - _AHEAD_S
                self._provider.api_key = token

    async def _printed(self) -> str:
        printed = b""
        with suppress(OSError, TimeoutError):
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
            try:
                async with asyncio.timeout(_WITHIN_S):
                    printed, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if process.returncode != 0:
                printed = b""
        token = printed.decode("ascii", "replace").strip()
        if not token or len(token) > _MOST_BYTES or not token.isprintable() or " " in token:
            raise ProviderError(
                f"The command {self._command[0]} (token_command) prints no token; the operator must try it.",
                may_have_run=False,
            )
        return token


def _expires_at(token: str) -> float:
    """When it runs out, by its own word where it is a JSON Web Token."""
    with suppress(IndexError, ValueError, binascii.Error):
        said = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
        if isinstance(claims, dict) and isinstance(claims.get("exp"), int):
            return float(claims["exp"])
    return time.time() + _LASTS_S
