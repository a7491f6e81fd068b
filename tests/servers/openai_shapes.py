"""What the provider takes as a body: its own description of each route, and the rules that stand in no schema."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from tests.servers.openai_script import ApiError, Json

_DESCRIPTION = json.loads(Path(__file__).with_name("openai_requests.json").read_text(encoding="utf-8"))
_VALIDATORS = {
    route: Draft202012Validator({**schema, "$defs": _DESCRIPTION["$defs"]}, validate_formats=True)
    for route, schema in _DESCRIPTION["routes"].items()
}  # compiled once, in 50 ms; a body then costs microseconds, where `jsonschema` takes ten times as long

# The description lets every further key pass, the service none; the SDK names some that are newer than the description.
_KEYS: Mapping[str, Iterable[str]] = {
    "POST /conversations": ("items", "metadata"),
    "POST /conversations/{conversation_id}": ("metadata",),
    "POST /conversations/{conversation_id}/items": ("items",),
    "POST /responses": ResponseCreateParamsStreaming.__annotations__,
    "POST /responses/input_tokens": InputTokenCountParams.__annotations__,
    "POST /chat/completions": CompletionCreateParamsStreaming.__annotations__,
}
_MODEL_IS_REQUIRED = ("POST /responses", "POST /chat/completions")
_CODES = {
    "type": "invalid_type",
    "required": "missing_required_parameter",
    "maxItems": "array_above_max_length",
    "maxLength": "string_above_max_length",
    "minimum": "integer_below_min_value",
    "maximum": "integer_above_max_value",
}


def refusal_of(route: str, body: Json) -> ApiError | None:
    """Why the provider refuses a body of this form, whatever it keeps; None for one that it takes.

    Args:
        route: as in "POST /conversations/{conversation_id}/items"; one that takes no JSON body refuses none.
        body: decoded JSON.
    """
    if route not in _VALIDATORS:
        return None
    if route in _MODEL_IS_REQUIRED and "model" not in body:
        return ApiError(400, "Missing required parameter: 'model'.", param="model", code=_CODES["required"])
    options = body.get("stream_options")
    unknown = _unknown_key(body, _KEYS[route])
    if unknown is None and route == "POST /responses" and isinstance(options, dict):
        unknown = _unknown_key(options, ("include_obfuscation",), "stream_options.")
    if unknown is not None:
        return unknown
    if (failure := next(_VALIDATORS[route].iter_errors(body), None)) is not None:
        return _worded(_clearest(failure))
    return _refused_metadata(body.get("metadata") or {})


def _unknown_key(given: Iterable[str], allowed: Iterable[str], at: str = "") -> ApiError | None:
    for key in given:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f" Did you mean '{at}{close[0]}'?" if close else ""
            message = f"Unknown parameter: '{at}{key}'.{hint}"
            return ApiError(400, message, param=f"{at}{key}", code="unknown_parameter")
    return None


def _refused_metadata(metadata: Mapping[str, str]) -> ApiError | None:
    """16 pairs, keys of at most 64 characters, values of at most 512; the description says so in words alone."""
    if len(metadata) > 16:
        message = f"Invalid 'metadata': too many properties. Expected at most 16, but got {len(metadata)}."
        return ApiError(400, message, param="metadata", code="object_above_max_properties")
    for key, value in metadata.items():
        for param, what, text, limit in (("metadata", "a key", key, 64), (f"metadata.{key}", "a value", value, 512)):
            if len(text) > limit:
                message = f"Invalid '{param}': expected {what} of at most {limit} characters, but got {len(text)}."
                return ApiError(400, message, param=param, code=_CODES["maxLength"])
    return None


def _clearest(failure: ValidationError) -> ValidationError:
    """Of what keeps a value from being any of several kinds, what keeps it from the kind that it is most like."""
    while isinstance(failure.kind, ValidationErrorKind.AnyOf):
        at = len(failure.instance_path)
        branches = [list(branch) for branch in failure.kind.context]
        likest = max(branches, key=lambda branch: _likeness(branch, at))
        failure = max(likest, key=lambda each: len(each.instance_path))
    return failure


def _likeness(branch: Sequence[ValidationError], at: int) -> tuple[bool, bool, int, int]:
    """How like a kind a value is, by what is wrong with it: not its name, not its type, only something deep inside."""
    named = not any(each.instance_path[at:] == ["type"] for each in branch)
    typed = not any(each.kind.name == "type" and len(each.instance_path) == at for each in branch)
    return named, typed, max(len(each.instance_path) for each in branch), -len(branch)


def _worded(failure: ValidationError) -> ApiError:
    path: list[Any] = list(failure.instance_path)
    if isinstance(failure.kind, ValidationErrorKind.Required):
        path.append(failure.kind.property)
    param = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    code = _CODES.get(failure.kind.name, "invalid_value")
    what = f"Missing required parameter: '{param}'." if code == _CODES["required"] else f"Invalid '{param}': {code}."
    return ApiError(400, what, param=param or None, code=code)
