"""Prices that someone wrote down."""

from collections.abc import Mapping
from dataclasses import dataclass

from textllm_core.money import Price


@dataclass(frozen=True, slots=True)
class FixedPrices:
    """`Prices` by model; every tier has the standard rates."""

    prices: Mapping[str, Price]

    def price(self, model: str, *, service_tier: str | None = None) -> Price | None:  # noqa: ARG002 - one tier for all
        return self.prices.get(model)
