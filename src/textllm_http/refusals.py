"""A request that failed, as who sent it reads it: problem details, and below `/v1` what OpenAI's API has there."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from litestar import Request, Response
from litestar.types import Scope

from textllm_http.middleware import request_id_of
from textllm_http.openai_door import errors as door
from textllm_http.problems import PROBLEM_JSON, problem_of
from textllm_http.responses import WholeResponse

_DOOR: Final = "/v1"
# Where a client of OpenAI's API asks whose base URL lacks /v1: nothing else is there, and it reads no other shape.
_BESIDE_THE_DOOR: Final = ("/chat/completions", "/completions", "/embeddings", "/models", "/responses")


class _Told(NamedTuple):
    body: bytes
    status: int
    headers: Mapping[str, str]
    media_type: str


def refusal_of(scope: Scope, error: Exception) -> WholeResponse:
    """The response to a request that failed, whatever it failed in."""
    told = _told(scope, error)
    return WholeResponse(told.body, status_code=told.status, headers=told.headers, media_type=told.media_type)


def refused(request: Request[Any, Any, Any], error: Exception) -> WholeResponse:
    """The same of a request of the framework's."""
    return refusal_of(request.scope, error)


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The same in the framework's form, as its handlers of exceptions have to have it."""
    told = _told(request.scope, error)
    return Response(told.body, status_code=told.status, headers=told.headers, media_type=told.media_type)


def _told(scope: Scope, error: Exception) -> _Told:
    problem = problem_of(error, request_id_of(scope))
    scope["state"]["problem_code"] = problem.code
    if _is_of_openai(scope["path"]):
        return _Told(door.document(problem), problem.status, door.headers(problem), "application/json")
    return _Told(problem.document, problem.status, problem.headers, PROBLEM_JSON)


def _is_of_openai(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in (_DOOR, *_BESIDE_THE_DOOR))
