"""Which price counts: the operator's, then the price table's; a model without one is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from textllm_core.errors import InvalidRequestError
from textllm_core.money import ZERO, Price, Rates
from textllm_core.ports.prices import Prices

FREE = Price(rates=Rates.of(ZERO, ZERO), source="free")


@dataclass(frozen=True, slots=True)
class Pricing:
    """The operator's decisions about prices.

    Args:
        stated: by model, what the operator says that it charges.
        patterns: the same for all models whose names begin so; the longest beginning counts.
        table: what is known of all other models.
        unpriced_is_free: let models without a price answer at no cost.
        only_model: the one that answers, where no other can be asked; None: any may be.
    """

    stated: Mapping[str, Price]
    table: Prices
    unpriced_is_free: bool = False
    patterns: Mapping[str, Price] = field(default_factory=dict)
    only_model: str | None = None

    def price(self, asked: str, *, reported: str | None = None, service_tier: str | None = None) -> Price:
        """The price of a reply, by the model that was asked for and the one that the provider says has answered.

        Raises:
            InvalidRequestError: nobody knows what the model costs.
        """
        names = (asked,) if reported is None else (asked, reported)
        for name in names:
            if (price := self.stated.get(name)) is not None:
                return price
        for name in names if self.patterns else ():
            beginnings = [beginning for beginning in self.patterns if name.startswith(beginning)]
            if beginnings:
                return self.patterns[max(beginnings, key=len)]
        for name in reversed(names):
            if (price := self.table.price(name, service_tier=service_tier)) is not None:
                return price
        if self.unpriced_is_free:
            return FREE
        if self.only_model is not None:
            raise InvalidRequestError.of(
                "model",
                f"{asked[:100]!r} cannot be used here: the embedded model alone answers, {self.only_model}; leave "
                "model out, or name that one. For others the operator sets OPENAI_API_KEY or providers",
            )
        raise InvalidRequestError.of(
            "model",
            f"{asked[:100]!r} cannot be used here: no price is known for it; the list of models (/v1/models) has those "
            "that can. The operator can state one (the settings prices and unpriced)",
        )
