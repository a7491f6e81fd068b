"""Child processes that are started without holding up whoever starts them.

uvloop starts one by a fork, which copies the page tables of a big server while nobody else is served; `subprocess`
needs none (`man vfork`). Both ends of a child are sockets, which any event loop reads and writes.
"""

import asyncio
import math
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socketpair
from typing import Final

from textllm_core.cancellation import carried_through

_NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class Child:
    """A running process: what it reads, and what it prints."""

    input: asyncio.StreamWriter
    output: asyncio.StreamReader
    process: subprocess.Popen[bytes]

    async def ended(self) -> int:
        """Its exit status, once it has ended; negative: the signal that it died of."""
        return await asyncio.to_thread(self.process.wait)

    def processor_s(self) -> float:
        """Seconds of processor time that it has taken; infinite where the system does not say it (proc(5))."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return math.inf
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def child_of(*command: str) -> AsyncIterator[Child]:
    """A child that knows nothing of us, lets us go first, and is gone when the block ends, however it ends.

    It writes to our standard error until it shuts that itself.
    """
    (its_input, to_child), (its_output, from_child) = socketpair(), socketpair()
    with its_input, its_output, to_child, from_child:
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a quarter of a millisecond
            command, stdin=its_input.fileno(), stdout=its_output.fileno(), env={}, cwd="/", start_new_session=True
        )
        try:
            _step_back(process.pid)
            its_input.close()
            its_output.close()
            _, writer = await asyncio.open_connection(sock=to_child)
            reader, other = await asyncio.open_connection(sock=from_child)
            try:
                yield Child(writer, reader, process)
            finally:
                writer.transport.abort()
                other.transport.abort()
        finally:
            await carried_through(_end(process))


def _step_back(process_id: int) -> None:
    """Let whoever serves go first.

    Where Linux shares the processors between sessions before it looks at who is nice in them, the child's own session
    must be so, too (sched(7)); it may be told at most ten times a second.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process_id, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
        Path(f"/proc/{process_id}/autogroup").write_text(str(_NICENESS))


async def _end(process: subprocess.Popen[bytes]) -> None:
    """See a child end, which a kill makes sure of, so that it leaves no zombie."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):  # it has just ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
