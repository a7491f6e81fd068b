"""The way of what is asked for all the time: to its handler past the framework, which takes a tenth of a turn."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from litestar import Litestar, Request
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Guard, Receive, Scope, Send

from textllm_http.refusals import refused

_Request = Request[Any, Any, Any]


class _Route(NamedTuple):
    path: str
    handler: HTTPRouteHandler
    guards: tuple[Guard, ...]
    check: Callable[[_Request], Awaitable[object]]
    answer: Callable[[_Request], Awaitable[ASGIApp]]


class ShortWay:
    """Calls some handlers as the framework would: guards, the check before the request, the handler, the response.

    They stand in its table as any other does, and what they have there is what counts here. Every other request is left
    to the framework.

    Args:
        app: whose handlers they are.
        paths: of those that answer POST, and take the request and nothing else.
    """

    def __init__(self, app: Litestar, paths: Iterable[str]) -> None:
        self._app = app
        self._routes = {path: _route_of(app, path) for path in paths}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What is to be awaited."""
        assert scope["type"] == ScopeType.HTTP  # the server takes nothing else
        route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
        return self._app(scope, receive, send) if route is None else _answer(route, scope, receive, send)


async def _answer(route: _Route, scope: Scope, receive: Receive, send: Send) -> None:
    scope["path_template"] = route.path
    request: _Request = Request(scope, receive, send)
    try:
        for guard in route.guards:
            await guard(request, route.handler)  # type: ignore[misc]  # ours are all async
        await route.check(request)
        response = await route.answer(request)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        response = refused(request, error)
    await response(scope, receive, send)


def _route_of(app: Litestar, path: str) -> _Route:
    """
    Raises:
        ValueError: the framework would do more for its handler than is done here.
    """
    (route,) = (route for route in app.routes if isinstance(route, HTTPRoute) and route.path == path)
    handler, _ = route.route_handler_map["POST"]
    check = handler.resolve_before_request()
    does_more = (
        handler.parsed_fn_signature.parameters.keys() != {"request"}
        or handler.has_sync_callable
        or handler.resolve_middleware()
        or handler.resolve_after_response()
        or handler.after_request
        or handler.cache
    )
    if does_more or check is None:
        raise ValueError(f"there is no short way to {path}")
    return _Route(path, handler, tuple(handler.resolve_guards()), check, handler.fn)
