"""What a model could write to drive the terminal of whoever reads it: 500 payloads, the same ones each time."""

import random
import re
from typing import Final

# What must be on no terminal: C0 but for line feed and tab, DEL, C1, and what turns the direction of writing.
OBEYED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_CSI = ("\x1b[", "\x9b", "\x1b\x1b[", "\x1b[\x1b[")
_FINAL = ("31m", "777;1m", "2J", "H", "?1049h", "?25l", "6n", "1;1H", "8m", ">c", "!p", '"q', " q", "20t", "")
_STRING = ("\x1b]", "\x9d", "\x1bP", "\x90", "\x1bX", "\x98", "\x1b^", "\x9e", "\x1b_", "\x9f")
_SAID = ("0;PWNED", "8;;http://pwned.example", "52;c;UFdORUQ=", "4;1;?", "777;notify;PWNED", "q#0;2;0", "1337;PWNED")
_ENDED = ("\x07", "\x1b\\", "\x9c", "\x1b", "", "\x18", "\x1a")
_ALONE = (
    "\x1bc",
    "\x1b7",
    "\x1b#8",
    "\x1b(0",
    "\x1bM",
    "\x1b=",
    "\x1b",
    "\x0e",
    "\x08" * 9,
    "\r",
    "\x0c",
    "\x07",
    "\x00",
)
_ENTITIES = (
    "\x7f",
    "\x84",
    "\x85",
    "\x8d",
    "\u202e",
    "\u2066",
    "&#27;[31m",
    "&#x9b;31m",
    "&#x202e;",
    "&ZeroWidthSpace;",
)


def payloads(count: int = 500) -> list[str]:
    """Each without a line feed, so that a line after it is not a part of it."""
    chance = random.Random(2026)
    made = []
    for _ in range(count):
        parts = [
            chance.choice(
                (
                    chance.choice(_CSI) + chance.choice(_FINAL),
                    chance.choice(_STRING) + chance.choice(_SAID) + chance.choice(_ENDED),
                    chance.choice(_ALONE + _ENTITIES),
                )
            )
            for _ in range(chance.randint(1, 3))
        ]
        made.append("".join(f"{part}{chance.choice(('', 'x', '漢', '`', '**'))}" for part in parts))
    return made


def told(seed: int = 7) -> list[str]:
    """All of them as the deltas of one reply, cut anywhere; behind each a line that is to be there."""
    text = "".join(f"{payload}\nline {number}\n\n" for number, payload in enumerate(payloads()))
    chance, deltas = random.Random(seed), []
    while text:
        length = chance.randint(1, 40)
        deltas.append(text[:length])
        text = text[length:]
    return deltas
