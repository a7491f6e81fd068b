"""LangChain's `ChatOpenAI`: whole, streamed, with tools, structured and with an image, over either API."""

import os
import sys

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class River(BaseModel):
    """A river."""

    name: str
    length_km: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def main(api: str) -> None:
    model = ChatOpenAI(
        model="gpt-4o",
        base_url=f"{os.environ['SERVER']}/v1",
        api_key=os.environ.get("KEY", "none"),
        use_responses_api=api == "responses",
        max_retries=0,
        stream_usage=True,
    )
    whole = model.invoke("Hello")
    assert whole.text.endswith("] You said: Hello"), whole
    assert whole.usage_metadata and whole.usage_metadata["output_tokens"] > 0
    chunks = list(model.stream([("system", "Be brief."), ("human", "Hello")]))
    assert "".join(chunk.text for chunk in chunks).endswith("You said: Hello")
    asked = model.bind_tools([get_weather]).invoke("What is the weather?")
    assert isinstance(asked, AIMessage)
    [call] = asked.tool_calls
    told = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    answer = model.bind_tools([get_weather]).invoke([HumanMessage("What is the weather?"), asked, told])
    assert answer.text == "The results are: rain in Paris.", answer
    river = model.with_structured_output(River).invoke("A river?")
    assert river == River(name="Paris", length_km=2), river
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{os.environ['PNG']}"}}
    seen = model.invoke([HumanMessage([{"type": "text", "text": "Look"}, image])])
    assert "Look Seen: " in seen.text, seen
    print(f"{api} ok")


main(sys.argv[1])
