"""What every repository of keys keeps of the port `ApiKeyRepository`."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON
from textllm_core.api_keys import digest_of
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.records.api_keys import ApiKey
from textllm_core.tenancy import Caller

DIGEST = digest_of("one")


def key(number: int = 1, **fields: Any) -> ApiKey:
    whole = ApiKey(
        id=f"key_{number}",
        tenant_id="tenant",
        role="service",
        user_id=None,
        name="Ada's laptop ⌘",
        hint="tllm_abcd",
        created_at=NOON + timedelta(minutes=number),
    )
    return replace(whole, **fields)


class ApiKeyRepositoryContract:
    """What every repository of keys keeps of the port `ApiKeyRepository`.

    Fixture `api_keys`: an empty one, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize(
        ("kept", "caller"),
        [
            (key(role="admin", name=None), Caller("tenant", "admin", id="key_1")),
            (key(), Caller("tenant", "service", id="key_1")),
            (key(role="user", user_id="ada"), Caller("tenant", "user", "ada", "key_1")),
            (key(models=("gpt-4o", "groq/*")), Caller("tenant", "service", id="key_1", models=("gpt-4o", "groq/*"))),
        ],
    )
    async def test_a_key_is_found_by_its_digest_and_by_its_id(
        self, api_keys: ApiKeyRepository, kept: ApiKey, caller: Caller
    ) -> None:
        await api_keys.add(kept, DIGEST)
        assert await api_keys.caller(DIGEST) == caller
        assert await api_keys.get("tenant", kept.id) == kept

    @pytest.mark.parametrize("digest", [digest_of("two"), b"", DIGEST[:-1], DIGEST + b"\0"])
    async def test_another_digest_stands_for_nobody(self, api_keys: ApiKeyRepository, digest: bytes) -> None:
        await api_keys.add(key(), DIGEST)
        assert await api_keys.caller(digest) is None

    async def test_a_revoked_key_stands_for_nobody_and_stays_revoked_since_the_first_time(
        self,
        api_keys: ApiKeyRepository,
    ) -> None:
        await api_keys.add(key(), DIGEST)
        revoked = key(revoked_at=NOON + timedelta(hours=1))
        assert await api_keys.revoke("tenant", "key_1", at=NOON + timedelta(hours=1)) == revoked
        assert await api_keys.revoke("tenant", "key_1", at=NOON + timedelta(hours=2)) == revoked
        assert await api_keys.caller(DIGEST) is None
        assert await api_keys.get("tenant", "key_1") == revoked

    async def test_the_newest_come_first_and_pages_leave_none_out(self, api_keys: ApiKeyRepository) -> None:
        keys = [key(number, created_at=NOON + timedelta(minutes=number // 2)) for number in range(1, 8)]
        for each in keys:
            await api_keys.add(each, digest_of(each.id))
        await api_keys.add(key(9, tenant_id="other"), digest_of("other"))
        await api_keys.revoke("tenant", "key_4", at=NOON)
        seen: list[ApiKey] = []
        while page := await api_keys.newest("tenant", older_than=seen[-1] if seen else None, limit=3):
            assert len(page) <= 3
            seen += page
        assert [each.id for each in seen] == [f"key_{number}" for number in range(7, 0, -1)]

    @pytest.mark.parametrize(("tenant_id", "key_id"), [("other", "key_1"), ("tenant", "key_2"), ("tenant", "key_1\0")])
    async def test_nobody_sees_or_revokes_the_key_of_another(
        self, api_keys: ApiKeyRepository, tenant_id: str, key_id: str
    ) -> None:
        await api_keys.add(key(), DIGEST)
        assert await api_keys.get(tenant_id, key_id) is None
        assert await api_keys.revoke(tenant_id, key_id, at=NOON) is None
        assert await api_keys.newest("other", older_than=None, limit=10) == []
        assert await api_keys.caller(DIGEST) == Caller("tenant", "service", id="key_1")

    async def test_two_tenants_may_have_keys_of_one_id(self, api_keys: ApiKeyRepository) -> None:
        await api_keys.add(key(), DIGEST)
        await api_keys.add(key(tenant_id="other"), digest_of("other"))
        await api_keys.revoke("other", "key_1", at=NOON)
        assert await api_keys.get("tenant", "key_1") == key()

    async def test_what_was_revoked_long_ago_is_forgotten_and_nothing_else(self, api_keys: ApiKeyRepository) -> None:
        for number in (1, 2, 3):
            await api_keys.add(key(number), digest_of(str(number)))
        await api_keys.revoke("tenant", "key_1", at=NOON)
        await api_keys.revoke("tenant", "key_2", at=NOON + timedelta(seconds=1))
        before = NOON + timedelta(seconds=1)
        assert [await api_keys.forget_revoked(before=before, limit=1) for _ in range(2)] == [1, 0]
        left = await api_keys.newest("tenant", older_than=None, limit=9)
        assert {each.id for each in left} == {"key_2", "key_3"}

    async def test_there_is_a_key_in_force_until_the_last_is_revoked(self, api_keys: ApiKeyRepository) -> None:
        assert not await api_keys.is_any_in_force()
        await api_keys.add(key(), DIGEST)
        await api_keys.add(key(2, tenant_id="other"), digest_of("other"))
        await api_keys.revoke("tenant", "key_1", at=NOON)
        assert await api_keys.is_any_in_force()
        await api_keys.revoke("other", "key_2", at=NOON)
        assert not await api_keys.is_any_in_force()
