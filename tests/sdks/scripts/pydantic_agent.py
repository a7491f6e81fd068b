"""Pydantic AI: an agent with a tool, a second turn, streamed, an image and a shape of the answer, over either API."""

import asyncio
import base64
import os
import sys

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class River(BaseModel):
    """A river."""

    name: str
    length_km: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def main(api: str) -> None:
    provider = OpenAIProvider(base_url=f"{os.environ['SERVER']}/v1", api_key=os.environ.get("KEY", "none"))
    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatModel
    model: Model = kind("gpt-4o", provider=provider)
    agent = Agent(model, instructions="Be brief.", tools=[get_weather])
    first = await agent.run("What is the weather?")
    assert first.output == "The results are: rain in Paris.", first
    second = await agent.run("Hello", message_history=first.all_messages())
    assert "You said: Hello" in second.output, second
    async with agent.run_stream("Hello") as stream:
        assert "You said: Hello" in await stream.get_output()
    picture = BinaryContent(base64.b64decode(os.environ["PNG"]), media_type="image/png")
    seen = await agent.run(["Look", picture])
    assert "Look Seen: " in seen.output, seen
    river = await Agent(model, output_type=River).run("A river?")
    assert river.output == River(name="Paris", length_km=2), river
    print(f"{api} ok")


asyncio.run(main(sys.argv[1]))
