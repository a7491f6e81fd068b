"""Who asks, and who pays."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from textllm_core.errors import ForbiddenError, InvalidRequestError, NotFoundError
from textllm_core.ids import checked_user_id, is_new_user_id

Role = Literal["admin", "service", "user"]
"""What a key allows; `Caller` says of each what it may do."""

_RANK: Final[Mapping[Role, int]] = {"user": 0, "service": 1, "admin": 2}


# What every database keeps as it is: PostgreSQL knows no NUL, and no text has half of a surrogate pair.
_KEPT: Final = re.compile("[^\0\ud800-\udfff]{1,255}")
_ALL_TENANTS: Final = "*"  # of jobs, in databases
_OF_KEY: Final = re.compile(r"key_[0-9a-f]{24}|address:.*")


def is_unnamed(user_id: str) -> bool:
    """Whether nobody named this user: it was made for a conversation, or is a key itself, or an address."""
    return is_new_user_id(user_id) or _OF_KEY.fullmatch(user_id) is not None


class Owner(Struct, frozen=True):
    """The user on whose behalf something is done, whoever asks for it."""

    tenant_id: str
    user_id: str


class Caller(Struct, frozen=True):
    """Who is authenticated, and for which tenant. Without authentication: the tenant `default`, as a service.

    A `service` may act for any user of the tenant; an `admin` may, too, and manages the tenant's keys. `user_id` is set
    for the role `user` only, which may act for that user alone.

    Args:
        tenant_id: 1 to 255 characters, without NUL and halves of surrogate pairs, and not `*`.
        id: as long, and without those: whom limits and the budget count where no user was named. It is the key's id;
            without keys the client's address.
        models: the names of models that it may use; None: all.
    """

    tenant_id: str = "default"
    role: Role = "service"
    user_id: str | None = None
    id: str = "default"
    models: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidRequestError: `tenant_id` or `id` is nothing that a database could tell from all others.
        """
        for field, value in (("tenant", self.tenant_id), ("id", self.id)):
            if not _KEPT.fullmatch(value):
                raise InvalidRequestError.of(field, "must be 1 to 255 characters, without NUL and half characters")
        if self.tenant_id == _ALL_TENANTS:
            raise InvalidRequestError.of("tenant", f"must not be {_ALL_TENANTS}")

    def must_be(self, role: Role) -> None:
        """
        Raises:
            ForbiddenError: the caller's role is a lesser one.
        """
        if _RANK[self.role] < _RANK[role]:
            raise ForbiddenError.of_role(role)

    def may_use(self, model: str) -> None:
        """
        Raises:
            ForbiddenError: the caller is limited to other models.
        """
        if self.models is not None and model not in self.models:
            raise ForbiddenError.of_model(model, self.models)

    def acts_for(self, user_id: str | None) -> str | None:
        """The user this caller acts for when it names `user_id`; None when neither says.

        Raises:
            InvalidRequestError: `user_id` is malformed.
            NotFoundError: the caller may not act for that user.
        """
        wanted = None if user_id is None else checked_user_id(user_id)
        if self.user_id is not None and wanted not in (None, self.user_id):
            raise NotFoundError("No such user.")
        return self.user_id or wanted

    def pays_for(self, user_id: str) -> str | None:
        """Who is charged for what this caller does for the user, in the user's place; None: the user is.

        A user whom nobody named has no limits and no budget of its own, however often its id is sent back: else whoever
        names nobody would get new ones with each turn.
        """
        return self.id if self.user_id is None and is_new_user_id(user_id) else None
