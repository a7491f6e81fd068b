"""Whether a user may begin one conversation more, which not every turn that begins one has to count."""

from collections.abc import Awaitable, Callable
from typing import Final

_UNCOUNTED: Final = 100  # so that a count, which takes the longer the more there are, is one turn's in a hundred
_USERS: Final = 10_000  # some 2 MB


def uncounted(count: int, *, limit: int) -> int:
    """How many of a user with `count` conversations may begin before they are counted again.

    A tenth of those that are left: so ten processes which have counted at once do not pass the limit together.
    """
    return min(_UNCOUNTED, max(0, limit - count) // 10)


class Room:
    """What one process remembers of how many conversations users have.

    Others may begin some meanwhile: in each process a user may get at most 100 more than the limit, or a tenth of it.
    """

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], int] = {}  # whoever was counted last comes last

    def takes(self, tenant_id: str, user_id: str) -> bool:
        """Whether the user surely may begin one more, which is then taken for begun; else it is to be counted."""
        left = self._left.get((tenant_id, user_id), 0)
        if left:
            self._left[tenant_id, user_id] = left - 1
        return left > 0

    async def is_left(self, tenant_id: str, user_id: str, *, limit: int, count: Callable[[], Awaitable[int]]) -> bool:
        """Whether the user may begin one more, which is then taken for begun.

        Args:
            count: says how many the user has; it is asked now and then, and always where few are left.
        """
        if self.takes(tenant_id, user_id):
            return True
        user = tenant_id, user_id
        self._left.pop(user, None)
        has = await count()
        if (may_follow := uncounted(has + 1, limit=limit)) > 0:
            if len(self._left) >= _USERS:
                del self._left[next(iter(self._left))]
            self._left[user] = may_follow
        return has < limit
