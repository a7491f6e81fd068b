// openai-node: files, Chat Completions, Responses and conversations against a server, as its users write them.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.SERVER}/v1`, apiKey: process.env.KEY ?? "none", maxRetries: 0 });
const model = "gpt-4o";
const user = process.env.USER_ID;
const PNG = Buffer.from(process.env.PNG, "base64");
const River = z.object({ name: z.string(), length_km: z.number() });
const weather = {
  name: "get_weather",
  description: "The weather of a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  strict: true,
};

const parts = {
  async models() {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id);
    assert.ok(names.includes(model));
  },

  async files() {
    const file = await client.files.create({ file: await toFile(PNG, "one.png"), purpose: "vision" });
    assert.equal(file.bytes, PNG.length);
    assert.equal((await client.files.retrieve(file.id)).filename, "one.png");
    const content = Buffer.from(await (await client.files.content(file.id)).arrayBuffer());
    assert.deepEqual(content, PNG);
    await client.files.create({ file: await toFile(Buffer.from("tea"), "b.txt"), purpose: "user_data" });
    const ids = [];
    for await (const each of client.files.list({ limit: 1, purpose: "vision" })) ids.push(each.id);
    assert.ok(ids.includes(file.id));
    assert.deepEqual(await client.files.delete(file.id), { id: file.id, object: "file", deleted: true });
    await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
  },

  async chat() {
    const whole = await client.chat.completions.create({ model, user, messages: [{ role: "user", content: "Hello" }] });
    assert.match(whole.choices[0].message.content, /^\[[01]\] You said: Hello$/);
    const stream = client.chat.completions.stream({
      model, user, stream_options: { include_usage: true }, messages: [{ role: "user", content: "Hello" }],
    });
    let text = "";
    stream.on("content", (delta) => { text += delta; });
    const end = await stream.finalChatCompletion();
    assert.equal(text, end.choices[0].message.content);
    assert.equal((await stream.totalUsage()).completion_tokens, whole.usage.completion_tokens);
    const parsed = await client.chat.completions.parse({
      model, user, messages: [{ role: "user", content: "A river?" }], response_format: zodResponseFormat(River, "river"),
    });
    assert.deepEqual(parsed.choices[0].message.parsed, { name: "Paris", length_km: 2 });
    const runner = client.chat.completions.runTools({
      model, user, messages: [{ role: "user", content: "What is the weather?" }],
      tools: [{ type: "function", function: { ...weather, strict: undefined, parse: JSON.parse, function: ({ city }) => `rain in ${city}` } }],
    });
    assert.equal(await runner.finalContent(), "The results are: rain in Paris.");
    const seen = await client.chat.completions.create({
      model, user,
      messages: [{ role: "user", content: [
        { type: "text", text: "Look" },
        { type: "image_url", image_url: { url: `data:image/png;base64,${PNG.toString("base64")}` } },
      ] }],
    });
    assert.match(seen.choices[0].message.content, /Look Seen: [0-9a-f]{8}/);
  },

  async responses() {
    const first = await client.responses.create({ model, user, input: "Hello" });
    assert.match(first.output_text, /^\[[01]\] You said: Hello$/);
    const second = await client.responses.create({ model, user, input: "And now?", previous_response_id: first.id });
    assert.match(second.output_text, /^\[[23]\] You said: And now\?$/);
    assert.equal((await client.responses.retrieve(second.id)).output_text, second.output_text);
    const items = [];
    for await (const item of client.responses.inputItems.list(second.id)) items.push(item);
    assert.ok(items.length >= 1);
    const stream = client.responses.stream({ model, user, input: "Hello" });
    let text = "";
    stream.on("response.output_text.delta", (event) => { text += event.delta; });
    assert.equal((await stream.finalResponse()).output_text, text);
    const parsed = await client.responses.parse({
      model, user, input: "A river?", text: { format: zodTextFormat(River, "river") },
    });
    assert.deepEqual(parsed.output_parsed, { name: "Paris", length_km: 2 });
    const asked = await client.responses.create({
      model, user, input: "What is the weather?", tools: [{ type: "function", ...weather }],
    });
    const call = asked.output.find((item) => item.type === "function_call");
    const told = await client.responses.create({
      model, user, previous_response_id: asked.id, tools: [{ type: "function", ...weather }],
      input: [{ type: "function_call_output", call_id: call.call_id, output: "rain" }],
    });
    assert.equal(told.output_text, "The results are: rain.");
    const file = await client.files.create({ file: await toFile(PNG, "one.png"), purpose: "vision" });
    const look = { role: "user", content: [{ type: "input_text", text: "Look" }] };
    for (const image of [{ file_id: file.id }, { image_url: `data:image/png;base64,${PNG.toString("base64")}` }]) {
      for (const store of [true, false]) {
        const input = [{ ...look, content: [...look.content, { type: "input_image", detail: "auto", ...image }] }];
        assert.match((await client.responses.create({ model, user, store, input })).output_text, /Look Seen: [0-9a-f]{8}/);
      }
    }
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
  },

  async conversations() {
    const conversation = await client.conversations.create({ metadata: { topic: "tea" } });
    const said = await client.responses.create({ model, user, conversation: conversation.id, input: "Hello" });
    assert.equal(said.conversation.id, conversation.id);
    const again = await client.responses.create({ model, user, conversation: conversation.id, input: "And now?" });
    assert.match(again.output_text, /^\[[23]\] You said: And now\?$/);
    const items = [];
    for await (const item of client.conversations.items.list(conversation.id, { order: "asc" })) items.push(item);
    assert.equal(items.length, 4);
    assert.equal((await client.conversations.retrieve(conversation.id)).metadata.topic, "tea");
    assert.equal((await client.conversations.delete(conversation.id)).deleted, true);
  },

  async errors() {
    const wrong = client.chat.completions.create({ model, messages: [{ role: "user", content: [{ type: "input_audio" }] }] });
    await assert.rejects(wrong, (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, "invalid_request");
      assert.ok(error.requestID);
      return true;
    });
  },
};

for (const name of process.argv.slice(2)) {
  await parts[name]();
  console.log(`${name} ok`);
}
