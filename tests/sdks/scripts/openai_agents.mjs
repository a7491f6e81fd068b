// OpenAI's Agents SDK for Node: a tool, a second turn, streamed, a shape of the answer, over either API.
import assert from "node:assert/strict";
import { Agent, run, setDefaultOpenAIClient, setOpenAIAPI, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

const api = process.argv[2];
const model = "gpt-4o";
setTracingDisabled(true);
setOpenAIAPI(api === "chat" ? "chat_completions" : api);
setDefaultOpenAIClient(
  new OpenAI({ baseURL: `${process.env.SERVER}/v1`, apiKey: process.env.KEY ?? "none", maxRetries: 0 }),
);
const weather = tool({
  name: "get_weather",
  description: "The weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `rain in ${city}`,
});
const River = z.object({ name: z.string(), length_km: z.number() });

const agent = new Agent({ name: "Guide", instructions: "Be brief.", model, tools: [weather] });
const first = await run(agent, "What is the weather?");
assert.equal(first.finalOutput, "The results are: rain in Paris.");
const second = await run(agent, [...first.history, { role: "user", content: "Hello" }]);
assert.match(second.finalOutput, /You said: Hello/);
const stream = await run(agent, "What is the weather?", { stream: true });
for await (const _ of stream);
assert.equal(stream.finalOutput, "The results are: rain in Paris.");
const shaped = await run(new Agent({ name: "River", model, outputType: River }), "A river?");
assert.deepEqual(shaped.finalOutput, { name: "Paris", length_km: 2 });
console.log(`${api} ok`);
