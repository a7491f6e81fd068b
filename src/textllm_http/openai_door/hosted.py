"""Tools that run on the provider's own servers, as `/v1/responses` is asked for them: checked, and sent on."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from textllm_core.errors import InvalidRequestError
from textllm_core.records.hosted import KINDS, HostedTool, HostedTools
from textllm_http.openai_door.shaping import host_of, shaped_at
from textllm_http.requests import JsonBody

_Definition = Mapping[str, Any]
# What is told of a call besides, and by which tool.
_INCLUDABLE: Final = {
    "file_search_call.results": "file_search",
    "web_search_call.results": "web_search",
    "web_search_call.action.sources": "web_search",
    "code_interpreter_call.outputs": "code_interpreter",
}
# As OpenAI's description has them: a search of the web is chosen by its older name.
CHOICES: Final = ("file_search", "web_search_preview", "web_search_preview_2025_03_11", "code_interpreter", "mcp")
_ADDRESS: Final = re.compile(r"[!-\[\]-~]+")  # no space, no backslash, and letters of ASCII alone
_SECRETS: Final = ("authorization", "headers")


class Location(Struct, frozen=True, kw_only=True):
    """About where a user is."""

    type: Literal["approximate"] = "approximate"
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class WebSearch(Struct, frozen=True, kw_only=True):
    """A search of the web."""

    filters: dict[str, Any] | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: Location | None = None
    external_web_access: bool | None = None
    search_content_types: list[Literal["text", "image"]] | None = None


class FileSearch(Struct, frozen=True, kw_only=True):
    """A search of files in vector stores of the provider's."""

    vector_store_ids: list[str]
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    ranking_options: dict[str, Any] | None = None
    filters: dict[str, Any] | None = None


class NewContainer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A container that is made for the request. Any other field might name what is in the operator's account."""

    type: Literal["auto"]
    file_ids: list[str] | None = None
    memory_limit: str | None = None
    network_policy: dict[str, Any] | None = None


class CodeInterpreter(Struct, frozen=True, kw_only=True):
    """Programs that the model writes, and the provider runs in a container."""

    container: str | NewContainer


class ServerTools(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some of the tools of a server."""

    tool_names: list[str] | None = None
    read_only: bool | None = None


class Approvals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of a server's tools are called once somebody approves it, and which at once."""

    always: ServerTools | None = None
    never: ServerTools | None = None


class Mcp(Struct, frozen=True, kw_only=True):
    """A server of the Model Context Protocol, which the provider asks."""

    server_label: str
    server_url: str | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    server_description: str | None = None
    authorization: str | None = None
    headers: dict[str, str] | None = None
    allowed_tools: list[str] | dict[str, Any] | None = None
    require_approval: Literal["always", "never"] | Approvals | None = None
    defer_loading: bool | None = None


_SHAPES: Final[Mapping[str, JsonBody[Any]]] = {
    "web_search": JsonBody(WebSearch),
    "file_search": JsonBody(FileSearch),
    "code_interpreter": JsonBody(CodeInterpreter),
    "mcp": JsonBody(Mcp),
}


def is_hosted(tool: _Definition) -> bool:
    """Whether a tool runs on the provider's servers, of those that an operator can allow."""
    kind = tool.get("type")
    return isinstance(kind, str) and kind in KINDS


def hosted_tools(
    tools: Sequence[_Definition], *, include: Sequence[str], max_tool_calls: int | None
) -> HostedTools | None:
    """Those of the tools that run on the provider's servers; None: there are none.

    Raises:
        InvalidRequestError: one is none that the provider takes.
    """
    if max_tool_calls is not None and max_tool_calls < 1:
        raise InvalidRequestError.of("max_tool_calls", "must be at least 1")
    if not tools:
        return None
    hosted = [_checked(tool, f"tools[{number}]") for number, tool in enumerate(tools) if is_hosted(tool)]
    if not hosted:
        return None
    kinds = {tool.kind for tool in hosted}
    return HostedTools(
        tools=hosted,
        include=[each for each in dict.fromkeys(include) if _INCLUDABLE.get(each) in kinds],
        most_calls=max_tool_calls,
    )


def _checked(tool: _Definition, place: str) -> HostedTool:
    hosted = HostedTool(tool, place)
    shape = shaped_at(_SHAPES[hosted.kind], tool, place)
    if isinstance(shape, Mcp):
        _check_server(shape, place)
    return hosted


def _check_server(server: Mcp, place: str) -> None:
    if not (server.server_url or server.connector_id or server.tunnel_id):
        raise InvalidRequestError.of(f"{place}.server_url", "is required, or connector_id, or tunnel_id")
    if server.server_url is not None and not _is_address(server.server_url):
        raise InvalidRequestError.of(f"{place}.server_url", "must be an address that begins with https://")


def _is_address(url: str) -> bool:
    """Whether all programs read it alike, so that the host which is allowed is the one that is asked."""
    return bool(host_of(url) and _ADDRESS.fullmatch(url))


def told_tool(tool: _Definition) -> dict[str, Any]:
    """What a response tells of such a tool: no key, and of an address, which may hold one, the host alone."""
    told = {name: value for name, value in tool.items() if name not in _SECRETS}
    if isinstance(url := told.get("server_url"), str) and _is_address(url):
        parts = urlsplit(url)
        rest = "" if parts.path in ("", "/") and not parts.query else "/..."
        told["server_url"] = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{rest}"
    return told
