"""`/sessions` and a user's own."""

from typing import Annotated, Any, Final

from litestar import Request, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.sessions import MAX_SESSION_DAYS
from textllm_http.auth import any_caller, caller_of
from textllm_http.requests import QueryString
from textllm_http.responses import json_response
from textllm_http.routes.reading import reading
from textllm_http.services import services_of


class SessionsQuery(Struct, frozen=True):
    """Which sessions: those of the last `days` UTC days; today's alone without it."""

    days: Annotated[int, Meta(ge=1, le=MAX_SESSION_DAYS)] | UnsetType = UNSET


_SESSIONS: Final = QueryString(SessionsQuery)


@reading("/sessions/{session_id:str}", guards=[any_caller])
async def session(request: Request[Any, Any, Any], session_id: FromPath[str]) -> ASGIApp:
    """One session."""
    textllm = services_of(request).textllm
    return json_response(await textllm.books.get_session(caller_of(request), session_id))


@post("/sessions/{session_id:str}/end", status_code=200, guards=[any_caller])
async def end(request: Request[Any, Any, Any], session_id: FromPath[str]) -> ASGIApp:
    """Mark a session as ended; the session as it is then."""
    textllm = services_of(request).textllm
    return json_response(await textllm.books.end_session(caller_of(request), session_id))


@reading("/users/{user_id:str}/sessions", before_request=_SESSIONS.check, guards=[any_caller])
async def of_user(request: Request[Any, Any, Any], user_id: FromPath[str]) -> ASGIApp:
    """A user's session of today; with `days` a list of those of the last days, newest first."""
    textllm = services_of(request).textllm
    caller, asked = caller_of(request), _SESSIONS.read(request)
    if asked.days is UNSET:
        return json_response(await textllm.books.todays_session(caller, user_id))
    return json_response({"data": await textllm.books.list_sessions(caller, user_id, days=asked.days)})
