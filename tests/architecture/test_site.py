"""The site of the documentation has every page and every name, and is built without the internet."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import textllm_core
from textllm_adapters import settings, testing, wiring

ROOT = Path(__file__).parents[2]
PAGES = {
    *ROOT.glob("docs/**/*.md"),
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
}
COMMAND = re.search(r"^\.venv/bin/(sphinx-build .*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
NOBODY = "http://127.0.0.1:9"
# What a page fetches by itself. Where links lead is another thing: they are for who has the internet.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//|url\(["']?(?:https?:)?//"""
)


def test_every_page_is_in_the_navigation() -> None:
    index = ROOT / "docs" / "index.md"
    trees = re.findall(r"```{toctree}\n(.*?)```", index.read_text(), re.DOTALL)
    lines = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    named = [index.parent / (re.sub(r".*<(.*)>", r"\1", line) + ".md") for line in lines]
    assert sorted(path.resolve() for path in named) == sorted(PAGES - {index})


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    assert COMMAND is not None
    program, *arguments, target = COMMAND[1].split()
    assert target == "build/docs"
    built = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments, tmp_path],
        cwd=ROOT,
        env={
            "PATH": "",
            "https_proxy": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        },  # nobody listens there
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (built.returncode, built.stderr) == (0, "")  # a link that leads nowhere is a warning, and so an error
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert pages.keys() >= {page.relative_to(ROOT).with_suffix(".html").as_posix() for page in PAGES}
    assert [name for name, page in pages.items() if FETCHED.search(page)] == []
    assert [path.name for path in tmp_path.rglob("*.css") if FETCHED.search(path.read_text())] == []
    reference = "".join(page for name, page in pages.items() if name.startswith("docs/reference/"))
    for module in (textllm_core, wiring, settings, testing):
        missing = [name for name in module.__all__ if f'id="{module.__name__}.{name}"' not in reference]
        assert set(missing) <= ({"Settings", "load_settings"} if module is wiring else set())  # they are in `settings`
