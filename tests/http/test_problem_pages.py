"""Every problem leads to a page that says what happened and what to do."""

import pytest
from tests.http.conftest import Server, serving
from tests.unit.conftest import Bench

from textllm_core.problem_details import STATUS
from textllm_http.problem_pages import EXPLAINED

CODES = {kind.code for kind in STATUS} | {"internal_error"}


def test_every_code_is_explained_and_nothing_else() -> None:
    assert EXPLAINED.keys() == CODES
    assert all(happened.endswith(".") and to_do.endswith(".") for happened, to_do in EXPLAINED.values())


async def test_the_type_of_a_problem_is_the_address_of_a_page_for_everyone(bench: Bench) -> None:
    async with serving(bench, requires_keys=True) as server:
        problem = (await server.get("/config")).json()
        assert problem["type"] == "/problems/unauthenticated"
        page = await server.get(problem["type"])
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<h1>Unauthenticated</h1>" in page.body.decode()
        assert "<code>Authorization: Bearer tllm_…</code>" in page.body.decode()
        assert (await server.call("HEAD", problem["type"])).status == 200


@pytest.mark.parametrize("code", EXPLAINED)
async def test_a_page_needs_nothing_from_elsewhere(server: Server, code: str) -> None:
    page = (await server.get(f"/problems/{code}")).body.decode()
    assert page.count("<p>") == 4
    assert not any(word in page for word in ("src=", "http:", "https:", "<script", "<style", "`"))


@pytest.mark.parametrize("code", ["nothing", "INVALID_REQUEST", "..%2fdocs", "%00"])
async def test_there_is_no_page_of_a_problem_that_there_is_not(server: Server, code: str) -> None:
    assert (await server.get(f"/problems/{code}")).json()["code"] == "not_found"


async def test_the_address_of_the_service_leads_to_its_documentation(bench: Bench) -> None:
    async with serving(bench, requires_keys=True) as server:
        answer = await server.get("/")
        assert (answer.status, answer.headers["location"], answer.body) == (307, "/docs", b"")
        assert (await server.get(answer.headers["location"])).status == 200
