"""What Open Responses asks of a server: its own acceptance cases, over a socket, and its schemas."""

import json
from typing import Any

import httpx
import pytest
from tests.openai.described import check, check_event
from tests.sdks.conftest import Served

pytestmark = [pytest.mark.sdks, pytest.mark.timeout(300)]

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place now.",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
IS_IT_RAINING = {"input": [{"type": "message", "role": "user", "content": "How is the weather?"}], "tools": [WEATHER]}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def whole(served: Served, **body: Any) -> dict[str, Any]:
    answer = httpx.post(
        f"{served.service.url}/v1/responses",
        json={"model": "gpt-4o"} | body,
        headers={"Authorization": f"Bearer {served.key}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    check("POST", "/v1/responses", 200, told)
    return told


def streamed(served: Served, **body: Any) -> list[dict[str, Any]]:
    answer = httpx.post(
        f"{served.service.url}/v1/responses",
        json={"model": "gpt-4o", "stream": True} | body,
        headers={"Authorization": f"Bearer {served.key}"},
        timeout=60,
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, last, rest = answer.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    events = []
    for frame in frames:
        kind, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        check_event(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


@pytest.mark.parametrize(
    "given",
    [
        [message("user", "Say hello in three words.")],
        [message("system", "You are a pirate."), message("user", "Say hello.")],
        [message("user", "My name is Alice."), message("assistant", "Hello!"), message("user", "What is my name?")],
    ],
)
@pytest.mark.parametrize("store", [True, False])
def test_messages_are_answered(served: Served, given: list[Any], store: bool) -> None:
    told = whole(served, input=given, store=store)
    assert told["status"] == "completed"
    [said] = [item for item in told["output"] if item["type"] == "message"]
    assert said["content"][0]["text"].endswith("Alice." if len(given) == 3 else given[-1]["content"])


def test_an_image_is_seen(served: Served) -> None:
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{served.environment()['PNG']}"}
    told = whole(served, input=[message("user", [{"type": "input_text", "text": "What is it?"}, picture])])
    assert "Seen: " in told["output"][0]["content"][0]["text"]


def test_a_stream_has_each_event_in_its_place(served: Served) -> None:
    events = streamed(served, input=[message("user", "Count from 1 to 5.")])
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[-1]["response"]["status"] == "completed"


def test_a_function_is_called(served: Served) -> None:
    told = whole(served, **IS_IT_RAINING)
    assert [item["type"] for item in told["output"]] == ["function_call"]
    assert json.loads(told["output"][0]["arguments"]) == {"location": "Paris"}


def test_a_call_of_a_function_is_streamed(served: Served) -> None:
    events = streamed(served, **IS_IT_RAINING)
    of_items = {event["type"]: event["item"]["type"] for event in events if "item" in event}
    assert of_items == {
        "response.output_item.added": "function_call",
        "response.output_item.done": "function_call",
    }
    kinds = {event["type"] for event in events}
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
