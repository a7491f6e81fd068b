"""Below `/v1` every failure has the shape of OpenAI's API, and says whether the request may be sent again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest
from tests.http.conftest import JSON, Answer, Server, serving
from tests.unit.conftest import Bench

from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    ConversationBusyError,
    ConversationLostError,
    IdempotencyMismatchError,
    InvalidRequestError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    StorageUnavailableError,
    TextLLMError,
    UnknownKeysError,
)
from textllm_core.records.messages import ReplyStarted
from textllm_core.records.models import ListedModel
from textllm_core.tenancy import Caller
from textllm_http.openai_door.charging import charged_user, named_user
from textllm_http.openai_door.errors import admitted_headers, document, headers
from textllm_http.problems import problem_of
from textllm_http.services import Models

TOMORROW = datetime.now(UTC) + timedelta(hours=5)


def spent(*, reserved: bool) -> BudgetExceededError:
    return BudgetExceededError(limit=Decimal(5), spent=Decimal(4), resets_at=TOMORROW, reserved=reserved)


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/nowhere", 404, "not_found"),
        ("POST", "/v1/models", 405, "invalid_request"),
        ("PATCH", "/v1/models/gpt-4o", 405, "invalid_request"),
        ("GET", "/v1/models/nobody", 404, "not_found"),
        ("POST", "/responses", 404, "not_found"),
        ("GET", "/models/gpt-4o", 404, "not_found"),
    ],
)
async def test_every_failure_has_openais_shape(
    server: Server, method: str, target: str, status: int, code: str
) -> None:
    answer = await server.call(method, target, headers=JSON)
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("target", ["/chat/completions", "/v1/v1/chat/completions", "/v1/embeddings"])
async def test_a_wrong_base_url_is_told_in_the_shape_that_clients_read(server: Server, target: str) -> None:
    answer = await server.post(target, {"model": "gpt-4o"})
    assert "A client's base URL ends in /v1 here" in answer.json()["error"]["message"]


async def test_another_method_is_told_which_there_are(server: Server) -> None:
    assert (await server.get("/chat")).json()["detail"] == "This address does not take this method; it takes POST."
    answer = await server.call("PATCH", "/v1/files/file-x", headers=JSON)
    assert answer.json()["error"]["message"].endswith("; it takes DELETE, GET.")


async def test_what_is_refused_before_any_route_has_it_too(bench: Bench) -> None:
    async with serving(bench, allowed_hosts=["api.example.org"]) as server:
        answer = await server.get("/v1/models")
        assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert (await server.get("/nowhere", {"host": "x"})).json()["code"] == "invalid_request"


async def test_who_has_no_key_is_told_so(bench: Bench) -> None:
    async with serving(bench, requires_keys=True) as server:
        answer = await server.get("/v1/models", {"authorization": "Bearer sk-mine"})
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["type"] == "authentication_error"


async def test_query_parameters_that_nobody_knows_are_ignored(server: Server) -> None:
    assert (await server.get("/v1/models?api-version=2026&include[]=x&api-version=1")).status == 200


async def test_one_model_is_told_by_its_name_however_many_slashes_it_has(bench: Bench) -> None:
    listed = ListedModel(
        id="openai/gpt-4o", owned_by="openai", is_default=True, price=None, reads_images=True, reads_files=True
    )
    async with serving(bench, models=Models(find={listed.id: listed}.get)) as server:
        answer = await server.get("/v1/models/openai/gpt-4o")
    assert (answer.status, answer.json()["id"]) == (200, "openai/gpt-4o")


def told(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    problem = problem_of(error, "req_1")
    return Answer(chunks=[document(problem)]).json()["error"], headers(problem)


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (ConversationBusyError(), "true"),
        (RateLimitedError(retry_after_s=6, limit=10), "true"),
        (StorageUnavailableError(), "true"),
        (ProviderUnavailableError("Busy.", may_have_run=False), "true"),
        (spent(reserved=True), "true"),
        (ProviderUnavailableError("It broke off."), "false"),  # the retry would be paid for, too
        (ProviderError("Nonsense."), "false"),
        (ProviderTimeoutError("Late."), "false"),
        (spent(reserved=False), "false"),
        (ConversationLostError(), "false"),
        (IdempotencyMismatchError(), "false"),
        (UnknownKeysError(retry_after_s=9), "false"),
        (RuntimeError("a secret"), "false"),
        (InvalidRequestError("No."), "false"),
    ],
)
def test_a_failure_says_whether_to_send_the_request_again(error: Exception, may_pass: str) -> None:
    assert told(error)[1]["x-should-retry"] == may_pass


def test_the_field_that_is_wrong_is_the_param() -> None:
    assert told(InvalidRequestError.of("input[0].content", "must not be empty"))[0]["param"] == "input[0].content"
    assert told(InvalidRequestError("Not JSON."))[0]["param"] is None


def test_what_nobody_foresaw_tells_the_request_id_alone() -> None:
    error, _ = told(RuntimeError("a secret"))
    assert error["type"] == "server_error"
    assert "req_1" in error["message"]
    assert "secret" not in error["message"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RateLimitedError(retry_after_s=6, limit=10), "rate_limit_error"),
        (spent(reserved=False), "insufficient_quota"),
        (ConversationBusyError(), "invalid_request_error"),
        (ProviderError("Nonsense."), "server_error"),
    ],
)
def test_its_type_is_one_of_openais(error: TextLLMError, kind: str) -> None:
    assert told(error)[0]["type"] == kind


def test_it_says_when_to_come_again_and_what_is_left() -> None:
    _, limited = told(RateLimitedError(retry_after_s=6, limit=10))
    assert limited["Retry-After"] == "6"
    assert limited["x-ratelimit-limit-requests"] == "10"
    assert limited["x-ratelimit-remaining-requests"] == "0"
    assert limited["x-ratelimit-reset-requests"] == "6s"
    assert 17_000 < int(told(spent(reserved=False))[1]["Retry-After"]) <= 18_000
    assert told(spent(reserved=True))[1]["Retry-After"] == "2"


def test_a_turn_that_is_admitted_says_what_is_left() -> None:
    started = ReplyStarted("resp_1", "conv_1", "ada", "sess_1", "gpt-4o", allowance=Allowance(10, 9, 6))
    assert admitted_headers(started) == {
        "RateLimit-Policy": '"turns";q=10;w=60',
        "RateLimit": '"turns";r=9;t=6',
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "6s",
    }


KEY, BOUND = Caller("acme", id="key_1"), Caller("acme", "user", user_id="ada", id="key_2")


@pytest.mark.parametrize(
    ("caller", "safety_identifier", "user", "charged"),
    [
        (BOUND, "bob", "carl", "ada"),
        (KEY, "bob", "carl", "bob"),
        (KEY, None, "carl", "carl"),
        (BOUND, "", "", "ada"),
        (KEY, None, None, "key_1"),
        (KEY, None, "ada@example.org", "ada@example.org"),
    ],
)
def test_who_is_charged(caller: Caller, safety_identifier: str | None, user: str | None, charged: str) -> None:
    assert charged_user(caller, safety_identifier=safety_identifier, user=user) == charged


@pytest.mark.parametrize("name", ["Ada Lovelace", "ädä", "x" * 256, "\ud800", "a/b"])
def test_a_name_that_is_no_user_id_stands_for_a_user_all_the_same(name: str) -> None:
    user = named_user(KEY, safety_identifier=name, user=None)
    assert user is not None
    assert user == KEY.acts_for(user) == named_user(KEY, safety_identifier=None, user=name)
    assert user != named_user(KEY, safety_identifier=f"{name}!", user=None)


async def test_the_sdk_heeds_them() -> None:
    """What is said of a retry is what OpenAI's SDK does."""
    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9/v1")
    for error in (ConversationBusyError(), ProviderTimeoutError("Late.")):
        problem = problem_of(error, "req_1")
        response = httpx2.Response(problem.status, headers=headers(problem))
        assert client._should_retry(response) == (headers(problem)["x-should-retry"] == "true")
