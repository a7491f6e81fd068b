"""`/stats`, `/users/{user_id}/stats` and `/users/{user_id}/stats/conversations`."""

from typing import Annotated, Any, Final

from litestar import Request
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from textllm_core.fields import Listed
from textllm_core.records.usage_reports import UsageOfConversation, UsageReport
from textllm_core.report_usage import MAX_USAGE_DAYS
from textllm_http.auth import any_caller, caller_of
from textllm_http.fields import Days
from textllm_http.openapi_examples import STATS, USED_BY_CONVERSATION
from textllm_http.openapi_shapes import Operation, json_answer
from textllm_http.reading import reading
from textllm_http.requests import QueryString
from textllm_http.responses import json_response
from textllm_http.services import services_of


class StatsQuery(Struct, frozen=True):
    """How many UTC days, today included."""

    days: Annotated[Days, Meta(ge=1, le=MAX_USAGE_DAYS)] = 30


class ConversationUsage(Struct, frozen=True):
    """What each conversation used; the rows add up to the totals of the same days."""

    data: Listed[UsageOfConversation]


_STATS: Final = QueryString(StatsQuery)


@reading(
    "/stats",
    before_request=_STATS.check,
    guards=[any_caller],
    described=Operation(
        tag="Usage",
        says="With a user's key: what that user used.",
        answers={200: json_answer("Totals, by day and by model.", UsageReport, STATS)},
    ),
)
async def stats_of_all(request: Request[Any, Any, Any]) -> ASGIApp:
    """Report what all users of the tenant together used in the last days."""
    report_usage, days = services_of(request).textllm.administration.report_usage, _STATS.read(request).days
    return json_response(await report_usage(caller_of(request), None, days=days))


@reading(
    "/users/{user_id:str}/stats",
    before_request=_STATS.check,
    guards=[any_caller],
    described=Operation(
        tag="Usage",
        answers={200: json_answer("Totals, by day and by model.", UsageReport, STATS)},
        problems=("not_found",),
    ),
)
async def stats(request: Request[Any, Any, Any], user_id: FromPath[str]) -> ASGIApp:
    """Report what a user used in the last days."""
    textllm = services_of(request).textllm
    report = await textllm.administration.report_usage(caller_of(request), user_id, days=_STATS.read(request).days)
    return json_response(report)


@reading(
    "/users/{user_id:str}/stats/conversations",
    before_request=_STATS.check,
    guards=[any_caller],
    described=Operation(
        tag="Usage",
        answers={200: json_answer("The newest turn first, at most 100.", ConversationUsage, USED_BY_CONVERSATION)},
        problems=("not_found",),
    ),
)
async def stats_of_conversations(request: Request[Any, Any, Any], user_id: FromPath[str]) -> ASGIApp:
    """Report what each conversation of a user used in the last days, and what is left of the totals."""
    report_usage, days = services_of(request).textllm.administration.report_usage, _STATS.read(request).days
    return json_response(ConversationUsage(await report_usage.by_conversation(caller_of(request), user_id, days=days)))
