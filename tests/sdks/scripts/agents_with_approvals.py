"""OpenAI's Agents SDK: an agent with a server of MCP, whose calls are approved, over the sessions that are named."""

import asyncio
import os
import sys

from agents import (
    Agent,
    HostedMCPTool,
    MCPToolApprovalRequest,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    set_tracing_disabled,
)
from openai import AsyncOpenAI


async def main(api: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{os.environ['SERVER']}/v1", api_key=os.environ.get("KEY", "none"), max_retries=0)
    seen: list[str] = []

    def approve(request: MCPToolApprovalRequest) -> dict[str, bool]:
        seen.append(request.data.name)
        return {"approve": True}

    server = {"type": "mcp", "server_label": "wiki", "server_url": "https://mcp.example", "require_approval": "always"}
    tool = HostedMCPTool(tool_config=server, on_approval_request=approve)
    model = OpenAIResponsesModel(model="gpt-4o", openai_client=client)
    agent = Agent(name="Guide", instructions="Help.", model=model, tools=[tool])
    session = OpenAIConversationsSession(openai_client=client) if api == "conversations" else SQLiteSession("one")
    for times in (1, 2):
        result = await Runner.run(agent, "Ask the wiki.", session=session)
        assert result.final_output == "The wiki was asked.", result.final_output
        assert seen == ["ask"] * times, seen
    streamed = Runner.run_streamed(agent, "Ask the wiki again.")
    async for _ in streamed.stream_events():
        pass
    assert streamed.final_output == "The wiki was asked.", streamed.final_output
    print(f"{api} ok")


asyncio.run(main(sys.argv[1]))
