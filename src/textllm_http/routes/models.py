"""`/v1/models`."""

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from textllm_core.records.models import ModelList
from textllm_http.auth import any_caller
from textllm_http.openapi_shapes import Operation, json_answer
from textllm_http.responses import json_response
from textllm_http.routes.reading import reading
from textllm_http.services import services_of

_MODEL: Final = {
    "id": "gpt-4o",
    "object": "model",
    "created": 0,
    "owned_by": "openai",
    "is_default": True,
    "price": {"input": 2.5, "output": 10, "cached_input": 1.25},
    "reads_images": True,
    "reads_files": True,
}


@reading(
    "/v1/models",
    guards=[any_caller],
    described=Operation(
        tag="Chat",
        says="Those that the operator's settings name, in the shape of OpenAI's API; others that have a price may be "
        "asked, too.",
        answers={200: json_answer("The models.", ModelList, {"object": "list", "data": [_MODEL]})},
    ),
)
async def listed(request: Request[Any, Any, Any]) -> ASGIApp:
    """List the models that can be asked, with what they cost and can read."""
    return json_response(services_of(request).models)
