"""Ids: a prefix that says what it names, then 96 random bits. Nobody parses one."""

import re
from secrets import token_hex
from typing import Final

from textllm_core.errors import InvalidRequestError

_TENANT_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_USER_ID: Final = re.compile(r"[A-Za-z0-9._:@+-]{1,255}")


def new_id(prefix: str) -> str:
    """A fresh id such as `conv_5f0c…`; prefixes: conv, key, msg, resp, sess, user."""
    return f"{prefix}_{token_hex(12)}"


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
