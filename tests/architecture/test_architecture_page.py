"""The page that a newcomer reads names what there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAY = re.findall(r"^\d+\. `(.+?)`", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)


def test_the_way_of_a_message_is_short_and_names_files_that_are_there() -> None:
    assert 0 < len(WAY) <= 12
    assert [file for file in WAY if not (ROOT / file).is_file()] == []
