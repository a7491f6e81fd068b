"""What a turn's admission says in headers: its idempotency key, and the user's rate limit."""

import hashlib
from typing import Any

from litestar import Request

from textllm_core.errors import Allowance, TextLLMError
from textllm_core.records.messages import Idempotency, ReplyStarted


def has_key(request: Request[Any, Any, Any]) -> bool:
    """Whether it has an `Idempotency-Key`, for whoever has to work for what `idempotency_of` needs."""
    return b"idempotency-key" in [name for name, _ in request.scope["headers"]]


def idempotency_of(request: Request[Any, Any, Any], canonical_body: bytes) -> Idempotency | None:
    """The request's `Idempotency-Key`, which counts for its route alone.

    Args:
        canonical_body: the same for two bodies that ask for the same.
    Raises:
        InvalidRequestError: it is malformed, or given twice.
    """
    keys = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not keys:
        return None
    scope = f"{request.scope['method']} {request.scope['path']}"
    return Idempotency(keys[0] if len(keys) == 1 else "", scope, hashlib.sha256(canonical_body).hexdigest())


def headers_of(admitted: ReplyStarted | TextLLMError) -> dict[str, str]:
    """The headers of a turn that was admitted, or refused after it had been counted.

    Source: draft-ietf-httpapi-ratelimit-headers; Idempotent-Replayed as Stripe has it.
    """
    headers = {} if admitted.allowance is None else rate_limit_headers(admitted.allowance)
    return headers | {"Idempotent-Replayed": "true"} if admitted.is_replayed else headers


def rate_limit_headers(allowance: Allowance) -> dict[str, str]:
    """The policy, and what is left of it."""
    return {
        "RateLimit-Policy": f'"turns";q={allowance.limit};w=60',
        "RateLimit": f'"turns";r={allowance.remaining};t={allowance.resets_in_s}',
    }
