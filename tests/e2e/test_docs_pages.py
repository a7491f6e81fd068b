"""The pages of the documentation, in a browser that reaches nothing but the server."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from tests.e2e.conftest import Service, serving
from tests.servers.openai import OpenAIStandIn

pytestmark = pytest.mark.slow
PATIENCE_MS = 120_000.0
RESPONSES = '[data-section-id*="/operation/"] button[aria-expanded="false"]'
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(f"no browser found as {', '.join(NAMES)}; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # Names lead nowhere, so that whatever a page wants from elsewhere fails and is a console error.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(provider: OpenAIStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("docs")
    with serving(folder, provider, f"sqlite:///{folder}/textllm.db", TEXTLLM_AUTH="required") as service:
        yield service


class Visit:
    """A page, what went wrong on it, and where it went."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.faults: list[str] = []
        self.asked_for: set[str] = set()
        self.page: Page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.asked_for.add(request.url))
        self.page.goto(url)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.faults.append(said.text)


def operation_count(service: Service) -> int:
    paths = json.loads(service.get("/openapi.json").text)["paths"]
    return sum(len(operations) for operations in paths.values())


def test_swagger_ui_opens_every_operation_without_the_internet(
    served: Service, browser: Browser, tmp_path: Path
) -> None:
    visit = Visit(browser, f"{served.url}/docs")
    page, count = visit.page, operation_count(served)
    blocks = page.locator(".opblock")
    blocks.nth(count - 1).wait_for()
    assert blocks.count() == count
    opened = page.locator(".opblock.is-open .responses-table")
    for index in range(count):  # one at a time: all of them at once take a browser minutes
        toggle = blocks.nth(index).locator(".opblock-summary-control")
        toggle.evaluate("control => control.click()")
        expect(opened).to_have_count(1, timeout=PATIENCE_MS)
        if index < count - 1:
            toggle.evaluate("control => control.click()")
            expect(opened).to_have_count(0, timeout=PATIENCE_MS)
    assert page.get_by_text("Resolver error").count() == 0
    page.screenshot(path=tmp_path / "docs.png")
    assert visit.faults == []
    assert {url for url in visit.asked_for if not url.startswith((served.url, "data:", "blob:"))} == set()


def test_redoc_shows_every_operation_without_the_internet(served: Service, browser: Browser, tmp_path: Path) -> None:
    visit = Visit(browser, f"{served.url}/redoc")
    page, count = visit.page, operation_count(served)
    sections = page.locator('[data-section-id*="/operation/"]')
    sections.nth(count - 1).wait_for(state="attached")
    assert sections.count() == count
    page.evaluate(f"document.querySelectorAll(`{RESPONSES}`).forEach(button => button.click())")
    expect(page.locator(RESPONSES)).to_have_count(0, timeout=PATIENCE_MS)
    page.screenshot(path=tmp_path / "redoc.png")
    assert visit.faults == []
    assert {url for url in visit.asked_for if not url.startswith((served.url, "data:", "blob:"))} == set()
