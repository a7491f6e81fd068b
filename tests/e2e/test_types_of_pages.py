"""Whoever copies a program from a page has no complaint of a strict type checker."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("library", "adapters", "embedding", "tools"))]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every program of the pages, under the name that its page gives it; without Django's, which states no types."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        programs = re.findall(r"(?:as `([\w.]+)`[^\n]*:\n\n)?```python\n(.*?)```", page.read_text(), re.DOTALL)
        for number, (name, program) in enumerate(programs):
            if "from django" not in program:
                (folder / (name or f"{page.stem.lower()}_{number}.py")).write_text(program)
    assert len(list(folder.iterdir())) >= 12
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    return folder


@pytest.mark.parametrize(
    ("checker", "arguments"),
    [
        # The half of a minute that it takes for all that is imported is not paid with each run.
        pytest.param("mypy", ["--strict", "--no-incremental", "."], marks=pytest.mark.slow),
        ("basedpyright", ["--level", "error", "--pythonpath", sys.executable]),  # pyright, with a Node of its own
    ],
)
def test_strict_type_checkers_have_no_complaint(folder: Path, checker: str, arguments: list[str]) -> None:
    ran = subprocess.run(
        [BIN / checker, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.returncode == 0, ran.stdout
