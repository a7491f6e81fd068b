"""Few of the turns that begin a conversation count how many their user has."""

import pytest

from textllm_core.chat.room import Room, uncounted


class Conversations:
    """Those of a user: how many there are, and how often they were counted."""

    def __init__(self, has: int = 0) -> None:
        self.has, self.counts = has, 0

    async def count(self) -> int:
        self.counts += 1
        return self.has

    async def begin(self, room: Room, *, limit: int) -> bool:
        may = await room.is_left("tenant", "user", limit=limit, count=self.count)
        self.has += may
        return may


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 250, 10_000])
async def test_one_process_allows_exactly_as_many_as_a_user_may_have(limit: int) -> None:
    theirs, room = Conversations(), Room()
    assert all([await theirs.begin(room, limit=limit) for _ in range(limit)])
    assert not await theirs.begin(room, limit=limit)
    assert theirs.has == limit


async def test_where_many_are_left_one_in_a_hundred_is_counted() -> None:
    theirs, room = Conversations(), Room()
    for _ in range(1010):
        assert await theirs.begin(room, limit=10_000)
    assert theirs.counts == 10


@pytest.mark.parametrize("processes", [2, 10])
async def test_processes_that_count_at_once_do_not_pass_the_limit_together(processes: int) -> None:
    theirs, rooms = Conversations(950), [Room() for _ in range(processes)]
    while any([await theirs.begin(room, limit=1000) for room in rooms]):
        pass
    assert theirs.has == 1000


async def test_what_was_counted_long_ago_lets_a_hundred_more_begin_at_most() -> None:
    theirs, room = Conversations(), Room()
    assert await theirs.begin(room, limit=10_000)
    theirs.has = 10_000  # by other processes
    while await theirs.begin(room, limit=10_000):
        pass
    assert theirs.has == 10_000 + uncounted(1, limit=10_000) == 10_100


async def test_only_so_many_users_are_remembered() -> None:
    first, room = Conversations(), Room()
    await first.begin(room, limit=10_000)
    for n in range(10_000):
        await room.is_left("tenant", f"user {n}", limit=10_000, count=Conversations().count)
    await first.begin(room, limit=10_000)
    assert first.counts == 2
