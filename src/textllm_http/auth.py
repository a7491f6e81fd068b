"""Who sends a request."""

from typing import Any

from litestar import Request

from textllm_core.tenancy import Caller


def caller_of(request: Request[Any, Any, Any]) -> Caller:  # noqa: ARG001 - without keys all are the same
    """The caller: without authentication the tenant `default`."""
    return Caller()
