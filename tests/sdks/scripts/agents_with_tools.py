"""OpenAI's Agents SDK: an agent with two tools and a session, over the API that its first argument names."""

import asyncio
import os
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@function_tool
def population(city: str) -> int:
    """How many live in a city."""
    return 2_100_000


async def main(api: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{os.environ['SERVER']}/v1", api_key=os.environ.get("KEY", "none"), max_retries=0)
    kind = OpenAIChatCompletionsModel if api == "chat" else OpenAIResponsesModel
    model = kind(model="gpt-4o", openai_client=client)
    agent = Agent(name="Guide", instructions="Help.", model=model, tools=[get_weather, population])
    session = OpenAIConversationsSession(openai_client=client) if api == "conversations" else SQLiteSession("one")
    result = await Runner.run(agent, "What are the weather and the population?", session=session)
    assert result.final_output == "The results are: rain in Paris, 2100000.", result.final_output
    await Runner.run(agent, "My name is Ada.", session=session)
    result = await Runner.run(agent, "What is my name?", session=session)
    assert result.final_output == "Your name is Ada.", result.final_output
    streamed = Runner.run_streamed(agent, "What is the weather?", session=session)
    kinds = {event.type async for event in streamed.stream_events()}
    assert {"raw_response_event", "run_item_stream_event"} <= kinds
    assert streamed.final_output.startswith("The results are: "), streamed.final_output
    assert len(await session.get_items()) >= 8
    print(f"{api} ok")


asyncio.run(main(sys.argv[1]))
