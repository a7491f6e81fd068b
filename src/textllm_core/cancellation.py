"""Work that must not be broken off."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


async def carried_through(work: Awaitable[_T]) -> _T:
    """What comes of `work`, which runs to its end however often its caller is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: the caller was cancelled, and `work` has ended; a failure of it is the cause.
    """
    future = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as asked:
            cancellation = asked
    if cancellation is not None:
        raise cancellation from (None if future.cancelled() else future.exception())
    return future.result()
