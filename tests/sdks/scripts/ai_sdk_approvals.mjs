// Vercel's AI SDK: a server of MCP, whose calls are approved. Without `store` it leaves out what it approves, which OpenAI refuses.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText } from "ai";

const openai = createOpenAI({ baseURL: `${process.env.SERVER}/v1`, apiKey: process.env.KEY ?? "none" });
const tools = { mcp: openai.tools.mcp({ serverLabel: "wiki", serverUrl: "https://mcp.example", requireApproval: "always" }) };
const asked = { model: openai.responses("gpt-4o"), tools, maxRetries: 0 };
const messages = [{ role: "user", content: "Ask the wiki." }];
const first = await generateText({ ...asked, messages });
const requests = first.content.filter((part) => part.type === "tool-approval-request");
assert.equal(requests.length, 1, JSON.stringify(first.content));
const approved = ({ approvalId }) => ({ type: "tool-approval-response", approvalId, approved: true, providerExecuted: true });
messages.push(...first.response.messages, { role: "tool", content: requests.map(approved) });
const second = await generateText({ ...asked, messages });
assert.equal(second.text, "The wiki was asked.", JSON.stringify(second.content));
console.log("approvals ok");
