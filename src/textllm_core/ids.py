"""Ids: a prefix that says what it names, then 96 random bits. Nobody parses one but to see that no one named a user.

Those of responses say before these bits when their exchange began: so they are in the order of time, and the ledger can
be kept month by month under the key that makes each of its entries the only one.
"""

import os
import re
import zlib
from datetime import UTC, date, datetime, time
from secrets import token_bytes
from typing import Final

from textllm_core.errors import InvalidRequestError

_TENANT_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
FIRST_TIMED_ID: Final = "resp_t"  # before it come the ids of responses that say no time, of earlier versions
_NEW_USER_ID: Final = re.compile(r"user_[0-9a-f]{32}")
USER_ID: Final = r"[A-Za-z0-9._:@+-]{1,255}"
_USER_ID: Final = re.compile(USER_ID)


# Asking the system for randomness costs more than all else of an id, so that many are made of one answer.
_RANDOM_BYTES: Final = 12
_AT_ONCE: Final = 64
_ready: Final[list[str]] = []
os.register_at_fork(after_in_child=_ready.clear)  # two processes must not hand out the same


def new_id(prefix: str) -> str:
    """A fresh id such as `conv_5f0c…`; prefixes: conv, key, msg, sess; see `new_response_id`, `new_user_id`."""
    return f"{prefix}_{_random()}"


def new_response_id(at: datetime) -> str:
    """The id of an exchange that begins then: `resp_t`, the seconds since 1970 in ten digits, and 96 random bits.

    By the `t` it comes after all that earlier versions have made, which have a hexadecimal digit there.
    """
    return f"{FIRST_TIMED_ID}{int(at.timestamp()):010d}{_random()}"


def first_response_id(day: date) -> str:
    """What comes before the ids of all exchanges that begin on that UTC day or later, and behind all others."""
    return f"{FIRST_TIMED_ID}{int(datetime.combine(day, time(), UTC).timestamp()):010d}"


def _random() -> str:
    try:
        return _ready.pop()
    except IndexError:
        block = token_bytes(_RANDOM_BYTES * _AT_ONCE).hex()
        _ready.extend(map("".join, zip(*[iter(block)] * (2 * _RANDOM_BYTES), strict=True)))
        return _random()


def new_user_id() -> str:
    """The id of a user whom nobody named: `user_`, 96 random bits, and the CRC-32 of all that, to know it again by."""
    text = new_id("user")
    return f"{text}{zlib.crc32(text.encode()):08x}"


def is_new_user_id(user_id: str) -> bool:
    """Whether `new_user_id` made it, so that nobody named this user; wrong for one in four billion of other ids."""
    return _NEW_USER_ID.fullmatch(user_id) is not None and f"{zlib.crc32(user_id[:-8].encode()):08x}" == user_id[-8:]


def checked_tenant_id(tenant_id: str) -> str:
    """The same id, or InvalidRequestError: 1-64 characters of `[A-Za-z0-9._-]`."""
    if not _TENANT_ID.fullmatch(tenant_id):
        raise InvalidRequestError.of("tenant", "must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return tenant_id


def checked_user_id(user_id: str) -> str:
    """The same id, or InvalidRequestError: 1-255 characters of `[A-Za-z0-9._:@+-]`."""
    if not _USER_ID.fullmatch(user_id):
        raise InvalidRequestError.of("user_id", "must be 1 to 255 characters of A-Z a-z 0-9 . _ : @ + -")
    return user_id
