"""The line before the places where documents are read: who gets the next one, and that none is ever lost."""

import asyncio
from typing import Self

import pytest

from textllm_adapters.documents.waiting_line import WaitingLine
from textllm_core.errors import ServiceUnavailableError
from textllm_core.tenancy import Owner


class Visit:
    """Somebody who comes, takes a place when it gets one, and stays until told to leave."""

    def __init__(self, line: WaitingLine, owner: Owner) -> None:
        self.is_inside = False
        self._may_leave = asyncio.Event()
        self.task = asyncio.create_task(self._come(line, owner))

    async def _come(self, line: WaitingLine, owner: Owner) -> None:
        async with line.place(owner):
            self.is_inside = True
            await self._may_leave.wait()
        self.is_inside = False

    def leave(self) -> None:
        self._may_leave.set()

    async def is_refused_with(self, *, within_s: float = 0) -> str:
        await asyncio.wait([self.task], timeout=within_s)
        assert self.task.done()
        with pytest.raises(ServiceUnavailableError) as refusal:
            await self.task
        assert refusal.value.details() == {"retry_after_s": 2}
        return str(refusal.value)


class Hall:
    """A line, and all who ever came."""

    def __init__(self, *, places: int = 1, max_waiting: int = 64, patience_s: float = 600.0) -> None:
        self._line = WaitingLine(places=places, max_waiting=max_waiting, patience_s=patience_s)
        self._visits: list[Visit] = []

    async def come(self, user: str, *, tenant: str = "acme") -> Visit:
        visit = self.send(user, tenant=tenant)
        await quiet()
        return visit

    def send(self, user: str, *, tenant: str = "acme") -> Visit:
        """Somebody on the way here."""
        visit = Visit(self._line, Owner(tenant, user))
        self._visits.append(visit)
        return visit

    async def leave(self, visit: Visit) -> None:
        assert visit.is_inside
        visit.leave()
        await quiet()

    async def stop(self, visit: Visit) -> None:
        visit.task.cancel()
        await quiet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for visit in self._visits:
            visit.task.cancel()
        await asyncio.gather(*(visit.task for visit in self._visits), return_exceptions=True)


async def quiet() -> None:
    """All have done what they can do by now."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_user_leaves_one_place_to_others() -> None:
    async with Hall(places=2) as hall:
        anns = [await hall.come("ann") for _ in range(3)]
        assert [ann.is_inside for ann in anns] == [True, False, False]
        assert (await hall.come("bob")).is_inside


async def test_the_only_place_is_for_everyone() -> None:
    async with Hall(places=1) as hall:
        assert (await hall.come("ann")).is_inside


async def test_the_users_of_a_tenant_may_have_all_places() -> None:
    async with Hall(places=2) as hall:
        assert (await hall.come("ann")).is_inside
        assert (await hall.come("bob")).is_inside


async def test_a_free_place_goes_to_the_tenant_with_the_fewest_however_many_its_users_are() -> None:
    async with Hall(places=2) as hall:
        many = [await hall.come(f"user_{number}", tenant="mob") for number in range(10)]
        first, second = await hall.come("ann"), await hall.come("bob")
        await hall.leave(many[0])
        assert first.is_inside
        await hall.leave(first)
        assert second.is_inside


async def test_a_free_place_goes_to_the_user_with_the_fewest() -> None:
    async with Hall(places=3) as hall:
        anns = [await hall.come("ann") for _ in range(3)]
        bob = await hall.come("bob")
        await hall.come("ann")
        bobs_next = await hall.come("bob")
        await hall.leave(bob)
        assert bobs_next.is_inside
        await hall.leave(anns[0])
        assert anns[2].is_inside


async def test_users_take_turns_where_there_is_one_place() -> None:
    async with Hall(places=1) as hall:
        anns = [await hall.come("ann") for _ in range(3)]
        bobs = [await hall.come("bob") for _ in range(2)]
        for visit in (anns[0], bobs[0], anns[1], bobs[1], anns[2]):
            await hall.leave(visit)


async def test_tenants_take_turns_where_there_is_one_place() -> None:
    async with Hall(places=1) as hall:
        many = [await hall.come(f"user_{number}", tenant="mob") for number in range(3)]
        ann, bob = await hall.come("ann"), await hall.come("bob")
        for visit in (many[0], ann, many[1], bob, many[2]):
            await hall.leave(visit)


async def test_among_equals_the_first_comes_first() -> None:
    async with Hall(places=1) as hall:
        for visit in [await hall.come(user) for user in ("dan", "ann", "cat", "bob")]:
            await hall.leave(visit)


async def test_who_left_is_forgotten() -> None:
    async with Hall(places=1) as hall:
        await hall.leave(await hall.come("ann", tenant="mob"))
        zoe = await hall.come("zoe", tenant="zoo")
        ann = await hall.come("ann", tenant="mob")
        await hall.come("bob")
        await hall.leave(zoe)
        assert ann.is_inside


async def test_who_is_inside_is_remembered_whoever_stops_waiting() -> None:
    async with Hall(places=1) as hall:
        ann, cat = await hall.come("ann"), await hall.come("cat")
        await hall.stop(cat)
        await hall.come("ann")
        bob = await hall.come("bob")
        await hall.leave(ann)
        assert bob.is_inside


async def test_a_user_who_fills_his_share_is_refused_and_nobody_else() -> None:
    async with Hall(places=1, max_waiting=16) as hall:
        anns = [await hall.come("ann") for _ in range(4)]
        bob = await hall.come("bob")
        assert "of this user wait" in await anns[3].is_refused_with()
        await hall.leave(anns[0])
        await hall.leave(bob)
        again = await hall.come("ann")
        for visit in (anns[1], anns[2], again):
            await hall.leave(visit)


async def test_a_tenant_that_fills_its_share_is_refused_and_no_other() -> None:
    async with Hall(places=1, max_waiting=16) as hall:
        many = [await hall.come(f"user_{number}", tenant="mob") for number in range(10)]
        ann = await hall.come("ann")
        assert "of this tenant wait" in await many[9].is_refused_with()
        await hall.leave(many[0])
        await hall.leave(ann)
        for visit in many[1:9]:
            await hall.leave(visit)


async def test_no_more_wait_than_may() -> None:
    async with Hall(places=1, max_waiting=16) as hall:
        visits = [await hall.come("ann", tenant=f"tenant_{number}") for number in range(18)]
        assert "Too many documents" in await visits[17].is_refused_with()
        for visit in visits[:17]:
            await hall.leave(visit)


async def test_who_has_waited_for_too_long_is_refused_and_keeps_no_place() -> None:
    async with Hall(places=1, patience_s=0.01) as hall:
        ann, bob = await hall.come("ann"), await hall.come("bob")
        assert "Too many documents" in await bob.is_refused_with(within_s=60)
        await hall.leave(ann)
        assert (await hall.come("cat")).is_inside


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("patience_s", [0.0, 600.0], ids=["out of patience", "cancelled"])
async def test_no_place_is_lost_at_whatever_moment_somebody_stops_waiting(steps: int, patience_s: float) -> None:
    async with Hall(places=1, patience_s=patience_s) as hall:
        ann = await hall.come("ann")
        leaving = asyncio.get_running_loop().create_task(hall.leave(ann))
        bob = hall.send("bob")
        for _ in range(steps):
            await asyncio.sleep(0)
        if patience_s:
            bob.task.cancel()
        else:
            bob.leave()
        await asyncio.wait([leaving, bob.task])
        await hall.leave(await hall.come("cat"))


async def test_who_stops_waiting_makes_room_for_the_next() -> None:
    async with Hall(places=1, max_waiting=8) as hall:
        ann, gone = await hall.come("ann"), await hall.come("ann")
        await hall.stop(gone)
        waiting = await hall.come("ann")
        await hall.leave(ann)
        assert waiting.is_inside


async def test_who_is_cancelled_inside_gives_the_place_back() -> None:
    async with Hall(places=1) as hall:
        ann, bob = await hall.come("ann"), await hall.come("bob")
        await hall.stop(ann)
        assert bob.is_inside
