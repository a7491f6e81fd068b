"""`/sessions` and a user's own."""

from typing import Annotated, Any, Final

from litestar import Request, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.fields import Listed
from textllm_core.records.sessions import Session
from textllm_core.sessions import MAX_SESSION_DAYS
from textllm_http.auth import any_caller, caller_of
from textllm_http.fields import Days
from textllm_http.openapi_examples import SESSION
from textllm_http.openapi_shapes import JSON, Answer, Content, Operation, json_answer
from textllm_http.reading import reading
from textllm_http.requests import QueryString
from textllm_http.responses import json_response
from textllm_http.services import services_of


class SessionsQuery(Struct, frozen=True):
    """Which sessions: those of the last `days` UTC days; today's alone without it."""

    days: Annotated[Days, Meta(ge=1, le=MAX_SESSION_DAYS)] | UnsetType = UNSET


class SessionList(Struct, frozen=True):
    """Sessions of a user."""

    data: Listed[Session]


_SESSIONS: Final = QueryString(SessionsQuery)


@reading(
    "/sessions/{session_id:str}",
    guards=[any_caller],
    described=Operation(
        tag="Usage",
        answers={200: json_answer("The session.", Session, SESSION)},
        problems=("session_not_found",),
    ),
)
async def session(request: Request[Any, Any, Any], session_id: FromPath[str]) -> ASGIApp:
    """Show a session: what a user used in one UTC day."""
    textllm = services_of(request).textllm
    return json_response(await textllm.administration.get_session(caller_of(request), session_id))


@post(
    "/sessions/{session_id:str}/end",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        tag="Usage",
        says="Until the user's next turn of that day. It refills no budget.",
        answers={200: json_answer("The session.", Session, SESSION | {"is_active": False})},
        problems=("session_not_found",),
    ),
)
async def end(request: Request[Any, Any, Any], session_id: FromPath[str]) -> ASGIApp:
    """Mark a session as ended."""
    textllm = services_of(request).textllm
    return json_response(await textllm.administration.end_session(caller_of(request), session_id))


@reading(
    "/users/{user_id:str}/sessions",
    before_request=_SESSIONS.check,
    guards=[any_caller],
    described=Operation(
        tag="Usage",
        answers={
            200: Answer(
                says="Without `days` the session of today, with it a list, newest first.",
                content={
                    JSON: Content(
                        {"anyOf": [Session, SessionList]}, {"today": SESSION, "with days": {"data": [SESSION]}}
                    )
                },
            )
        },
        problems=("session_not_found", "not_found"),
    ),
)
async def of_user(request: Request[Any, Any, Any], user_id: FromPath[str]) -> ASGIApp:
    """Show a user's session of today, or list those of the last days."""
    textllm = services_of(request).textllm
    caller, asked = caller_of(request), _SESSIONS.read(request)
    if asked.days is UNSET:
        return json_response(await textllm.administration.todays_session(caller, user_id))
    return json_response(SessionList(await textllm.administration.list_sessions(caller, user_id, days=asked.days)))
