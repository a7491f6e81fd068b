"""What the supervisor and its workers say to each other, a byte each, over a pair of sockets; its end is a death."""

import signal
from enum import Enum
from typing import Final

BACKLOG: Final = 2048  # connections that wait to be accepted
SERVICE_S: Final = 5.0  # how long a stopping worker serves as before, while the world learns of it
SETTLING_S: Final = 30.0  # what it may take after its streams have ended
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # held back until a new worker can handle them


class Word(Enum):
    """What is said."""

    READY = b"+"  # by a worker, once it serves

    RETIRE = b"R"  # another worker serves in your place: leave it what is new, and end
    STOP = b"S"  # the whole service ends
    INTERRUPT = b"I"  # the same, and without the time in which the world learns of it
    CUT = b"C"  # the same, and without the time of grace for streams


def words(heard: bytes) -> list[Word]:
    """What was said, in order."""
    return [Word(heard[i : i + 1]) for i in range(len(heard))]
