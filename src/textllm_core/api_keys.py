"""API keys: how a caller proves who it is, and how keys are made, listed and revoked."""

import re
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from string import ascii_letters, digits
from typing import Final

from msgspec import structs

from textllm_core.errors import InvalidRequestError, NotFoundError, UnauthenticatedError
from textllm_core.ids import checked_tenant_id, checked_user_id, new_id
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.ports.clock import Clock
from textllm_core.records.api_keys import ApiKey, ApiKeyPage, IssuedApiKey
from textllm_core.tenancy import Caller, Role
from textllm_core.texts import listing, refuse_half_characters

MAX_KEYS_PER_PAGE: Final = 100
MAX_NAME_CHARS: Final = 200
MAX_KEY_MODELS: Final = 100

_MODEL: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,200}")  # as the settings have it
_PREFIX: Final = "tllm_"
_BASE62: Final = digits + ascii_letters
_RANDOM_CHARS: Final = 43  # 256 bits
_CHECKSUM_CHARS: Final = 6  # 32 bits
_HINT_CHARS: Final = len(_PREFIX) + 4
_SECRET: Final = re.compile(rf"{_PREFIX}[0-9A-Za-z]{{{_RANDOM_CHARS + _CHECKSUM_CHARS}}}")
_REMEMBERED: Final = timedelta(seconds=0.5)


def new_secret() -> str:
    """`tllm_`, 43 random characters of base62 (256 bits), and the CRC-32 of all that in six more.

    Source: GitHub's tokens, whose checksum tells a mistyped one from an unknown one without a question to the database.
    """
    text = _PREFIX + "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_CHARS))
    return text + _checksum(text)


def is_secret(text: str) -> bool:
    """Whether a text has the form and the checksum of a secret."""
    is_of_form = _SECRET.fullmatch(text) is not None
    return is_of_form and text[-_CHECKSUM_CHARS:] == _checksum(text[:-_CHECKSUM_CHARS])


def digest_of(secret: str) -> bytes:
    """What is kept of a secret. It is random, so that a slow hash would protect it no better than a fast one."""
    return sha256(secret.encode()).digest()


def _checksum(text: str) -> str:
    number, characters = zlib.crc32(text.encode()), []
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, len(_BASE62))
        characters.append(_BASE62[digit])
    return "".join(characters)


@dataclass(frozen=True, slots=True)
class IssueApiKey:
    """Make a key for the caller's tenant; a tenant begins with its first key.

    Args:
        known_models: the names of models that there are; None: any may be one.
    """

    keys: ApiKeyRepository
    clock: Clock
    known_models: Sequence[str] | None = None

    async def __call__(
        self,
        caller: Caller,
        *,
        role: Role,
        user_id: str | None = None,
        name: str | None = None,
        models: Sequence[str] | None = None,
    ) -> IssuedApiKey:
        """The key with its secret, which nobody can find out later.

        Args:
            user_id: for the role `user`, whom it may act for.
            name: what its owner calls it, at most 200 characters.
            models: the names of the models that it may use, at most 100; None: all.
        Raises:
            ForbiddenError: the caller is no admin.
            InvalidRequestError: a malformed tenant, user or name; a user without the role `user`, or the other way;
                a model that there is not.
        """
        caller.must_be("admin")
        if (role == "user") != (user_id is not None):
            raise InvalidRequestError.of("user_id", "is required for a key of the role user, and no other takes it")
        refuse_half_characters(name=name)
        if name is not None and not 1 <= len(name) <= MAX_NAME_CHARS:
            raise InvalidRequestError.of("name", f"must have 1 to {MAX_NAME_CHARS} characters")
        if models is not None and not (
            1 <= len(models) <= MAX_KEY_MODELS and all(_MODEL.fullmatch(model) for model in models)
        ):
            raise InvalidRequestError.of("models", f"must be 1 to {MAX_KEY_MODELS} names of models")
        if models is not None and self.known_models is not None:
            for model in models:
                if model not in self.known_models:
                    there_are = listing(self.known_models)
                    raise InvalidRequestError.of("models", f"no model has the name {model!r}; there are: {there_are}")
        secret = new_secret()
        key = ApiKey(
            id=new_id("key"),
            tenant_id=checked_tenant_id(caller.tenant_id),
            role=role,
            user_id=None if user_id is None else checked_user_id(user_id),
            name=name,
            hint=secret[:_HINT_CHARS],
            created_at=self.clock.now(),
            models=None if models is None else tuple(dict.fromkeys(models)),
        )
        await self.keys.add(key, digest_of(secret))
        return IssuedApiKey(**structs.asdict(key), secret=secret)


@dataclass(frozen=True, slots=True)
class ListApiKeys:
    """The keys of the caller's tenant, revoked ones too."""

    keys: ApiKeyRepository

    async def __call__(self, caller: Caller, *, limit: int = MAX_KEYS_PER_PAGE, after: str | None = None) -> ApiKeyPage:
        """Newest first.

        Args:
            limit: 1 to 100.
            after: the last key of the page before.
        Raises:
            ForbiddenError: the caller is no admin.
            InvalidRequestError: a wrong `limit`, or `after` is no key of the tenant.
        """
        caller.must_be("admin")
        if not 1 <= limit <= MAX_KEYS_PER_PAGE:
            raise InvalidRequestError.of("limit", f"must be a whole number from 1 to {MAX_KEYS_PER_PAGE}")
        last = None
        if after is not None and (last := await self.keys.get(caller.tenant_id, after)) is None:
            raise InvalidRequestError.of("after", "must be the id of a key of this list")
        found = await self.keys.newest(caller.tenant_id, older_than=last, limit=limit + 1)
        return ApiKeyPage(found[:limit], has_more=len(found) > limit)


@dataclass(frozen=True, slots=True)
class RevokeApiKey:
    """End a key of the caller's tenant, be it the caller's own; every worker refuses it within a second."""

    keys: ApiKeyRepository
    clock: Clock

    async def __call__(self, caller: Caller, key_id: str) -> ApiKey:
        """The revoked key; the same again where it was revoked before.

        Raises:
            ForbiddenError: the caller is no admin.
            NotFoundError: not the tenant's, or unknown.
        """
        caller.must_be("admin")
        if (revoked := await self.keys.revoke(caller.tenant_id, key_id, at=self.clock.now())) is None:
            raise NotFoundError("No such key.")
        return revoked


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Who a secret stands for.

    The answer is remembered for half a second, so that a busy caller costs few questions and a revoked key ends soon.
    What stands for nobody is not remembered: there is no end of it.
    """

    keys: ApiKeyRepository
    clock: Clock
    _known: dict[bytes, tuple[datetime, Caller]] = field(default_factory=dict)  # oldest first

    async def __call__(self, secret: str) -> Caller:
        """
        Raises:
            UnauthenticatedError: malformed; or unknown or revoked, and no telling which.
            StorageUnavailableError: nobody can say now.
        """
        if not is_secret(secret):
            raise UnauthenticatedError.of_malformed()
        digest, asked_at = digest_of(secret), self.clock.now()
        if (known := self._known.get(digest)) is not None and self._is_fresh(known[0], asked_at):
            return known[1]
        if (caller := await self.keys.caller(digest)) is None:
            raise UnauthenticatedError.of_unknown()
        self._known.pop(digest, None)
        self._known[digest] = (asked_at, caller)
        while not self._is_fresh(self._known[oldest := next(iter(self._known))][0], asked_at):
            del self._known[oldest]
        return caller

    def _is_fresh(self, at: datetime, now: datetime) -> bool:
        return timedelta(0) <= now - at < _REMEMBERED  # a clock that was set back makes nothing younger


@dataclass(frozen=True, slots=True)
class AnyApiKey:
    """Whether there is a key in force, of any tenant: without one nobody can call."""

    keys: ApiKeyRepository

    async def __call__(self) -> bool:
        return await self.keys.is_any_in_force()
