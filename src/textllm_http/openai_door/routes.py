"""All routes of the door."""

from collections.abc import Sequence
from typing import Final

from litestar.handlers import HTTPRouteHandler

from textllm_http.openai_door import models

DOOR: Final[Sequence[HTTPRouteHandler]] = [
    models.listed,
    models.one,
]
