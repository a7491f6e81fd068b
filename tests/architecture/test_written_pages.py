"""The reference pages say what the code says."""

import pytest
from tests.architecture.written_pages import (
    DOCS,
    PAGES,
    errors_page,
    file_settings,
    own_variables,
    settings_page,
    shown_settings,
    shown_variables,
)

from textllm_core.problem_details import STATUS


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `python -m tests.architecture.written_pages`"


def test_every_error_of_the_core_is_shown_with_its_status() -> None:
    rows = [line.split(" | ") for line in errors_page().splitlines() if line.startswith("| [`")]
    shown = {name.strip("`") for _, _, names, _ in rows for name in names.split(", ")}
    assert {kind.__name__ for kind in STATUS} - shown == set()
    statuses = {row[0].split("`")[1]: row[1].strip("`") for row in rows}
    assert (statuses["budget_exceeded"], statuses["conversation_not_found"]) == ("402", "404")


def test_every_setting_and_every_variable_is_shown() -> None:
    page = settings_page()
    assert shown_settings(page) == file_settings()
    assert shown_variables(page) == own_variables()
