"""`/openapi.json`, and the pages `/docs` and `/redoc` that show it. All of it ships with the package."""

from functools import cache, lru_cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from litestar import Litestar, Request
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.types import ASGIApp

from textllm_core.wire import to_json
from textllm_http.auth import open_to_all
from textllm_http.openapi import document_of
from textllm_http.openapi_shapes import JSON, Answer, Content, Operation
from textllm_http.problem_pages import EXPLAINED, page_of
from textllm_http.reading import reading
from textllm_http.responses import WholeResponse

# Redoc's style elements, and no others: those that it fills by script, which are empty, and one that it writes.
_STYLES: Final = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_STYLES}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE: Final = {"text/html": Content({"type": "string"})}
_TYPES: Final = {"js": "text/javascript", "css": "text/css"}
_ASSETS: Final = frozenset(
    {"docs.js", "redoc.css", "redoc.js", "redoc.standalone.js", "swagger-ui-bundle.js", "swagger-ui.css"}
)


@reading(
    "/openapi.json",
    guards=[open_to_all],
    described=Operation(
        tag="Documentation",
        answers={200: Answer(says="OpenAPI 3.1.", content={JSON: Content({"type": "object"})})},
    ),
)
async def openapi(request: Request[Any, Any, Any]) -> ASGIApp:
    """Get this document."""
    return WholeResponse(_document(request.app), headers={"X-Content-Type-Options": "nosniff"})


@reading(
    "/docs",
    guards=[open_to_all],
    described=Operation(
        tag="Documentation",
        answers={200: Answer(says="A page.", content=_PAGE)},
    ),
)
async def docs() -> ASGIApp:
    """Read and try the service with Swagger UI."""
    return _page("docs.html")


@reading(
    "/redoc",
    guards=[open_to_all],
    described=Operation(
        tag="Documentation",
        answers={200: Answer(says="A page.", content=_PAGE)},
    ),
)
async def redoc() -> ASGIApp:
    """Read about the service with Redoc."""
    return _page("redoc.html")


@reading(
    "/docs/assets/{name:str}",
    guards=[open_to_all],
    described=Operation(
        tag="Documentation",
        answers={
            200: Answer(
                says="The file.",
                content={"text/javascript": Content({"type": "string"}), "text/css": Content({"type": "string"})},
            )
        },
        problems=("not_found",),
    ),
)
async def asset(name: FromPath[str]) -> ASGIApp:
    """Get a script or a style of these pages."""
    if name not in _ASSETS:
        raise NotFoundException
    return WholeResponse(
        _file(name),
        media_type=_TYPES[name.rpartition(".")[2]],
        headers={"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"},
    )


@reading(
    "/",
    guards=[open_to_all],
    described=Operation(
        tag="Documentation",
        answers={307: Answer(says="To `/docs`.", headers=("Location",))},
    ),
)
async def start() -> ASGIApp:
    """Find the documentation."""
    return WholeResponse(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": "/docs"})


@reading(
    "/problems/{code:str}",
    guards=[open_to_all],
    described=Operation(
        tag="Documentation",
        says="It is where the `type` of a problem document leads.",
        answers={200: Answer(says="A page.", content=_PAGE)},
        problems=("not_found",),
    ),
)
async def problem(code: FromPath[str]) -> ASGIApp:
    """Read what a problem means, and what to do about it."""
    if code not in EXPLAINED:
        raise NotFoundException
    return WholeResponse(page_of(code), media_type="text/html", headers=_PAGE_HEADERS)


@lru_cache(maxsize=1)
def _document(app: Litestar) -> bytes:
    return to_json(document_of(app.routes))


def _page(name: str) -> ASGIApp:
    return WholeResponse(_file(name), media_type="text/html", headers=_PAGE_HEADERS)


@cache
def _file(name: str) -> bytes:
    return (files("textllm_http") / "static" / name).read_bytes()
