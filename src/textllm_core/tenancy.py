"""Who asks, and who pays."""

from typing import Literal

from msgspec import Struct

from textllm_core.errors import NotFoundError
from textllm_core.ids import checked_user_id

Role = Literal["admin", "service", "user"]


class Caller(Struct, frozen=True):
    """Who is authenticated, and for which tenant. Without authentication: the tenant `default`, as a service.

    `user_id` is set for the role `user` only, which may act for that user alone.
    """

    tenant_id: str = "default"
    role: Role = "service"
    user_id: str | None = None

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
