"""What a reply costs, and by whose word."""

from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.remains import Remains
from textllm_core.errors import InvalidRequestError
from textllm_core.money import Price, exact
from textllm_core.pricing import Pricing
from textllm_core.records.ledger import Hold
from textllm_core.records.model import ModelEnded

_BY_PROVIDER: Final = "provider"


def price_of(pricing: Pricing, hold: Hold, model: str, ended: ModelEnded | None) -> Price:
    """The price of the model that has answered, as it names itself."""
    tier = ended.service_tier if ended else None
    try:
        return replace(pricing.price(hold.model, reported=model, service_tier=tier), calls=hold.price.calls)
    except InvalidRequestError:  # since it was admitted, its price has gone from the lists
        return hold.price


def cost_of(price: Price, left: Remains, stated: Decimal | None) -> tuple[Decimal, str]:
    """USD, and who says so: the provider itself, where it is trusted with that."""
    return (price.cost(left.usage), price.source) if stated is None else (exact(stated), _BY_PROVIDER)
