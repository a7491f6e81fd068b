"""The pages of the documentation, in a browser that reaches nothing but the server.

The browser is Chromium or Chrome, taken from the path; without one these tests fail and say how to install it.
"""

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright
from tests.e2e.conftest import Service, serving
from tests.e2e.test_keys import bearer, keys
from tests.servers.openai import OpenAIStandIn

pytestmark = pytest.mark.slow
PATIENCE_MS = 120_000.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # Names lead nowhere, so that whatever a page wants from elsewhere fails and is a console error.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Swagger UI looks for it where a form takes several files, and says so, though it shows a field for files all the same.
KNOWN = "Could not find component: JsonSchema_string_binary"
RESPONSES = '[data-section-id*="/operation/"] button:has(> strong)'
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(f"no browser found as {', '.join(NAMES)}; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:  # each launch has a new, empty folder for what the browser keeps
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def database(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp('docs'))}"


@pytest.fixture(scope="module")
def served(provider: OpenAIStandIn, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("served"), provider, database, TEXTLLM_AUTH="required") as service:
        yield service


@pytest.fixture(scope="module")
def operations(served: Service) -> Mapping[str, Any]:
    """The operations of the service, by their ids."""
    paths = json.loads(served.get("/openapi.json").text)["paths"]
    return {each["operationId"]: each for operations in paths.values() for each in operations.values()}


class Visit:
    """A page, what went wrong on it, and where it went."""

    def __init__(self, browser: Browser, served: Service, path: str) -> None:
        self._faults: list[str] = []
        self._home = served.url
        self.page: Page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._faults.append(str(error)))
        self.page.on("requestfailed", lambda request: self._faults.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self._follow(request.url))
        self.page.goto(f"{served.url}{path}")

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning") and said.text != KNOWN:
            self._faults.append(said.text)

    def _follow(self, url: str) -> None:
        if not url.startswith((f"{self._home}/", "data:", "blob:")):
            self._faults.append(f"left: {url}")

    def end(self, screenshot: Path) -> None:
        """Nothing may have gone wrong up to here."""
        self.page.screenshot(path=screenshot)
        assert self._faults == []
        self.page.close()


def block_of(page: Page, operation_id: str) -> Locator:
    """An operation on the page of Swagger UI."""
    return page.locator(f'.opblock[id$="-{operation_id}"]')


def toggle(block: Locator) -> None:
    block.locator(".opblock-summary-control").evaluate("control => control.click()")


def statuses_in(rows: Locator) -> set[str]:
    statuses: list[str] = rows.evaluate_all("rows => rows.map(row => row.dataset.code)")
    return set(statuses)


def test_swagger_ui_opens_every_operation_without_the_internet(
    served: Service, browser: Browser, operations: Mapping[str, Any], tmp_path: Path
) -> None:
    visit = Visit(browser, served, "/docs")
    page = visit.page
    blocks = page.locator(".opblock")
    expect(blocks).to_have_count(len(operations), timeout=PATIENCE_MS)
    page.screenshot(path=tmp_path / "docs.png", full_page=True)
    for operation_id, operation in operations.items():  # one at a time: all of them at once take a browser minutes
        block = block_of(page, operation_id)
        toggle(block)
        block.locator(".responses-table").first.wait_for()
        assert statuses_in(block.locator("tr.response")) == operation["responses"].keys(), operation_id
        parameters = block.locator(".parameters-container tr[data-param-name]")
        assert parameters.count() == len(operation["parameters"]), operation_id
        expect(block.locator(".opblock-section-request-body")).to_have_count(int("requestBody" in operation))
        toggle(block)
        expect(block.locator(".responses-table")).to_have_count(0, timeout=PATIENCE_MS)
    assert page.get_by_text("Resolver error").count() == 0
    toggle(blocks.first)
    blocks.first.locator(".responses-table").first.scroll_into_view_if_needed()
    visit.end(tmp_path / "docs-expanded.png")


def test_requests_are_made_on_the_page_of_swagger_ui(
    served: Service, browser: Browser, database: str, tmp_path: Path
) -> None:
    secret = keys(served, database, "create", "--role", "service")["secret"]
    upload = httpx.post(
        f"{served.url}/files/upload", headers=bearer(secret), files={"file": ("a.txt", b"kept")}, timeout=30
    )
    visit = Visit(browser, served, "/docs")
    page = visit.page
    page.locator("button.authorize").first.click()
    page.locator(".auth-container input").fill(secret)
    page.locator(".auth-btn-wrapper button.authorize").click()
    page.locator(".btn-done").click()

    def answer_to(operation_id: str, **fields: str) -> Locator:
        """What the page shows after `Execute`, all other fields being as it fills them in."""
        block = block_of(page, operation_id)
        toggle(block)
        for name, value in fields.items():
            block.get_by_placeholder(name, exact=True).fill(value)
        return executed(block)

    def executed(block: Locator) -> Locator:
        block.locator("button.execute").click()
        answer = block.locator(".live-responses-table tr.response")
        expect(answer.locator(".response-col_status")).to_have_text("200", timeout=PATIENCE_MS)
        return answer

    expect(answer_to("get_conversations")).to_contain_text('"total": 0')
    expect(answer_to("get_files_key_content", key=upload.json()["key"])).to_contain_text("content-length: 4")
    expect(answer_to("post_chat")).to_contain_text('"user_id": "ada"')
    form = block_of(page, "post_chat_image")
    toggle(form)
    form.locator('[data-property-name="message"] input').fill("What is it?")
    form.locator("input[type=file]").set_input_files({"name": "dot.png", "mimeType": "image/png", "buffer": PIXEL})
    expect(executed(form)).to_contain_text('"image_count": 1')
    visit.end(tmp_path / "docs-tried.png")


def test_redoc_shows_every_operation_without_the_internet(
    served: Service, browser: Browser, operations: Mapping[str, Any], tmp_path: Path
) -> None:
    visit = Visit(browser, served, "/redoc")
    page = visit.page
    sections = page.locator('[data-section-id*="/operation/"]')
    expect(sections).to_have_count(len(operations), timeout=PATIENCE_MS)
    page.screenshot(path=tmp_path / "redoc.png")
    page.evaluate(f"document.querySelectorAll(`{RESPONSES}`).forEach(button => button.click())")
    expect(page.locator(f"{RESPONSES}:only-child")).to_have_count(0, timeout=PATIENCE_MS)  # what it tells comes behind
    for operation_id, operation in operations.items():
        section = page.locator(f'[data-section-id$="/operation/{operation_id}"]')
        expect(section.locator("h2")).to_contain_text(operation["summary"])
        told = section.locator("button > strong").all_inner_texts()
        assert {status.strip() for status in told} == operation["responses"].keys(), operation_id
    page.locator(RESPONSES).first.scroll_into_view_if_needed()
    visit.end(tmp_path / "redoc-expanded.png")
