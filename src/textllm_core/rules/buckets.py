"""Token buckets in whole numbers, so that nothing is rounded: what the rate limiters count with.

A token has 60 million parts. As many parts flow into a bucket in a microsecond as tokens do in a minute, and after a
minute any bucket is full.
"""

from typing import Final

from textllm_core.errors import Allowance, RateLimitedError

TOKEN: Final = 60_000_000
FULL_AFTER_US: Final = 60_000_000  # a minute: limits are so many a minute
FORGOTTEN_AFTER_US: Final = 3_600_000_000  # long after it is full, so that who comes now and then has one to update


def refilled(level: int, *, per_minute: int, elapsed_us: int) -> int:
    """The level of a bucket that had `level` parts so long ago; no time has passed where a clock was set back."""
    return min(per_minute * TOKEN, level + per_minute * min(max(elapsed_us, 0), FULL_AFTER_US))


def taken(level: int) -> tuple[int, bool]:
    """The level of a bucket from which a token was asked, and whether there was one to take."""
    return (level - TOKEN, True) if level >= TOKEN else (level, False)


def given_back(level: int, *, per_minute: int) -> int:
    """The level of a bucket with `level` parts once a token was put back into it."""
    return min(per_minute * TOKEN, level + TOKEN)


def allowance(level: int, *, per_minute: int) -> Allowance:
    """What a bucket with `level` parts allows."""
    missing_us = -(-(per_minute * TOKEN - level) // per_minute)
    return Allowance(limit=per_minute, remaining=level // TOKEN, resets_in_s=-(-missing_us // 1_000_000))


def refusal(level: int, *, per_minute: int) -> RateLimitedError:
    """The refusal of a bucket with `level` parts, less than a token; it says how long to wait, rounded up."""
    missing_us = -(-(TOKEN - level) // per_minute)
    return RateLimitedError(retry_after_s=-(-missing_us // 1_000_000), limit=per_minute)
