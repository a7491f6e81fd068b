"""How many turns a user may start in a minute."""

from typing import Protocol

from textllm_core.errors import Allowance


class RateLimiter(Protocol):
    """Token buckets shared by every worker of the service. A bucket never seen is full.

    `user_id` is who is charged: a user, or whoever stands in for users whom nobody named.

    Concurrent takes act as if made one by one, by the clock of the store that keeps the buckets.
    Source: token bucket of RFC 2215 (rate r, depth b).
    """

    async def forget(self, *, limit: int) -> int:
        """Remove at most `limit` buckets from which nobody has taken for an hour; how many there were.

        They are full, as one never seen is: nobody notices.
        Raises:
            StorageUnavailableError: the next run does it.
        """
        ...

    async def take(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        """Spend one token from the user's bucket, which holds `per_minute` and is filled at that rate; or refuse.

        Returns what is left in whole tokens, and the seconds, rounded up, until the bucket is full again.

        Raises:
            RateLimitedError: less than one token is left, and none was spent; the same call passes after
                `retry_after_s` seconds if no other comes before it.
            StorageUnavailableError: the bucket could not be read; nothing was spent.
        """
        ...

    async def give_back(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        """Put the token of an earlier take back; the bucket never holds more than `per_minute`. What is left then.

        Raises:
            StorageUnavailableError: the bucket could not be reached; the token may be back or not.
        """
        ...
