"""How a route is declared that tells something, and changes nothing."""

from functools import partial
from typing import Final

from litestar import route
from litestar.enums import HttpMethod

# The handler answers HEAD as it does GET (RFC 9110, 9.3.2); the body is taken off where responses are sent.
reading: Final = partial(route, http_method=[HttpMethod.GET, HttpMethod.HEAD])
