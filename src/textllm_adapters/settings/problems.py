"""What is wrong with the settings: one problem, all of them as an error, and the report they are gathered in."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple, TypeAlias

import msgspec

from textllm_core.errors import ConfigurationError

MAX_PROBLEMS = 100


class Problem(msgspec.Struct, frozen=True):
    """One setting that cannot be used. `found` names a kind of value: the value may be a misplaced secret."""

    path: str  # such as "config.yaml: pricing.input_per_1k" or "environment: TEXTLLM_MODEL"
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}"


class SettingsError(ConfigurationError):
    """Settings that cannot be used; `problems` are all of them, or the first hundred, as they were read."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = "1 setting cannot" if len(problems) == 1 else f"{len(problems)} settings cannot"
        lines = [f"{count} be used:", *(f"  {problem}" for problem in problems)]
        super().__init__(
            "\n".join(lines) + "\nNothing was started. `textllm config check` reads them again; "
            "`textllm config show` then prints the values in force."
        )
        self.problems = problems


Report: TypeAlias = list[tuple[str, Problem]]  # what is wrong so far, each with the setting that it is about


class Place(NamedTuple):
    """Where something stands in a source, as people read it, and the setting it is about, such as `logging.level`."""

    report: Report
    shown: str
    key: str = ""

    def child(self, name: str) -> "Place":
        # Long or odd names are not repeated: they may be something else than a name.
        shown = name if re.fullmatch(r"[\w./:@-]{1,32}", name) else f"(a name of {len(name)} characters)"
        return self._within(name, shown)

    def known(self, name: str) -> "Place":
        """As `child`, for a name that is one of ours."""
        return self._within(name, name)

    def _within(self, name: str, shown: str) -> "Place":
        if self.shown:
            shown = f"{self.shown}{'.' if self.key else ': '}{shown}"
        return Place(self.report, shown, f"{self.key}.{name}" if self.key else name)

    def item(self, index: int) -> "Place":
        return Place(self.report, f"{self.shown}[{index}]", self.key)

    def refuse(self, found: str, expected: str) -> msgspec.UnsetType:
        """Report a problem; UNSET stands for the value that could not be used.

        Raises:
            SettingsError: there are too many; nothing more is worth reading before some of them are mended.
        """
        if len(self.report) == MAX_PROBLEMS:
            source = self.shown.split(":")[0]
            rest = Problem(source, f"more than {MAX_PROBLEMS} problems", "these mended first: the rest was not read")
            raise SettingsError((*(problem for _, problem in self.report), rest))
        self.report.append((self.key, Problem(self.shown, found, expected)))
        return msgspec.UNSET

    def refuse_name(self, name: str, known: Iterable[str], otherwise: str) -> None:
        """Report an unknown name, with the known one it is closest to; without one, `otherwise` says what to write."""
        names = {name.lower().removeprefix("textllm_"): name for name in known}
        close = get_close_matches(name.lower().removeprefix("textllm_"), names, n=1)
        self.refuse("an unknown name", f"a known one; did you mean {names[close[0]]}?" if close else otherwise)
