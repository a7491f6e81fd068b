"""The service as an OpenAPI 3.1 document: its routes, the Structs they read and write, and their words."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.errors import UnreadableReason
from textllm_http.auth import admin_caller, any_caller_or_link, open_to_all, operator
from textllm_http.openai_door.errors import DoorErrorDocument
from textllm_http.openapi_problems import PROBLEMS
from textllm_http.openapi_shapes import DOOR_LIMITED, JSON, LIMITED, Answer, Content, Form, Operation
from textllm_http.openapi_words import PATHS, REQUEST_HEADERS, RESPONSE_HEADERS, Schema
from textllm_http.problems import PROBLEM_JSON
from textllm_http.requests import QueryString

_REF: Final = "#/components/schemas/{name}"
_ABOUT: Final = (
    "A self-hosted conversation backend with exact books. JSON in and out; unknown fields and query parameters are "
    "refused. Every error is `application/problem+json` (RFC 9457) with a `code` that never changes; every response "
    "has an `X-Request-ID`. What answers GET answers HEAD, too, but for streams. Money is USD, time is UTC.\n\n"
    "Below `/v1` stands the door for OpenAI's clients: errors have the shape of OpenAI's API, with the same codes, and "
    "unknown fields and query parameters are ignored.\n\n"
    "Where keys are required, a call brings one as `Authorization: Bearer tllm_…`. A key of the role `user` acts for "
    "one user alone, `service` for every user of the tenant; `admin` may do that, too, and manages the tenant's keys. "
    "What a key may not see is 404, as if it did not exist.\n\n"
    "Unless said otherwise answers are kept by nobody and are no pages: `Cache-Control: no-store`, "
    "`Content-Security-Policy`, `Referrer-Policy`, `X-Content-Type-Options` and `Server` come with all of them, and "
    "`Access-Control-Allow-Origin` and its kind for the origins of `cors_origins`. `Traceparent` and `Tracestate` are "
    "heeded where the service is traced."
)
_TAGS: Final = {
    "Chat": "Turns and their replies.",
    "Conversations": "What was said, and how it is kept.",
    "Usage": "What users used, by day and by model.",
    "Files": "Files that users keep.",
    "Keys": "API keys of a tenant, for its admins.",
    "OpenAI": "The door for OpenAI's clients: bodies, answers and errors have the shapes of OpenAI's API.",
    "Operations": "For whoever runs the service.",
    "Documentation": "What you are reading.",
}


class FieldError(Struct, frozen=True):
    """What is wrong with a field."""

    field: Annotated[str, Meta(description="The name of the field.")]
    message: Annotated[str, Meta(description="What is wrong with it, for people.")]


class ProblemDocument(Struct, frozen=True):
    """A failure. What stands behind `code` depends on it."""

    type: Annotated[str, Meta(description="A page that says what it means, and what to do.")]
    title: Annotated[str, Meta(description="The code in words.")]
    status: Annotated[int, Meta(description="That of the response.")]
    detail: Annotated[str, Meta(description="What went wrong, for people.")]
    instance: Annotated[str, Meta(description="The id of the request, as in `X-Request-ID`.")]
    code: Annotated[str, Meta(description="What went wrong, for programs; it never changes.")]
    errors: Annotated[Sequence[FieldError] | UnsetType, Meta(description="What is wrong with which field.")] = UNSET
    retry_after_s: Annotated[
        int | UnsetType, Meta(description="After how many seconds the same request may pass, as in `Retry-After`.")
    ] = UNSET
    limit: Annotated[Decimal | UnsetType, Meta(description="The most that is allowed.")] = UNSET
    spent: Annotated[Decimal | UnsetType, Meta(description="USD that the user has spent today.")] = UNSET
    resets_at: Annotated[datetime | UnsetType, Meta(description="When the budget resets: the next UTC midnight.")] = (
        UNSET
    )
    reserved: Annotated[
        bool | UnsetType,
        Meta(description="True where only turns that are still running stand in the way, so that a retry may pass."),
    ] = UNSET
    counts: Annotated[
        Literal["bytes", "pixels", "stored_bytes", "pages", "characters", "unpacked_bytes"] | UnsetType,
        Meta(description="What `limit` counts; `stored_bytes`: those of all files of the tenant together."),
    ] = UNSET
    reason: Annotated[UnreadableReason | UnsetType, Meta(description="Why the document cannot be read.")] = UNSET
    cost: Annotated[
        Decimal | UnsetType, Meta(description="USD that a turn has cost which was admitted, and ended in this.")
    ] = UNSET
    estimated: Annotated[
        bool | UnsetType, Meta(description="True: `cost` is an estimate, which the provider may yet correct.")
    ] = UNSET


def document_of(routes: Iterable[BaseRoute]) -> Schema:
    """The document of these routes: what their handlers are, and what stands beside them as `described`."""
    paths: dict[str, Schema] = {}
    shapes: set[type[Struct]] = {ProblemDocument, DoorErrorDocument}
    for method, path, handler, operation in operations_of(routes):
        shapes |= _shapes_in(operation)
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, handler, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TextLLM",
            "version": version("textllm"),
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": says} for name, says in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _components(shapes),
            "examples": {
                **{name: {"value": problem.document} for name, problem in PROBLEMS.items()},
                **{_of_door(name): {"value": problem.door_document} for name, problem in PROBLEMS.items()},
            },
            "headers": {
                name: {"description": says, "schema": {"type": "string"}, "required": name == "X-Request-ID"}
                for name, says in RESPONSE_HEADERS.items()
            },
            "parameters": {
                name: {"name": name, "in": "header", "description": says, "schema": schema}
                for name, (says, schema) in REQUEST_HEADERS.items()
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `tllm_` and 49 characters."},
                "operator": {"type": "http", "scheme": "bearer", "description": "What TEXTLLM_METRICS_TOKEN says."},
            },
        },
    }


def operations_of(routes: Iterable[BaseRoute]) -> list[tuple[str, str, HTTPRouteHandler, Operation]]:
    """The operations: method, path, handler and words, by path.

    Raises:
        KeyError: a handler has no words.
    """
    found = [
        (str(method), words.path or route.path_format, handler, words)
        for route in routes
        for handler in (route.route_handlers if isinstance(route, HTTPRoute) else ())
        for method in handler.http_methods - {"HEAD", "OPTIONS"}  # the one goes wherever GET does, the other is HTTP's
        for words in _words_of(handler)
    ]
    return sorted(found, key=lambda each: (each[1], each[0]))


def _words_of(handler: HTTPRouteHandler) -> tuple[Operation, ...]:
    described: Operation | tuple[Operation, ...] = handler.opt["described"]
    return described if isinstance(described, tuple) else (described,)


def _summary(handler: HTTPRouteHandler) -> str:
    """The first line of its docstring."""
    return (handler.fn.__doc__ or "").strip().partition("\n")[0].removesuffix(".")


def _operation(method: str, path: str, handler: HTTPRouteHandler, words: Operation) -> Schema:
    security, role, refusals = _asked_of_callers(handler)
    has_body = {"input_too_long", "unsupported_media_type"} if words.body else set()
    problems = {"invalid_request", "internal_error", *refusals, *has_body, *words.problems}
    written: Schema = {
        "tags": [words.tag],
        "summary": words.summary or _summary(handler),
        "description": " ".join(filter(None, (words.says, role))),
        "operationId": re.sub(r"[^a-z]+", "_", f"{method} {path}".lower()).strip("_"),
        "security": security,
        "parameters": [
            *_path_parameters(path),
            *(_query_parameters(handler) if words.has_query else ()),
            *_header_parameters(words.headers),
        ],
        "responses": _responses(words.answers, problems, is_door=words.tag == "OpenAI"),
    }
    if words.body:
        written["requestBody"] = {"required": words.needs_body, "content": _content(words.body)}
    return written


def _asked_of_callers(handler: HTTPRouteHandler) -> tuple[list[dict[str, list[str]]], str, set[str]]:
    """What a handler's guard asks: as a security requirement, in words, and the codes of its refusals."""
    refusals = {"unauthenticated", "rate_limited", "storage_unavailable"}
    match handler.guards:
        case [guard] if guard is open_to_all:
            return [], "Needs no key.", set()
        case [guard] if guard is any_caller_or_link:
            return [{"key": []}, {}], "Needs a key of any role, or a signed link.", refusals
        case [guard] if guard is operator:
            role = "It is about the whole service: needs the operator's token where keys are required, or one is set."
            return [{"operator": []}], role, refusals | {"forbidden"}
        case [guard] if guard is admin_caller:
            return [{"key": ["admin"]}], "Needs a key of the role `admin`.", refusals | {"forbidden"}
    return [{"key": []}], "Needs a key of any role.", refusals


def _path_parameters(path: str) -> Iterator[Schema]:
    for name in re.findall(r"{(\w+)}", path):
        says, schema = PATHS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": says,
            "schema": {"type": "string", **schema},
        }


def _query_parameters(handler: HTTPRouteHandler) -> Iterator[Schema]:
    check = getattr(handler.resolve_before_request(), "__self__", None)
    if not isinstance(check, QueryString):
        return
    kind = check.kind
    for name, schema in _plain_components({kind})[kind.__name__]["properties"].items():
        is_text = schema.get("type") == "string" and not schema.keys() & {"enum", "pattern"}
        limits = {"minLength": 1} if is_text else {}  # an empty one is refused
        yield {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema | limits}


def _header_parameters(names: Iterable[str]) -> Iterator[Schema]:
    for name in (*names, "X-Request-ID"):
        yield {"$ref": f"#/components/parameters/{name}"}


def _of_door(name: str) -> str:
    return f"{name}_of_v1"


def _responses(answers: Mapping[int, Answer], problems: Iterable[str], *, is_door: bool) -> Schema:
    responses: dict[int, Schema] = {}
    for status, answer in answers.items():
        responses[status] = {
            "description": answer.says,
            "headers": _headers(answer.headers),
            "content": _content(answer.content),
        }
    sent = {name for answer in answers.values() for name in answer.headers}
    counted = [name for name in (*LIMITED, *DOOR_LIMITED, "Idempotent-Replayed") if name in sent]
    for name in sorted(problems):
        status = PROBLEMS[name].status
        response = responses.setdefault(status, {"description": "", "headers": _headers(()), "content": {}})
        says = f"`{PROBLEMS[name].code}`: {PROBLEMS[name].says}"
        response["description"] = "\n\n".join(filter(None, (response["description"], says)))
        (_add_door_error if is_door else _add_problem)(response, name, counted)
    return {str(status): response for status, response in sorted(responses.items())}


def _add_problem(response: Schema, name: str, counted: Iterable[str]) -> None:
    response["headers"] |= _headers((*counted, *PROBLEMS[name].headers))
    told = response["content"].setdefault(PROBLEM_JSON, _told_of("ProblemDocument", {"code": {"enum": []}}))
    told["schema"]["properties"]["code"]["enum"].append(PROBLEMS[name].code)
    told["examples"][name] = {"$ref": f"#/components/examples/{name}"}


def _add_door_error(response: Schema, name: str, counted: Iterable[str]) -> None:
    response["headers"] |= _headers((*counted, *PROBLEMS[name].door_headers))
    where: Schema = {"error": {"properties": {"code": {"enum": []}}}}
    told = response["content"].setdefault(JSON, _told_of("DoorErrorDocument", where))
    told["schema"]["properties"]["error"]["properties"]["code"]["enum"].append(PROBLEMS[name].code)
    told["examples"][name] = {"$ref": f"#/components/examples/{_of_door(name)}"}


def _told_of(shape: str, code: Schema) -> Schema:
    """What failures of one status are; `code`: where theirs stands, with a list for those that there are."""
    return {"schema": {"allOf": [{"$ref": _REF.format(name=shape)}], "properties": code}, "examples": {}}


def _headers(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def _content(content: Mapping[str, Content]) -> Schema:
    written: Schema = {}
    for media_type, body in content.items():
        written[media_type] = {"schema": _schema(body.shape)}
        if body.examples:
            written[media_type]["examples"] = {
                re.sub(r"[^A-Za-z0-9]+", "-", name): {"summary": name, "value": value}
                for name, value in body.examples.items()
            }
    return written


def _schema(shape: type[Struct] | Form | Schema) -> Schema:
    if isinstance(shape, type):
        return {"$ref": _REF.format(name=shape.__name__)}
    if isinstance(shape, Form):
        return _form(shape)
    if "anyOf" in shape:
        return shape | {"anyOf": [_schema(each) for each in shape["anyOf"]]}
    return shape


def _form(form: Form) -> Schema:
    fields = _plain_components({form.fields})[form.fields.__name__]["properties"]
    texts = {
        name: {"type": "string"} | {key: field[key] for key in ("description", "enum") if key in field}
        for name, field in fields.items()
    }
    return {
        "type": "object",
        "properties": {**texts, **form.files},
        "required": list(form.required),
        "additionalProperties": False,
    }


def _shapes_in(operation: Operation) -> set[type[Struct]]:
    contents = [*operation.body.values(), *(each for a in operation.answers.values() for each in a.content.values())]
    shapes: set[type[Struct]] = set()
    for content in contents:
        match content.shape:
            case type() as shape:
                shapes.add(shape)
            case {"anyOf": alternatives}:
                shapes |= set(alternatives)
    return shapes


def _components(shapes: Iterable[type[Struct]]) -> Mapping[str, Schema]:
    """The schemas of these Structs and of all that they hold."""
    components = _plain_components(shapes)
    for schema in components.values():
        is_request = schema.get("additionalProperties") is False  # which alone forbids fields that nobody knows
        for field, each in schema["properties"].items():
            if not is_request and "default" in each:  # a response has all its fields
                del each["default"]
                schema.setdefault("required", []).append(field)
            elif each.get("default", UNSET) is None:  # null says no more than leaving it out
                del each["default"]
    return components


def _plain_components(shapes: Iterable[type[Struct]]) -> dict[str, Schema]:
    ordered = sorted(shapes, key=lambda shape: shape.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    for schema in components.values():
        schema.pop("description", None)  # it is for those who read the code
        for field in schema["properties"].values():
            _lift_words(field)
        for each in _all_in(schema):
            if each.get("format") == "decimal":  # on the wire it is a number
                each.pop("format")
                each["type"] = "number"
            if "enum" in each and all(isinstance(choice, str) for choice in each["enum"]):
                each["type"] = "string"  # or readers of the document call it "any"
    return components


def _lift_words(field: Schema) -> None:
    """Let a field itself say what one of its alternatives says of it."""
    for kind in field.get("anyOf", ()):
        if words := kind.pop("description", None):
            field.setdefault("description", words)
    if "const" in field or len(field.get("enum", ())) == 1:  # by which Structs tell themselves apart
        field.setdefault("description", "What kind it is.")


def _all_in(schema: Any) -> Iterator[Schema]:
    if isinstance(schema, dict):
        yield schema
        for child in list(schema.values()):
            yield from _all_in(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _all_in(child)
