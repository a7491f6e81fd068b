"""What models charge."""

from typing import Protocol

from textllm_core.money import Price


class Prices(Protocol):
    """A price list."""

    def price(self, model: str, *, service_tier: str | None = None) -> Price | None:
        """The price of `model` today, or None where the list has none: unknown is never free.

        Args:
            service_tier: as the provider reports it, e.g. "flex"; None and tiers without rates of their own mean the
                standard rates.
        """
        ...
