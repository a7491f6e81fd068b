"""When OpenAI shuts its models down, as far as its SDK names a date."""

from collections.abc import Mapping
from datetime import date
from typing import Final

# Source: the model list of the openai package 3.54.
_LAST_DAYS: Final[Mapping[date, tuple[str, ...]]] = {
    date(2026, 10, 23): (
        "gpt-4.1-nano", "o4-mini", "o3-mini", "o1", "gpt-4-turbo", "gpt-4", "gpt-3.5-turbo",
    ),
    date(2026, 12, 11): ("gpt-5", "gpt-5-mini", "gpt-5-nano", "o3"),
    date(2027, 1, 14): ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"),
    date(2027, 4, 1): ("gpt-5.1", "gpt-5.4-nano"),
}  # fmt: skip
SHUTDOWNS: Final[Mapping[str, date]] = {model: day for day, models in _LAST_DAYS.items() for model in models}
