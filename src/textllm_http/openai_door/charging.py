"""Who is charged for what comes through the door of OpenAI's API."""

import re
from hashlib import sha256
from typing import Final

from textllm_core.errors import InvalidRequestError
from textllm_core.ids import USER_ID
from textllm_core.tenancy import Caller

_USER_ID: Final = re.compile(USER_ID)


def named_user(caller: Caller, *, safety_identifier: str | None, user: str | None) -> str | None:
    """The user that a request names: the key's, else `safety_identifier`, else `user`; None: it names nobody.

    OpenAI takes any text there. One that cannot be the id of a user here stands for a user all the same: it becomes
    `id_` and a digest of it, always the same one. An empty one is refused: it would be as if nobody were named, for
    whom the key finds what is of any user.

    Raises:
        InvalidRequestError: one of them is empty.
    """
    if caller.user_id is not None:
        return caller.user_id
    for field, value in (("safety_identifier", safety_identifier), ("user", user)):
        if value == "":
            raise InvalidRequestError.of(field, "must not be empty; leave it out to name nobody")
    named = user if safety_identifier is None else safety_identifier
    if named is None:
        return None
    if _USER_ID.fullmatch(named):
        return named
    return f"id_{sha256(named.encode(errors='surrogatepass')).hexdigest()[:32]}"


def charged_user(caller: Caller, *, safety_identifier: str | None, user: str | None) -> str:
    """Who is charged for a turn of no conversation: the user that it names, else the key itself as a user.

    Raises:
        InvalidRequestError: as `named_user`.
    """
    return named_user(caller, safety_identifier=safety_identifier, user=user) or caller.id
