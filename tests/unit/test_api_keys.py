"""Keys: their secrets, who may make and revoke them, and for how long an answer is believed."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.conftest import NOON, Bench

from textllm_adapters.memory.api_key_repository import MemoryApiKeyRepository
from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.store import MemoryStore
from textllm_core import Caller
from textllm_core.api_keys import Authenticate, digest_of, is_secret, new_secret
from textllm_core.application import Administration
from textllm_core.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StorageUnavailableError,
    UnauthenticatedError,
)
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.records.api_keys import IssuedApiKey
from textllm_core.records.messages import Idempotency, TextTurn

ADMIN = Caller("acme", "admin")
HALF_A_SECOND = timedelta(seconds=0.5)


@dataclass
class Away:
    """Keys behind a storage that does not answer, and of which nobody need ask."""

    store: MemoryStore = field(default_factory=MemoryStore)
    is_away: bool = True

    async def caller(self, digest: bytes) -> Caller | None:
        if self.is_away:
            raise StorageUnavailableError
        return await MemoryApiKeyRepository(self.store).caller(digest)

    def __getattr__(self, name: str) -> Any:
        return getattr(MemoryApiKeyRepository(self.store), name)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def administration(clock: FixedClock) -> Administration:
    return memory_administration(MemoryStore(), clock)


# Secrets


def test_a_secret_has_256_random_bits_in_base62_and_no_two_are_alike() -> None:
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000
    for secret in made:
        assert is_secret(secret)
        assert len(secret) == len("tllm_") + 43 + 6
        assert secret.removeprefix("tllm_").isascii()
        assert secret.removeprefix("tllm_").isalnum()
    seen = set("".join(secret[5:48] for secret in made))
    assert len(seen) == 62


@given(st.text(max_size=80) | st.from_regex(r"tllm_[0-9A-Za-z]{49}", fullmatch=True))
def test_a_text_that_nobody_made_is_no_secret(text: str) -> None:
    assert not is_secret(text)  # by chance one in four thousand million is


@given(st.data())
def test_a_secret_with_one_character_changed_is_none(data: st.DataObject) -> None:
    secret = new_secret()
    place = data.draw(st.integers(0, len(secret) - 1))
    other = data.draw(st.characters().filter(lambda character: character != secret[place]))
    assert not is_secret(secret[:place] + other + secret[place + 1 :])


@given(st.integers(0, 53), st.text(min_size=1))
def test_a_secret_that_is_cut_or_lengthened_is_none(end: int, more: str) -> None:
    secret = new_secret()
    assert not any(map(is_secret, (secret[:end], secret + more, more + secret, secret + "\n")))


# Keys


async def test_a_key_is_kept_without_its_secret(clock: FixedClock) -> None:
    store = MemoryStore()
    issued = await memory_administration(store, clock).issue_api_key(ADMIN, role="user", user_id="ada", name="laptop")
    assert is_secret(issued.secret)
    ((kept),) = store.api_keys.values()
    assert (kept.digest, kept.key.hint) == (digest_of(issued.secret), issued.secret[:9])
    assert issued.secret not in repr(store)
    assert issued.secret not in repr(issued)
    assert (issued.tenant_id, issued.role, issued.user_id, issued.name) == ("acme", "user", "ada", "laptop")
    assert (issued.created_at, issued.revoked_at) == (NOON, None)


async def test_a_secret_stands_for_its_keys_tenant_role_and_user(administration: Administration) -> None:
    for caller in (ADMIN, Caller("acme", "service"), Caller("acme", "user", "ada")):
        issued = await administration.issue_api_key(ADMIN, role=caller.role, user_id=caller.user_id)
        assert await administration.authenticate(issued.secret) == replace(caller, id=issued.id)


@pytest.mark.parametrize("caller", [Caller(), Caller("acme", "service"), Caller("acme", "user", "ada")])
async def test_only_admins_manage_keys(administration: Administration, caller: Caller) -> None:
    issued = await administration.issue_api_key(ADMIN, role="admin")
    with pytest.raises(ForbiddenError):
        await administration.issue_api_key(caller, role="service")
    with pytest.raises(ForbiddenError):
        await administration.list_api_keys(caller)
    with pytest.raises(ForbiddenError):
        await administration.revoke_api_key(caller, issued.id)
    assert await administration.authenticate(issued.secret) == replace(ADMIN, id=issued.id)


@pytest.mark.parametrize(
    ("tenant", "fields", "field"),
    [
        ("acme", {"role": "user"}, "user_id"),
        ("acme", {"role": "admin", "user_id": "ada"}, "user_id"),
        ("acme", {"role": "service", "user_id": "ada"}, "user_id"),
        ("acme", {"role": "user", "user_id": ""}, "user_id"),
        ("acme", {"role": "user", "user_id": "a b"}, "user_id"),
        ("acme", {"role": "admin", "name": ""}, "name"),
        ("acme", {"role": "admin", "name": "x" * 201}, "name"),
        ("acme", {"role": "admin", "name": "\ud800"}, "name"),
        ("", {"role": "admin"}, "tenant"),
        ("a b", {"role": "admin"}, "tenant"),
        ("a\n", {"role": "admin"}, "tenant"),
        ("x" * 65, {"role": "admin"}, "tenant"),
    ],
)
async def test_a_malformed_key_is_refused(
    administration: Administration, tenant: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await administration.issue_api_key(Caller(tenant, "admin"), **fields)
    assert [name for name, _ in refusal.value.errors] == [field]
    assert not await administration.any_api_key()


async def test_pages_hold_every_key_of_the_tenant_once(administration: Administration, clock: FixedClock) -> None:
    made = []
    for _ in range(5):
        clock.advance(HALF_A_SECOND)
        made.append((await administration.issue_api_key(ADMIN, role="service")).id)
    await administration.issue_api_key(Caller("other", "admin"), role="admin")
    first = await administration.list_api_keys(ADMIN, limit=3)
    second = await administration.list_api_keys(ADMIN, limit=3, after=first.data[-1].id)
    assert [key.id for key in (*first.data, *second.data)] == made[::-1]
    assert (first.has_more, second.has_more) == (True, False)


@pytest.mark.parametrize("asked", [{"limit": 0}, {"limit": 101}, {"after": "key_1"}, {"after": "\0"}])
async def test_a_page_that_does_not_exist_is_refused(administration: Administration, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        await administration.list_api_keys(ADMIN, **asked)


async def test_the_key_of_another_tenant_is_not_there(administration: Administration) -> None:
    theirs: IssuedApiKey = await administration.issue_api_key(Caller("other", "admin"), role="admin")
    with pytest.raises(NotFoundError):
        await administration.revoke_api_key(ADMIN, theirs.id)
    with pytest.raises(InvalidRequestError):
        await administration.list_api_keys(ADMIN, after=theirs.id)
    assert await administration.authenticate(theirs.secret) == Caller("other", "admin", id=theirs.id)


# Authentication


async def test_a_revoked_key_is_refused_half_a_second_later_at_the_latest(
    administration: Administration, clock: FixedClock
) -> None:
    issued = await administration.issue_api_key(ADMIN, role="admin")
    await administration.authenticate(issued.secret)
    await administration.revoke_api_key(ADMIN, issued.id)
    clock.advance(HALF_A_SECOND)
    with pytest.raises(UnauthenticatedError):
        await administration.authenticate(issued.secret)


async def test_a_clock_that_was_set_back_keeps_no_key_alive(administration: Administration, clock: FixedClock) -> None:
    issued = await administration.issue_api_key(ADMIN, role="admin")
    await administration.authenticate(issued.secret)
    await administration.revoke_api_key(ADMIN, issued.id)
    clock.advance(timedelta(hours=-1))
    with pytest.raises(UnauthenticatedError):
        await administration.authenticate(issued.secret)


async def test_a_key_that_is_unknown_now_may_be_known_at_once(clock: FixedClock) -> None:
    keys = MemoryApiKeyRepository(MemoryStore())
    authenticate, secret = Authenticate(keys, clock), new_secret()
    with pytest.raises(UnauthenticatedError):
        await authenticate(secret)
    issued = await memory_administration(keys.store, clock).issue_api_key(ADMIN, role="service")
    await keys.add(issued, digest_of(secret))
    assert await authenticate(secret) == Caller("acme", "service", id=issued.id)


async def test_storage_that_does_not_answer_lets_nobody_in_who_is_not_just_known(clock: FixedClock) -> None:
    keys: Any = Away(is_away=False)
    authenticate = Authenticate(keys, clock)
    issued = await memory_administration(keys.store, clock).issue_api_key(ADMIN, role="admin")
    assert await authenticate(issued.secret) == replace(ADMIN, id=issued.id)
    keys.is_away = True
    assert await authenticate(issued.secret) == replace(ADMIN, id=issued.id)
    clock.advance(HALF_A_SECOND)
    with pytest.raises(StorageUnavailableError):
        await authenticate(issued.secret)
    with pytest.raises(StorageUnavailableError):
        await authenticate(new_secret())


@pytest.mark.parametrize("secret", ["", "tllm_", "tllm_" + "0" * 49, "sk-1", "x" * 100_000, "tllm_\0", "\ud800"])
async def test_a_malformed_secret_asks_the_storage_nothing(clock: FixedClock, secret: str) -> None:
    keys: Any = Away()
    with pytest.raises(UnauthenticatedError):
        await Authenticate(keys, clock)(secret)


async def test_only_keys_of_the_last_half_second_take_memory(clock: FixedClock) -> None:
    keys: ApiKeyRepository = MemoryApiKeyRepository(store := MemoryStore())
    administration, known = memory_administration(store, clock), dict[bytes, tuple[datetime, Caller]]()
    authenticate = Authenticate(keys, clock, known)
    for _ in range(20):
        issued = await administration.issue_api_key(ADMIN, role="service")
        await authenticate(issued.secret)
        with pytest.raises(UnauthenticatedError):
            await authenticate(new_secret())
        clock.advance(HALF_A_SECOND / 4)
    assert len(known) <= 4


# What keys keep apart


async def test_the_idempotency_key_of_one_user_repeats_nothing_of_another(bench: Bench) -> None:
    ada, bob = Caller("acme", "user", "ada"), Caller("acme", "user", "bob")
    turn = TextTurn("hi", idempotency=Idempotency("1", "POST /chat", "same"))
    first = await bench.send_message(ada, turn)
    second = await bench.send_message(bob, turn)
    again = await bench.send_message(ada, turn)
    assert (first.user_id, second.user_id) == ("ada", "bob")
    assert first.conversation_id != second.conversation_id
    assert again.response_id == first.response_id
