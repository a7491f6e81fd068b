"""How a model chooses among the words that it might say, beside its temperature."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from textllm_core.wire import Record

Verbosity: TypeAlias = Literal["low", "medium", "high"]


class Sampling(Record, frozen=True, kw_only=True):
    """What not every API takes: a provider that lacks one of them refuses the turn, by its name. None: its default.

    Args:
        top_p: the share of the likely words that is chosen from, 0 to 1.
        frequency_penalty, presence_penalty: -2 to 2; above 0 words that were said are said less.
        seed: with the same one the model tries to say the same again.
        stop: up to 4 texts, each of which ends the reply where the model would say it.
        verbosity: how much it is to say.
    """

    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: Sequence[str] | None = None
    verbosity: Verbosity | None = None

    @property
    def chosen(self) -> dict[str, object]:
        """Those that are not left to the provider, by their names."""
        each = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in each if value is not None}
