"""All routes of the door."""

from collections.abc import Sequence
from typing import Final

from litestar.handlers import HTTPRouteHandler

from textllm_http.openai_door import completions, conversations, files, models, responses

DOOR: Final[Sequence[HTTPRouteHandler]] = [
    completions.create,
    models.listed,
    models.one,
    responses.create,
    responses.one,
    responses.remove,
    responses.cancel,
    responses.input_items,
    conversations.create,
    conversations.one,
    conversations.change,
    conversations.remove,
    conversations.add_items,
    conversations.list_items,
    conversations.one_item,
    conversations.remove_item,
    files.upload,
    files.listed,
    files.one,
    files.content,
    files.delete,
]
