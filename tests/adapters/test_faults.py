"""What servers say of a failure, in their own words and shapes, and what it means: one table."""

import math
import time
from typing import Any

import pytest

from textllm_adapters.openai.errors import Asked, refusal, retry_after
from textllm_adapters.openai.faults import Meaning, fault_of
from textllm_core.errors import ProviderUnavailableError

THROTTLED = "Too many tokens, please wait before trying again."

MEANINGS: list[tuple[Meaning, int | None, Any]] = [
    ("too_long", 400, {"code": 20015, "message": "length of prompt_tokens (9000) must be less than max_seq_len (8)."}),
    ("too_long", 400, {"message": "the number of input tokens 5000 cannot exceed the total tokens limit 4096"}),
    ("too_long", 400, {"error_code": "BAD_REQUEST", "message": "Prompt token count (5000) cannot exceed 4096."}),
    ("too_long", 400, {"error": {"message": "Prompt length (5000) exceeds maximum input length (4096)"}}),
    ("too_long", 500, {"error": "default_max_tokens (-5) = max_seq_len (4096) - prompt_len (4101)"}),
    ("too_long", 400, {"error": {"code": "1261", "message": "Prompt 超长"}}),
    ("too_long", 400, {"error": {"message": "Input tokens exceed the configured limit of 272000 tokens."}}),
    ("too_long", 400, {"error": {"message": "max_total_tokens exceeded: prompt has 9000 tokens"}}),
    ("too_long", 400, {"error": {"message": "The number of tokens in the prompt exceeds the limit of 4096"}}),
    ("too_long", None, {"error": {"code": "context_length_exceeded", "details": {"code": 429}}}),
    ("rate", None, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
    ("quota", None, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    ("filtered", None, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}),
    ("filtered", 400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
    ("rate", None, {"error": {"type": "ThrottlingException", "message": THROTTLED}}),
    ("rate", None, {"error": {"message": f"ThrottlingException: {THROTTLED}"}}),
    ("rate", None, {"error": {"statusCode": 429, "message": "slow"}}),
    ("rate", None, {"error": {"http_status": 429, "message": "slow"}}),
    ("rate", None, {"errors": [{"code": 429, "message": "slow"}]}),
    ("rate", None, {"errors": [{"status": "429", "title": "slow"}]}),
    ("rate", None, {"detail": {"error": {"code": 429, "message": "slow"}}}),
    ("rate", None, {"error": {"message": "slow", "details": {"code": 429}}}),
    ("rate", None, {"error": {"message": "Error code: 429 - {'error': {'message': 'slow'}}"}}),
    ("rate", None, {"error": "HTTP 429"}),
    ("rate", None, {"code": 8, "message": "slow", "status": "RESOURCE_EXHAUSTED"}),
    ("unavailable", None, {"error": {"code": 14, "status": "UNAVAILABLE"}}),
    ("unavailable", None, {"error": {"type": "api_error", "message": "Internal server error"}}),
    ("unavailable", None, {"error": "Service Unavailable"}),
    ("unavailable", None, {"error": {"type": "ServiceUnavailableException", "message": "no"}}),
    ("unavailable", None, {"error": "overloaded"}),
    ("unavailable", None, {"error": "Model is overloaded", "error_type": "overloaded"}),
    ("unavailable", None, {"error": "Engine is currently overloaded, please try again later"}),
    ("unavailable", None, {"error": "Model too busy, unable to get response in less than 60 second(s)"}),
    ("unavailable", None, {"error": {"message": "The model is overloaded."}}),
    ("key", None, {"error": "invalid_api_key"}),
    ("model", None, {"error": "model_not_found"}),
    ("quota", None, {"error_code": 17, "error_msg": "Open api daily request limit reached"}),
    ("rate", None, {"error_code": 18, "error_msg": "Open api qps request limit reached"}),
    ("rate", None, {"error_code": 336501, "error_msg": "Rate limit reached for RPM"}),
    ("key", None, {"error_code": 110, "error_msg": "Access token invalid or no longer valid"}),
    ("too_long", None, {"error_code": 336103, "error_msg": "Prompt tokens too long"}),
    ("too_long", None, {"error_code": 336007, "error_msg": "the max length of current question is 4800"}),
    ("filtered", None, {"error_code": 336104, "error_msg": "User input illegal, content unsafe"}),
    ("unavailable", None, {"error_code": 336000, "error_msg": "Internal error"}),
    ("unavailable", None, {"error_code": 336100, "error_msg": "Try again later"}),
    ("other", None, {"error_code": 336003, "error_msg": "the length of messages must be an odd number"}),
    ("rate", None, {"error_code": "ModelArts.81101", "error_msg": "Too many requests."}),
    ("key", None, {"base_resp": {"status_code": 1004, "status_msg": "login fail: Please carry the API secret key"}}),
    ("unavailable", None, {"base_resp": {"status_code": 1013, "status_msg": "internal service error"}}),
    ("rate", None, {"Response": {"Error": {"Code": "LimitExceeded", "Message": "no"}, "RequestId": "r-1"}}),
    ("key", None, {"Response": {"Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "no"}}}),
    ("rate", None, {"ErrorMsg": {"Msg": "Too many requests", "Code": 4001}}),
    ("rate", None, {"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded", "request_id": "a"}),
    ("key", None, {"code": "InvalidApiKey", "message": "no"}),
    ("filtered", None, {"code": "DataInspectionFailed", "message": "no"}),
    ("model", 404, {"code": "ModelNotFound", "message": "Model can not be found."}),
    ("rate", None, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高"}}),
    ("quota", 429, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试"}}),
    ("quota", 429, {"error": {"code": "1113", "message": "Your account is in arrears, please recharge and try again"}}),
    ("quota", 429, {"error": "Your team has either used all available credits or reached its monthly spending limit."}),
    ("quota", 403, {"error": "Your newly created team doesn't have any credits yet."}),
    ("unavailable", 498, {"error": {"message": "Flex tier capacity exceeded", "type": "capacity_exceeded"}}),
    ("unavailable", 498, None),
    ("unavailable", 424, {"error": "Model is not ready"}),
    ("key", None, {"error": {"code": "1000", "message": "身份验证失败"}}),
    ("model", 400, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码"}}),
    ("key", None, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}], "result": None}),
    ("rate", None, {"errors": [{"code": 3040, "message": "Capacity temporarily exceeded, please try again."}]}),
    ("quota", None, {"errors": [{"code": 3036, "message": "you have used up your daily free allocation"}]}),
    ("model", None, {"errors": [{"code": 5007, "message": "AiError: No such model @cf/tea or task"}]}),
    ("unavailable", None, {"error": "Server error: CUDA out of memory", "error_type": "generation"}),
    ("rate", None, {"Message": "Too many requests, please wait"}),
    ("unavailable", None, {"message": "Endpoint request timed out"}),
    ("rate", None, {"throttlingException": {"message": "Too many tokens"}}),
    ("unavailable", None, {"modelStreamErrorException": {"message": "no"}}),
    ("key", None, {"detail": "Not authenticated"}),
    ("model", None, {"detail": "Model not found in the model list, uid: tea"}),
    ("quota", None, {"error": {"code": "AccountOverdueError", "type": "Forbidden", "message": "no"}}),
    ("rate", None, {"error": {"code": "RateLimitExceeded.EndpointRPMExceeded", "message": "no"}}),
    ("rate", None, {"title": "Too many requests", "detail": "Expected available in 3 seconds."}),
    ("rate", None, {"fault": {"faultstring": "Rate limit quota violation.", "detail": {"errorcode": "policies.x"}}}),
    ("rate", None, {"errno": 429, "errmsg": "slow"}),
    ("other", None, {"base_resp": {"status_code": 0, "status_msg": "success"}}),
    ("other", None, {"header": {"code": 0, "message": "Success"}, "result": {"response": "Rate limits are a topic."}}),
    ("quota", 429, {"error": {"message": "Your credit balance is too low to access the API"}}),
    ("quota", 403, {"error": {"message": "Your account balance is insufficient"}}),
    ("other", 400, {"error": {"message": "A line of 429 characters, in a service unavailable to us"}}),
    ("other", None, {"error": {"message": "The year 500 is none"}}),
]


@pytest.mark.parametrize(("meaning", "status", "said"), MEANINGS)
def test_what_a_failure_means(meaning: Meaning, status: int | None, said: object) -> None:
    assert fault_of(said, status=status).meaning() == meaning


@pytest.mark.parametrize(
    ("wait_s", "error"),
    [
        (27, {"message": "Please retry after 27 seconds."}),
        (34.07, {"message": "Please retry in 34.07s."}),
        (15, {"message": "Rate limit reached. Please wait 15 seconds before retrying"}),
        (12, {"metadata": {"headers": {"Retry-After": "12"}}}),
        (12, {"headers": {"Retry-After": 12}}),
        (12, {"metadata": {"retry_after_seconds": 12}}),
        (12, {"retryAfter": "12"}),
        (34, {"details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}),
        (3723.5, {"message": "try again in 1h2m3.5s"}),
        (None, {"retry_after": -1}),
        (None, {"retry_after": math.nan}),
    ],
)
def test_how_long_a_failure_asks_to_wait(wait_s: float | None, error: dict[str, object]) -> None:
    assert fault_of({"error": {"code": 429} | error}).wait_s == wait_s


FORBIDDEN = {"type": "extra_forbidden", "loc": ["body", "stream_options"]}
OF_A_TOOL = {
    "loc": ["body", "tools", 2, "function", "parameters", "properties", "salary"],
    "type": "value_error.missing",
}
VIOLATION = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "contents[0].parts"}]}
RAW = '{"error": {"code": "invalid_value", "param": "top_p", "message": "no"}}'


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"detail": [FORBIDDEN]}, (None, "extra_forbidden", "stream_options")),
        ({"detail": [{"type": "missing", "loc": ["body", "x", "Über"]}]}, (None, "missing", "x")),
        ({"detail": [{"type": "type_error.integer", "loc": ["body", "n"]}]}, (None, "type_error.integer", "n")),
        (
            {"detail": [{"type": "string_type", "loc": ["body", "messages", 0, "content", "str"]}]},
            (None, "string_type", "messages[0].content.str"),
        ),
        ({"detail": [OF_A_TOOL]}, (None, "value_error.missing", "tools[2].function.parameters")),
        (
            {"object": "error", "type": "invalid_request_error", "code": None, "message": {"detail": [FORBIDDEN]}},
            (None, "invalid_request_error", "stream_options"),
        ),
        ({"error": {"param": "messages.[0].content"}}, (None, None, "messages[0].content")),
        ({"error": {"param": "metadata.my secret"}}, (None, None, "metadata")),
        ({"error": {"param": "My secret. It is out"}}, (None, None, None)),
        (
            {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"@type": "Info"}, VIOLATION]}},
            (None, "INVALID_ARGUMENT", "contents[0].parts"),
        ),
        ({"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, (None, "INVALID_ARGUMENT", None)),
        ({"__type": "ValidationException", "message": "no"}, (None, "ValidationException", None)),
        ({"error": {"type": "error", "status": 400}}, (None, None, None)),
        ({"error": {"code": 400, "message": "no", "metadata": {"raw": RAW}}}, ("invalid_value", None, "top_p")),
        ({"error_code": 336003, "error_msg": "no"}, ("336003", None, None)),
        ({"base_resp": {"status_code": 1008, "status_msg": "no"}}, ("1008", None, None)),
        ({"Response": {"Error": {"Code": "InvalidParameter", "Message": "no"}}}, ("InvalidParameter", None, None)),
        ({"errors": [{"code": 7003, "message": "no"}]}, ("7003", None, None)),
        ({"validationException": {"message": "no"}}, (None, "validationException", None)),
        ({"error": {"code": "any-words-of-its-own", "type": "sk-a1"}}, (None, None, None)),
    ],
)
def test_names_are_reported_wherever_a_server_puts_them(said: object, names: tuple[str | None, ...]) -> None:
    fault = fault_of(said, status=400)
    assert (fault.code, fault.type, fault.param) == names


@pytest.mark.parametrize("name", ["request_id", "requestId", "RequestId", "trace"])
def test_the_id_of_a_call_is_taken_from_the_body_where_no_header_has_it(name: str) -> None:
    asked = Asked("http://provider.example/v1", "/responses")
    body = f'{{"type": "error", "error": {{"type": "api_error"}}, "{name}": "req_9"}}'.encode()
    of_body, of_header = refusal(400, {}, body, asked), refusal(400, {"request-id": "req_1"}, body, asked)
    assert [error.report.request_id for error in (of_body, of_header) if error.report] == ["req_9", "req_1"]


@pytest.mark.parametrize("header", ["x-request-id", "x-amzn-requestid", "apim-request-id", "x-ms-request-id", "cf-ray"])
def test_whoever_answers_is_asked_by_the_id_of_the_call(header: str) -> None:
    error = refusal(400, {header: "req_1"}, b"", Asked("http://provider.example/v1", "/responses"))
    assert error.report is not None
    assert error.report.request_id == "req_1"


@pytest.mark.parametrize("date", ["Fri, 31 Dec 2100 23:59:59 GMT", "Fri Dec 31 23:59:59 2100", "31 Dec 2100 23:59:59"])
def test_a_date_to_wait_for_is_of_no_zone_but_utc(date: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        wait_s = retry_after({"retry-after": date})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert wait_s is not None
    assert time.time() + wait_s == pytest.approx(4_133_980_799, abs=5)


def test_a_wait_of_more_digits_than_any_is_long_is_the_longest() -> None:
    assert retry_after({"retry-after": "1764451200"}) == 1_764_451_200
    told = refusal(429, {"retry-after": "9" * 12}, b"", Asked("http://provider.example/v1", "/responses"))
    assert isinstance(told, ProviderUnavailableError)
    assert told.retry_after_s == 3600
