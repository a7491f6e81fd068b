"""For the Swift of the tests: the cache that its proxy asks for, in the proxy's one process instead of memcached."""

from collections.abc import Callable
from typing import Any


class Cache:
    """What Swift calls of `swift.common.memcached.MemcacheRing`."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str, *_: object, **__: object) -> Any:
        return self._values.get(key)

    def set(self, key: str, value: Any, *_: object, **__: object) -> None:
        self._values[key] = value

    def delete(self, key: str, *_: object, **__: object) -> None:
        self._values.pop(key, None)

    def incr(self, key: str, delta: int = 1, *_: object, **__: object) -> int:
        self._values[key] = int(self._values.get(key, 0)) + delta
        return int(self._values[key])


def filter_factory(*_: object, **__: object) -> Callable[..., Any]:
    """The factory that PasteDeploy loads."""
    cache = Cache()

    def filtered(application: Callable[..., Any]) -> Callable[..., Any]:
        def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            environ["swift.cache"] = cache
            return application(environ, start_response)

        return call

    return filtered
