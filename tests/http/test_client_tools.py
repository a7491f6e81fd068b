"""Tools that clients run and that are no plain functions, at `/v1/responses`: groups, and those of free text."""

import base64
import json
from typing import Any

import pytest
from tests.http.conftest import Answer, Server, events_of
from tests.image_files import png

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import InputImage, InputText, NamedFunction, ToolCall, ToolResult

PATH = "/v1/responses"
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
SPAWN = {"type": "function", "name": "spawn", "description": "Begins one.", "parameters": {"type": "object"}}
AGENTS = {"type": "namespace", "name": "agents", "description": "Others that help.", "tools": [SPAWN, PATCH]}
TOOLS = [PATCH, AGENTS]
SAYS = ToolCall(call_id="call_1", name="apply_patch", arguments='{"input": "*** Begin\\nPatch"}')
BEGINS = ToolCall(call_id="call_2", name="agents__spawn", arguments='{"who": "ada"}')
EDITS = ToolCall(call_id="call_3", name="agents__apply_patch", arguments="no JSON")
CALLS = [
    {"type": "custom_tool_call", "name": "apply_patch", "call_id": "call_1", "input": "*** Begin\nPatch"},
    {
        "type": "function_call",
        "name": "spawn",
        "namespace": "agents",
        "call_id": "call_2",
        "arguments": '{"who": "ada"}',
    },
    {
        "type": "custom_tool_call",
        "name": "apply_patch",
        "namespace": "agents",
        "call_id": "call_3",
        "input": "no JSON",
    },
]
OUTPUTS = [
    {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"},
    {"type": "function_call_output", "call_id": "call_2", "output": "begun"},
    {"type": "custom_tool_call_output", "call_id": "call_3", "output": [{"type": "input_text", "text": "no"}]},
]


async def ask(server: Server, **body: Any) -> Answer:
    return await server.post(PATH, {"model": "gpt-4o", "input": "Do it.", "tools": TOOLS} | body)


def bare(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name not in ("id", "status")} for item in items]


@pytest.mark.parametrize("store", [True, False])
async def test_they_are_functions_to_the_model_and_what_they_are_to_the_client(server: Server, store: bool) -> None:
    server.bench.llm.script(*[ScriptedReply(tool_calls=(SAYS, BEGINS, EDITS))] * 2)
    whole = (await ask(server, store=store)).json()
    assert bare(whole["output"]) == CALLS
    assert whole["tools"][0] == PATCH
    assert [tool["name"] for tool in whole["tools"][1]["tools"]] == ["spawn", "apply_patch"]
    events = events_of(await ask(server, store=store, stream=True))
    assert bare(events[-1]["response"]["output"]) == CALLS
    written = [event for event in events if event["type"] == "response.custom_tool_call_input.done"]
    assert [event["input"] for event in written] == ["*** Begin\nPatch", "no JSON"]
    if store:
        kept = (await server.get(f"{PATH}/{whole['id']}")).json()
        assert (kept["output"], kept["tools"]) == (whole["output"], whole["tools"])
    request = server.bench.llm.requests[0]
    patch, spawn, of_group = request.tools
    assert [tool.name for tool in request.tools] == ["apply_patch", "agents__spawn", "agents__apply_patch"]
    assert patch.parameters is not None
    assert patch.parameters["required"] == ["input"]
    assert patch.description == "Edits files.\n\nThe text must keep this grammar (lark):\nstart: /.+/"
    assert spawn.description == "Others that help.\n\nBegins one."
    assert of_group.parameters == patch.parameters
    await server.bench.check_books()


@pytest.mark.parametrize("is_chain", [True, False])
async def test_what_came_of_them_goes_back_to_the_model(server: Server, is_chain: bool) -> None:
    server.bench.llm.script(ScriptedReply(tool_calls=(SAYS, BEGINS, EDITS)), ScriptedReply(text="Done."))
    first = (await ask(server, store=is_chain)).json()
    before = [] if is_chain else [{"role": "user", "content": "Do it."}, *first["output"]]
    behind = {"previous_response_id": first["id"]} if is_chain else {"store": False}
    answer = await ask(server, input=[*before, *OUTPUTS], **behind)
    assert answer.status == 200
    *past, results = server.bench.llm.requests[-1].messages
    assert results.tool_results == tuple(
        ToolResult(call_id=call_id, output=output)
        for call_id, output in (("call_1", "done"), ("call_2", "begun"), ("call_3", "no"))
    )
    if not is_chain:  # what a chain has said by then is kept at the provider
        said, calls = past
        assert said.text == "Do it."
        assert [call.name for call in calls.tool_calls] == ["apply_patch", "agents__spawn", "agents__apply_patch"]
        assert json.loads(calls.tool_calls[0].arguments) == {"input": "*** Begin\nPatch"}
    await server.bench.check_books()


IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{base64.b64encode(png(8, 8)).decode()}"}
SEES = [
    {"type": "function_call_output", "call_id": "call_1", "output": [IMAGE]},
    {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "two"}, IMAGE]},
]


@pytest.mark.parametrize("further", [[], [{"role": "user", "content": "What is it?"}]])
@pytest.mark.parametrize("is_chain", [True, False])
async def test_images_of_results_are_shown_behind_them(server: Server, is_chain: bool, further: list[Any]) -> None:
    server.bench.llm.script(ScriptedReply(tool_calls=(SAYS, BEGINS)))
    first = (await ask(server, store=is_chain)).json()
    before = [] if is_chain else [{"role": "user", "content": "Do it."}, *first["output"]]
    behind = {"previous_response_id": first["id"]} if is_chain else {"store": False}
    told = (await ask(server, input=[*before, *SEES, *further], **behind)).json()
    assert told["output"][0]["content"][0]["text"].count("Seen: ") == 1
    sent = server.bench.llm.requests[-1].messages
    parts = [part for message in sent[0 if is_chain else 2 :] for part in message.content]
    results = [ToolResult(call_id="call_1", output="It is shown below."), ToolResult(call_id="call_2", output="two")]
    assert parts[:2] == results
    assert [type(part) for part in parts[2:4]] == [InputImage, InputImage]
    assert [part.text for part in parts[4:] if isinstance(part, InputText)] == ["What is it?"] * len(further)
    await server.bench.check_books()


async def test_images_of_results_come_before_the_next_reply(server: Server) -> None:
    said = [*CALLS[:1], SEES[0], {"role": "assistant", "content": "A square."}, {"role": "user", "content": "Red?"}]
    assert (await ask(server, input=said, store=False)).status == 200
    (request,) = server.bench.llm.requests
    assert [message.role for message in request.messages] == ["assistant", "user", "user", "assistant", "user"]


CHOICES: list[tuple[Any, Any, list[str]]] = [
    (
        {"type": "custom", "name": "apply_patch"},
        NamedFunction("apply_patch"),
        ["apply_patch", "agents__spawn", "agents__apply_patch"],
    ),
    (
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "custom", "name": "apply_patch"}, {"type": "namespace", "name": "agents"}],
        },
        "required",
        ["apply_patch", "agents__spawn", "agents__apply_patch"],
    ),
    (
        {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "spawn", "namespace": "agents"}],
        },
        "auto",
        ["agents__spawn"],
    ),
]


@pytest.mark.parametrize(("choice", "asked", "allowed"), CHOICES)
async def test_they_can_be_chosen(server: Server, choice: Any, asked: Any, allowed: list[str]) -> None:
    assert (await ask(server, tool_choice=choice)).status == 200
    (request,) = server.bench.llm.requests
    assert (request.tool_choice, [tool.name for tool in request.tools]) == (asked, allowed)


async def test_a_long_name_is_shortened_and_told_in_full(server: Server) -> None:
    group = {"type": "namespace", "name": "mcp.files", "description": "Files.", "tools": [SPAWN | {"name": "r" * 64}]}
    server.bench.llm.script(ScriptedReply())
    assert (await ask(server, tools=[group])).status == 200
    (tool,) = server.bench.llm.requests[0].tools
    assert len(tool.name) == 64
    server.bench.llm.script(ScriptedReply(tool_calls=(ToolCall(call_id="c", name=tool.name, arguments="{}"),)))
    [call] = (await ask(server, tools=[group])).json()["output"]
    assert (call["name"], call["namespace"]) == ("r" * 64, "mcp.files")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"input": "\\ud83d\\ude00 \\ud83d"}', "\U0001f600 \ufffd"),
        ("[" * 20_000, "[" * 20_000),
        ('{"input": ' + "[" * 20_000, '{"input": ' + "[" * 20_000),
    ],
)
async def test_whatever_a_model_writes_for_a_tool_of_free_text_is_told(
    server: Server, arguments: str, told: str
) -> None:
    call = ToolCall(call_id="call_1", name="apply_patch", arguments=arguments)
    server.bench.llm.script(*[ScriptedReply(tool_calls=(call,))] * 2)
    whole = (await ask(server)).json()
    assert [item["input"] for item in whole["output"]] == [told]
    assert (await server.get(f"{PATH}/{whole['id']}")).json()["output"] == whole["output"]
    assert events_of(await ask(server, stream=True))[-1]["response"]["output"][0]["input"] == told


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "custom"}, "tools[0].name"),
    ({"type": "custom", "name": "x", "format": {"type": "grammar", "syntax": "bnf"}}, "tools[0].format.syntax"),
    ({"type": "namespace", "name": "x", "description": "y"}, "tools[0].tools"),
    ({"type": "namespace", "name": "x", "description": "y", "tools": "z"}, "tools[0].tools"),
    ({"type": "namespace", "name": "x", "tools": [{"type": "web_search"}]}, "tools[0].tools[0].type"),
    ({"type": "namespace", "name": "x", "tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
    ({"type": "namespace", "name": "x", "tools": [SPAWN | {"parameters": 1}]}, "tools[0].tools[0].parameters"),
    ({"type": "namespace", "name": "x", "tools": [{"type": ["function"]}]}, "tools[0].tools[0].type"),
    ({"type": "tool_search"}, "tools[0].type"),
    ({"type": ["custom"]}, "tools[0].type"),
]


@pytest.mark.parametrize(("tool", "field"), WRONG)
async def test_what_is_none_is_refused_by_its_place(server: Server, tool: dict[str, Any], field: str) -> None:
    answer = await ask(server, tools=[tool])
    assert (answer.status, answer.json()["error"]["param"]) == (400, field)
    assert server.bench.llm.requests == []


@pytest.mark.parametrize(
    ("tools", "says"),
    [([None], "tools: must be a list of objects"), ([{"type": ""}], "tools[0].type: this is a tool of OpenAI's")],
)
async def test_what_is_none_is_told_in_words(server: Server, tools: list[Any], says: str) -> None:
    assert says in (await ask(server, tools=tools)).json()["error"]["message"]
