"""Every file can be read at one go."""

from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
MOST_LINES = 400


def test_no_file_is_too_long_to_be_read_at_one_go() -> None:
    lines = {str(path.relative_to(SOURCES)): len(path.read_text().splitlines()) for path in SOURCES.rglob("*.py")}
    assert len(lines) > 200
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}
