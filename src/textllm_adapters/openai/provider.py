"""What every way to a provider needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx2

from textllm_core.ports.tracer import Tracer

if TYPE_CHECKING:
    import ssl

CONNECT_TIMEOUT_S: Final = 5.0  # a lost packet is sent again after 1 and 3 s; who takes longer than both is down
MAX_CONNECTIONS: Final = 10_000  # one for each reply under way; beyond it calls wait, and none runs
KEEP_ALIVE_S: Final = 30.0  # load balancers drop idle connections unsaid, the strictest after about a minute


@dataclass(slots=True)
class Provider:
    """
    Args:
        api_key: ours; it may become another one, for the next call.
        url: up to and including `/v1`; `base_url`: the same as a text.
        key_header: which header the key goes in; of any other than Authorization, without `Bearer`.
        headers: of every call.
        silence_s: how long to wait for the next byte.
        proxy: through which all goes; None where there is none.
        tracer: knows which step a request is part of; the request says so.
    """

    api_key: str
    url: httpx2.URL
    base_url: str
    headers: Mapping[str, str]
    silence_s: float
    proxy: str | None
    tracer: Tracer
    key_header: str = "Authorization"
    _certificates: ssl.SSLContext | None = field(default=None, init=False)

    def credentials(self) -> dict[str, str]:
        """The header with the key."""
        is_bearer = self.key_header == "Authorization"
        return {self.key_header: f"Bearer {self.api_key}" if is_bearer else self.api_key}

    def certificates(self) -> ssl.SSLContext:
        """Whom to trust: read once for all ways, and not at all where nothing is encrypted."""
        if self._certificates is None:
            self._certificates = httpx2.create_ssl_context()
        return self._certificates
