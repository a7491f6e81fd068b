// Vercel's AI SDK: a provider over each of OpenAI's APIs, as its users write them.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenResponses } from "@ai-sdk/open-responses";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = `${process.env.SERVER}/v1`;
const apiKey = process.env.KEY ?? "none";
const PNG = Buffer.from(process.env.PNG, "base64");
const openai = createOpenAI({ baseURL, apiKey });
const models = {
  chat: () => openai.chat("gpt-4o"),
  responses: () => openai.responses("gpt-4o"),
  compatible: () => createOpenAICompatible({ name: "textllm", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true })("gpt-4o"),
  open_responses: () => createOpenResponses({ name: "textllm", url: `${baseURL}/responses`, apiKey })("gpt-4o"),
};
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `rain in ${city}`,
  }),
};

for (const name of process.argv.slice(2)) {
  const model = models[name]();
  const whole = await generateText({ model, prompt: "Hello", maxRetries: 0 });
  assert.match(whole.text, /^\[[01]\] You said: Hello$/);
  assert.ok(whole.usage.inputTokens > 0 && whole.usage.outputTokens > 0);
  assert.equal(whole.finishReason, "stop");

  const streamed = streamText({ model, system: "Be brief.", prompt: "Hello", maxRetries: 0, onError: ({ error }) => { throw error; } });
  let text = "";
  for await (const delta of streamed.textStream) text += delta;
  assert.match(text, /\] You said: Hello$/);
  assert.ok((await streamed.usage).outputTokens > 0);

  const looped = await generateText({
    model, tools, prompt: "What is the weather?", stopWhen: stepCountIs(3), maxRetries: 0,
  });
  assert.equal(looped.text, 'The results are: rain in Paris.');
  assert.equal(looped.steps.length, 2);

  const stream = streamText({ model, tools, prompt: "What is the weather?", stopWhen: stepCountIs(3), maxRetries: 0 });
  assert.equal((await stream.steps).length, 2);
  assert.equal(await stream.text, "The results are: rain in Paris.");

  const { object } = await generateObject({
    model, prompt: "A river?", schema: z.object({ name: z.string(), length_km: z.number() }), maxRetries: 0,
  });
  assert.deepEqual(object, { name: "Paris", length_km: 2 });

  const seen = await generateText({
    model, maxRetries: 0,
    messages: [{ role: "user", content: [
      { type: "text", text: "Look" },
      { type: "image", image: PNG },
    ] }],
  });
  assert.match(seen.text, /Look Seen: [0-9a-f]{8}/);
  console.log(`${name} ok`);
}
