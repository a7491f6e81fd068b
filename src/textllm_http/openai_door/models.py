"""`/v1/models`."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from litestar import Request
from litestar.params import FromPath
from litestar.types import ASGIApp

from textllm_core.errors import NotFoundError
from textllm_core.records.models import ListedModel, ModelList
from textllm_http.auth import caller_of
from textllm_http.openai_door.declaring import door_reading
from textllm_http.openapi_shapes import Operation, json_answer
from textllm_http.responses import json_response
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


def naming(asked: str | None, *, request: Request[Any, Any, Any]) -> Callable[[str], str]:
    """What makes the name that a client can send again of a reply's model, where `asked` was asked for."""
    exchange, allowed = services_of(request).textllm.answer_messages.exchange, caller_of(request).models

    def named(model: str) -> str:
        name = exchange.called(model, asked=asked)
        return asked if asked and allowed is not None and name not in allowed else name

    return named


def _usable(request: Request[Any, Any, Any]) -> Sequence[ListedModel]:
    """Those that the caller's key may use; of one that may use all, those that the settings name."""
    services, allowed = services_of(request), caller_of(request).models
    if allowed is None:
        return services.models.listed.data
    return [found for found in map(services.models.find, allowed) if found is not None]


@door_reading(
    "/v1/models",
    described=Operation(
        tag="OpenAI",
        says="Those that this key may use. Of a key that may use all, those that the operator's settings name; where "
        "they have no `models`, others that have a price may be asked, too.",
        answers={200: json_answer("The models.", ModelList, {"object": "list", "data": [_MODEL]})},
    ),
)
async def listed(request: Request[Any, Any, Any]) -> ASGIApp:
    """List the models that can be asked, with what they cost and can read."""
    return json_response(ModelList(data=_usable(request)))


@door_reading(
    "/v1/models/{model:path}",
    described=Operation(
        tag="OpenAI",
        says="One that this key may use, also where the list of all does not have it.",
        answers={200: json_answer("The model.", ListedModel, _MODEL)},
        problems=["not_found"],
    ),
)
async def one(request: Request[Any, Any, Any], model: FromPath[str]) -> ASGIApp:
    """Tell what one model costs and can read."""
    name = model.removeprefix("/")
    allowed = caller_of(request).models
    found = services_of(request).models.find(name) if allowed is None or name in allowed else None
    if found is None:
        raise NotFoundError("There is no such model in the list; /v1/models has it.")
    return json_response(found)
