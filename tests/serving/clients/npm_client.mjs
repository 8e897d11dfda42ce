// What the official JavaScript client of OpenAI gets from a server, as one line of JSON: `node npm_client.mjs URL`.
import OpenAI from "openai";

const url = process.argv[2];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "x", maxRetries: 0, timeout: 30000 });
const prompt = { model: "pangu", prompt: ["却说", "曹操"], max_tokens: 8, temperature: 0, logprobs: 2 };
const talk = { model: "pangu", messages: [{ role: "user", content: "却说" }], max_tokens: 6, temperature: 0 };

async function all(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

async function refused(request) {
  try {
    await request;
  } catch (error) {
    const { status, code, requestID } = error;
    return { name: error.constructor.name, status, code, requestID };
  }
}

const running = async () => (await (await fetch(`${url}/health/ready`)).json()).running;

// Aborts a long stream after its first chunk; returns what runs at that time, and a little later.
async function left() {
  const stream = await client.completions.create({ ...prompt, prompt: "却说", max_tokens: 100, stream: true });
  let before;
  for await (const _ of stream) {
    before = await running();
    stream.controller.abort();
    break;
  }
  const deadline = Date.now() + 20000;
  while ((await running()) && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20));
  return [before, await running()];
}

const streaming = { stream: true, stream_options: { include_usage: true } };
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const found = {
  models,
  one: await client.models.retrieve("pangu/doctor"),
  text: await client.completions.create(prompt),
  textStream: await all(client.completions.create({ ...prompt, ...streaming })),
  chat: await client.chat.completions.create({ ...talk, logprobs: true, top_logprobs: 2 }),
  chatStream: await all(client.chat.completions.create({ ...talk, ...streaming })),
  chatHelper: (await client.chat.completions.stream({ ...talk, ...streaming }).finalChatCompletion()).choices,
  refused: [
    await refused(client.completions.create({ ...prompt, model: "nobody" })),
    await refused(client.completions.create({ ...prompt, max_tokens: 1000000 })),
  ],
  left: await left(),
};
console.log(JSON.stringify(found));
