"""Conversation items: checked as the provider checks them, stored in full form, and counted in tokens."""

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from math import ceil
from typing import Any

from tests.servers.openai_script import ApiError, Json
from tests.servers.openai_tools import APPROVAL, KINDS, REQUEST

ROLES = ("user", "assistant", "system", "developer")
INPUT_PARTS = ("input_text", "input_image", "input_file")
OUTPUT_PARTS = ("output_text", "refusal")
OTHER_ITEMS = ("reasoning", "function_call", "function_call_output", "item_reference", "compaction", APPROVAL, *KINDS)
IMAGE_FORMATS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
INCLUDABLE = (
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)

MESSAGE_TOKENS = 4
IMAGE_TOKENS = 85
UNSEEN_FILE_TOKENS = 256  # a file given by id or URL, whose bytes are not here


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def invalid(value: object, allowed: Iterable[str], param: str) -> ApiError:
    names = ", ".join(f"'{name}'" for name in allowed)
    message = f"Invalid value: '{value}'. Supported values are: {names}."
    return ApiError(400, message, param=param, code="invalid_value")


def missing(param: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def wrong_type(param: str, expected: str) -> ApiError:
    message = f"Invalid type for '{param}': expected {expected}."
    return ApiError(400, message, param=param, code="invalid_type")


def full_items(given: Any, param: str, known: Callable[[str], Json | None]) -> list[Json]:
    """The items of a request as they are stored, each with a new id.

    Args:
        given: a string (one message of the user) or a list of items.
        param: the request's name for them, for errors.
        known: looks up the item an id stands for, among all that are stored.
    Raises:
        ApiError: 400 for a wrong shape, 404 for the id of an item that is not stored.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong_type(param, "a string or an array")
    return [_full_item(item, f"{param}[{n}]", known) for n, item in enumerate(given)]


def _full_item(item: Any, at: str, known: Callable[[str], Json | None]) -> Json:
    if not isinstance(item, dict):
        raise wrong_type(at, "an object")
    kind = item.get("type", "message")
    if kind not in ("message", *OTHER_ITEMS):
        raise invalid(kind, ("message", *OTHER_ITEMS), f"{at}.type")
    replayed = known(item["id"]) if item.get("id") else None
    # See `check_reasoning`; what a tool did is whole in its item.
    is_call = (kind == "function_call" and str(item.get("id")).startswith("fc_")) or kind in KINDS
    if item.get("id") and replayed is None and not (item.get("encrypted_content") or is_call):
        raise ApiError(404, f"Item with id '{item['id']}' not found.", param="input")
    if kind == "item_reference":
        if replayed is None:
            raise missing(f"{at}.id")
        return replayed
    if kind == REQUEST:
        return dict(item)  # what answers it names it so
    if kind != "message":
        return {**item, "id": new_id("rs" if kind == "reasoning" else kind)}
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise invalid(role, ROLES, f"{at}.role")
    if content is None:
        raise missing(f"{at}.content")
    if isinstance(content, str):
        content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
    if not isinstance(content, list):
        raise wrong_type(f"{at}.content", "a string or an array")
    parts = [_full_part(part, role, f"{at}.content[{n}]") for n, part in enumerate(content)]
    return {"id": new_id("msg"), "type": "message", "status": "completed", "role": role, "content": parts}


def _full_part(part: Any, role: str, at: str) -> Json:
    if not isinstance(part, dict):
        raise wrong_type(at, "an object")
    allowed = OUTPUT_PARTS if role == "assistant" else INPUT_PARTS
    match part.get("type"):
        case kind if kind not in allowed:
            raise invalid(kind, allowed, f"{at}.type")
        case "input_text":
            return {"type": "input_text", "text": _text(part, "text", at)}
        case "output_text":
            return {"type": "output_text", "text": _text(part, "text", at), "annotations": [], "logprobs": []}
        case "refusal":
            return {"type": "refusal", "refusal": _text(part, "refusal", at)}
        case "input_image":
            return _full_image(part, at)
        case _:
            return _full_file(part, at)


def _text(part: Json, name: str, at: str) -> str:
    if name not in part:
        raise missing(f"{at}.{name}")
    text = part[name]
    if not isinstance(text, str):
        raise wrong_type(f"{at}.{name}", "a string")
    return text


def _full_image(part: Json, at: str) -> Json:
    url, file_id = part.get("image_url"), part.get("file_id")
    if url is not None and not isinstance(url, str):
        raise wrong_type(f"{at}.image_url", "a string")
    if not url and not file_id:
        raise missing(f"{at}.image_url")
    if url and url.startswith("data:"):
        image = _bytes_of(url, f"{at}.image_url", "invalid_base64_image")
        webp = image[:4] == b"RIFF" and image[8:12] == b"WEBP"
        if not webp and not image.startswith(IMAGE_FORMATS):  # the bytes decide, whatever the URL calls them
            formats = "['image/jpeg', 'image/png', 'image/gif', 'image/webp']"
            message = f"The image data you provided does not represent a valid image. Supported formats: {formats}."
            raise ApiError(400, message, param=f"{at}.image_url", code="invalid_image_format")
    return {"type": "input_image", "detail": part.get("detail", "auto"), "file_id": file_id, "image_url": url}


def _full_file(part: Json, at: str) -> Json:
    if not any(part.get(source) for source in ("file_data", "file_id", "file_url")):
        raise missing(f"{at}.file_data")
    if part.get("file_data"):
        if not isinstance(part["file_data"], str):
            raise wrong_type(f"{at}.file_data", "a string")
        if not part.get("filename"):
            raise missing(f"{at}.filename")
        content = _bytes_of(part["file_data"], f"{at}.file_data", "invalid_value")
        if part["filename"].lower().endswith(".pdf") and not content.startswith(b"%PDF-"):
            message = f"Invalid '{at}.file_data': the file is no PDF document."
            raise ApiError(400, message, param=f"{at}.file_data", code="invalid_file")
    return {name: part.get(name) for name in ("type", "filename", "file_data", "file_id", "file_url")}


def _bytes_of(data_url: str, param: str, code: str) -> bytes:
    head, comma, encoded = data_url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ApiError(400, f"Invalid '{param}': expected a base64-encoded data URL.", param=param, code=code)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ApiError(400, f"Invalid '{param}': {error}.", param=param, code=code) from error


def check_calls(items: Iterable[Json]) -> None:
    """Each call of a function is followed by its output, and each output follows its call."""
    waiting: list[str] = []
    for item in items:
        if item["type"] == "function_call":
            waiting.append(item["call_id"])
        elif item["type"] == "function_call_output":
            if item["call_id"] not in waiting:
                message = f"No tool call found for function call output with call_id {item['call_id']}."
                raise ApiError(400, message, param="input")
            waiting.remove(item["call_id"])
    if waiting:
        raise ApiError(400, f"No tool output found for function call {waiting[0]}.", param="input")


def check_reasoning(given: Any, *, is_all: bool = True) -> None:
    """A call with its id comes with what was thought before it, and that with what follows it, as it was given.

    The id of a call that was thought about has that of its reasoning in it. `is_all`: nothing is added behind it.
    """
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    for place, item in enumerate(items):
        kind, item_id = item.get("type"), item.get("id") or ""
        if kind == "function_call" and item_id.startswith("fc_rs_"):
            thought = item_id[3:].rpartition("_")[0]
            if all(before.get("id") != thought for before in items[:place]):
                message = f"Item '{item_id}' of type 'function_call' was provided without its required 'reasoning' item"
                raise ApiError(400, f"{message}: '{thought}'.", param="input")
        if kind == "reasoning":
            follower = items[place + 1] if place + 1 < len(items) else {}
            is_followed = follower.get("type") in ("function_call", *KINDS) or follower.get("role") == "assistant"
            if is_all and not is_followed:
                message = f"Item '{item_id}' of type 'reasoning' was provided without its required following item."
                raise ApiError(400, message, param="input")
            _check_encrypted(item.get("encrypted_content"), item_id)


def _check_encrypted(content: Any, item_id: str) -> None:
    try:
        base64.b64decode(content or "", validate=True).decode()
    except ValueError as error:
        message = f"The encrypted content for item {item_id} could not be verified."
        raise ApiError(400, message, code="invalid_encrypted_content") from error


def shown(item: Json, include: Iterable[str]) -> Json:
    """A stored item as an item route shows it: the URL of an image is left out unless it is asked for."""
    if item["type"] != "message" or "message.input_image.image_url" in include:
        return item
    parts = [
        {name: value for name, value in part.items() if (part["type"], name) != ("input_image", "image_url")}
        for part in item["content"]
    ]
    return {**item, "content": parts}


def text_tokens(text: str) -> int:
    """One token for every started four characters."""
    return ceil(len(text) / 4)


def item_tokens(items: Iterable[Json]) -> int:
    """Input tokens of the items; reasoning of earlier turns is not read again, so it is free."""
    return sum(_tokens_of_item(item) for item in items)


def _tokens_of_item(item: Json) -> int:
    if item["type"] == "reasoning":
        return 0
    if item["type"] != "message":
        return MESSAGE_TOKENS + text_tokens(json.dumps(item))
    return MESSAGE_TOKENS + sum(_tokens_of_part(part) for part in item["content"])


def _tokens_of_part(part: Json) -> int:
    match part["type"]:
        case "input_image":
            return IMAGE_TOKENS
        case "input_file" if part["file_data"]:
            return ceil(len(_bytes_of(part["file_data"], "file_data", "invalid_value")) / 4)
        case "input_file":
            return UNSEEN_FILE_TOKENS
        case "refusal":
            return text_tokens(part["refusal"])
        case _:
            return text_tokens(part["text"])


def echo_of(items: list[Json]) -> str:
    """What the model says unless a script says otherwise: how much came before, and the user's latest words."""
    messages = [item for item in items if item["type"] == "message"]
    asked = [n for n, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        return f"[{len(messages)}] You said nothing."
    parts = messages[asked[-1]]["content"]
    said = " ".join(part["text"] for part in parts if part["type"] == "input_text")
    seen = " ".join(digest[:8] for digest in digests_in(messages))
    results = " ".join(item["output"] for item in items if item["type"] == "function_call_output")
    said += f"{' Results: ' if results else ''}{results}"
    return f"[{asked[-1]}] You said: {said}{' Seen: ' if seen else ''}{seen}"


def digests_in(content: Any) -> list[str]:
    """The SHA-256 of every file whose bytes are anywhere in the content, in order; texts are not read for any."""
    match content:
        case {"image_url": str(url)} | {"file_data": str(url)} | {"url": str(url)} if url.startswith("data:"):
            return [hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest()]
        case dict():
            return [digest for value in content.values() for digest in digests_in(value)]
        case list() | tuple():
            return [digest for value in content for digest in digests_in(value)]
    return []
