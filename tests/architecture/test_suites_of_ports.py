"""`docs/adapters.md` names the suite of every port, so that whoever adds a port adds them both."""

import re
from pathlib import Path

from textllm_adapters import testing
from textllm_core import ports as ports_of_core

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
# The first column of the table of suites.
TABLE = "\n".join(line.split(" | ")[0] for line in PAGE.splitlines() if line.startswith("| `"))


def test_the_page_names_every_suite() -> None:
    assert [name for name in testing.__all__ if f"`{name}`" not in PAGE and name not in ("Say", "echo", "seen")] == []


def test_every_port_that_others_can_keep_has_a_suite() -> None:
    of_time_and_prices = {
        "Clock",
        "Prices",
    }  # they say what time it is, or what a price list has: there is nothing to hold
    ports = {path.stem for path in Path(ports_of_core.__file__).parent.glob("[a-z]*.py")}
    named = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in re.findall(r"`(\w+)`", TABLE)}
    assert ports - {name.lower() for name in of_time_and_prices} <= named | {"llm"}
