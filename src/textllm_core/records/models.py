"""Models that can be asked, as they are listed."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from textllm_core.money import Price
from textllm_core.wire import Record


class ModelPrice(Record, frozen=True, kw_only=True):
    """What a model charges, in USD for a million tokens; longer inputs may cost more."""

    input: Annotated[Decimal, Meta(description="USD for a million tokens that it reads.")]
    output: Annotated[Decimal, Meta(description="USD for a million tokens that it writes.")]
    cached_input: Annotated[Decimal, Meta(description="USD for a million of those that the provider had in its cache.")]

    @classmethod
    def of(cls, *prices: Price) -> "ModelPrice":
        """Of several, the most that each of them charges."""
        rates = [price.rates for price in prices]
        return cls(
            input=max(each.input for each in rates),
            output=max(each.output for each in rates),
            cached_input=max(each.cached_input for each in rates),
        )


class ListedModel(Record, frozen=True, kw_only=True):
    """A model, in the shape that OpenAI's API gives it, with what it costs and can read beside that."""

    id: Annotated[str, Meta(description="Its id.")]
    object: Annotated[Literal["model"], Meta(description="Always `model`.")] = "model"
    created: Annotated[int, Meta(description="Always 0: nobody says when it was made.")] = 0
    owned_by: Annotated[str, Meta(description="Where it runs: `openai`, `embedded`, or the name of a provider.")]
    is_default: Annotated[bool, Meta(description="Whether it answers where no model is named.")]
    price: Annotated[ModelPrice | None, Meta(description="What it costs; null: nobody knows, and it is refused.")]
    reads_images: Annotated[bool, Meta(description="Whether it may be sent images.")]
    reads_files: Annotated[bool, Meta(description="Whether a PDF is sent to it as it is; else its text is.")]


class ModelList(Record, frozen=True, kw_only=True):
    """All models that the settings name."""

    object: Annotated[Literal["list"], Meta(description="Always `list`.")] = "list"
    data: Annotated[Sequence[ListedModel], Meta(description="What was asked for, in order.")] = ()


class ProviderFound(Record, frozen=True, kw_only=True):
    """What one provider said.

    Args:
        is_well: it answers, takes the key, and has the models that the settings name.
        notes: sentences for an operator.
        contexts: in tokens, of the models that the settings name, where it tells them.
    """

    name: str
    is_well: bool
    notes: Sequence[str] = ()
    contexts: Mapping[str, int] = {}
