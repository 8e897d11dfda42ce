/**
 * What the page asks of the server (JSON, streams of events, the same as curl and Python), what the browser keeps of
 * it, and the state that a request, a link and an entry of the history are made of. No element, no language.
 */
const [KEY, HISTORY, ENTRIES] = ["pangu-key", "pangu-history", 50];

export const CONTROLS = { // name: least, most, step, at first
  temperature: [0, 2, 0.05, 0.8], top_p: [0.05, 1, 0.05, 0.9], top_k: [0, 100, 1, 0], frequency_penalty: [-2, 2, 0.1, 0],
  presence_penalty: [-2, 2, 0.1, 0], max_tokens: [1, 512, 1, 128], n: [1, 8, 1, 1],
};

// What the browser keeps

/** The result, or null where the browser forbids it: private windows, a full store. */
function attempt(act) {
  try {
    return act();
  } catch {
    return null;
  }
}

/** The text kept under a name, or null. */
export const recall = (name, store = "localStorage") => attempt(() => window[store].getItem(name));
/** Keeps a text under a name; null forgets it. */
export const keep = (name, text, store = "localStorage") =>
  attempt(() => (text === null ? window[store].removeItem(name) : window[store].setItem(name, text)));
/** The history: `{time, title, state}`, the latest first. */
export const past = {
  get: () => attempt(() => JSON.parse(recall(HISTORY)).filter((entry) => entry.state)) ?? [],
  set: (entries) => keep(HISTORY, entries.length ? JSON.stringify(entries.slice(0, ENTRIES)) : null),
};

let askForKey = async (_wrong) => false;
export const key = {
  get: () => recall(KEY, "sessionStorage"),
  set: (text) => keep(KEY, text, "sessionStorage"),
  onMissing: (ask) => (askForKey = ask), // ask(wrong) resolves to whether there is a key to try
};

/** Copies a text; false where the browser does not let a page do so. */
export async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = document.body.appendChild(document.createElement("textarea")); // plain HTTP from another machine
  area.value = text;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// What is asked of the server

/** A refusal of the server, or a failure on the way to it. `seconds`: to wait, if the server said so. */
export class ServerError extends Error {
  code; seconds; detail;
  constructor(code, { message = code, seconds = 1, detail = {} } = {}) {
    super(message);
    Object.assign(this, { code, seconds, detail });
  }
}

async function refusal(answer) {
  const detail = (await answer.json().catch(() => null))?.error ?? {};
  const { code, message = `HTTP ${answer.status}` } = detail;
  return new ServerError(code ?? "unknown", { message, detail, seconds: Number.parseInt(answer.headers.get("Retry-After"), 10) || 1 });
}

/** The answer to a POST of a body, else to a GET. Asks the user for a key if it needs one and is not quiet. */
async function send(path, body, options = {}) {
  const used = key.get();
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(used && { Authorization: `Bearer ${used}` }) };
  const given = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: options.signal };
  const answer = await fetch(path, given).catch((cause) => {
    throw options.signal?.aborted ? cause : new ServerError("unreachable");
  });
  if (answer.ok) return answer;
  if (answer.status === 401 && !options.quiet && (await askForKey(Boolean(used)))) return send(path, body, options);
  throw await refusal(answer);
}

/** The JSON that the server answers. */
export const json = async (path, body, options) => (await send(path, body, options)).json();

async function* dataLines(body) {
  const [reader, decoder] = [body.getReader(), new TextDecoder("utf-8")];
  for (let rest = "", end = false; !end; ) {
    const { value, done } = await reader.read();
    const lines = (rest + decoder.decode(value, { stream: !done })).split("\n");
    [rest, end] = [lines.pop(), done];
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

/** The chunks of a streamed answer, until the signal aborts it. @throws {ServerError} It was refused or broke off. */
export async function* stream(path, body, signal) {
  const answer = await send(path, { ...body, stream: true }, { signal });
  try {
    for await (const data of dataLines(answer.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.code ?? "internal_error", { message: chunk.error.message });
      yield chunk;
    }
  } catch (cause) {
    throw signal.aborted || cause instanceof ServerError ? cause : new ServerError("cut");
  }
  throw new ServerError("cut");
}

/** Two ids may have one text: the likelier one stands for both. The likeliest comes first. */
function merged(pairs) {
  const best = new Map();
  for (const [text, logprob] of pairs) best.set(text, Math.max(logprob, best.get(text) ?? -Infinity));
  return [...best].sort((one, other) => other[1] - one[1]);
}

/** The tokens of a chunk's choice: `{text, logprob, top: [[text, logprob], ...]}`. If they do not spell its text, that is one token. */
export function tokensOf({ text, delta, logprobs: found }) {
  const whole = text ?? delta?.content ?? "";
  const rows = found?.content?.map((one) => [one.token, one.logprob, one.top_logprobs.map((other) => [other.token, other.logprob])])
    ?? found?.tokens?.map((token, place) => [token, found.token_logprobs[place], Object.entries(found.top_logprobs?.[place] ?? {})]) ?? [];
  if (rows.map(([token]) => token).join("") !== whole) return whole ? [{ text: whole, logprob: null, top: [] }] : [];
  return rows.map(([token, logprob, top]) => ({ text: token, logprob, top: merged(top) }));
}

/** The path and the body that write samples from their beginning; `scenario` is the model, if it is one. @returns {[string, any]} */
export function request(state, { model, scenario, task, fields }) {
  const common = { model, ...state.settings, ...(state.locked && state.seed && { seed: Number(state.seed) }) };
  const persona = scenario ? "" : (state.fields.persona ?? "").trim();
  const system = persona ? [{ role: "system", content: persona }] : [];
  if (state.mode === "dialogue") return ["v1/chat/completions", { ...common, messages: [...system, ...state.turns] }];
  if (state.mode === "free") return ["v1/completions", { ...common, prompt: fields.prompt }];
  if (scenario) return ["v1/completions", { ...common, fields }];
  const examples = state.shots && task?.examples.length ? { examples: task.examples } : {};
  return ["v1/completions", { ...common, task: task?.id, fields, ...examples }];
}

/** The text to continue and its number of tokens. */
export const tokenized = (/** @type {[string, any]} */ [, { model, prompt, task, fields, examples, messages }], options = {}) =>
  json("tokenize", { model, prompt, task, fields, examples, messages }, options);

/** The path and the body that continue what the model has begun; `stop` ends it, null for nothing. */
export async function continuation(/** @type {[string, any]} */ [path, { task, fields, examples, ...body }], text, stop) {
  const last = { role: "assistant", content: text };
  if (body.messages) return [path, { ...body, n: 1, messages: [...body.messages, last], continue_final_message: true }];
  const { prompt } = task ? await tokenized([path, { model: body.model, task, fields, examples }]) : body;
  return [path, { ...body, n: 1, prompt: prompt + text, ...(task && stop && { stop }) }];
}

/** A request as a shell command. A key is named, not shown. */
export function asCurl(path, body) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const authorization = key.get() ? ' -H "Authorization: Bearer $PANGU_KEY"' : "";
  return `curl '${new URL(path, document.baseURI)}' -H 'Content-Type: application/json'${authorization} -d '${quoted}'\n`;
}

const KNOWN = "model prompt messages max_tokens temperature top_p n seed stop frequency_penalty presence_penalty".split(" ");

/** A request as Python with the openai package. */
export function asPython(path, body) {
  const chat = path.includes("chat");
  const known = Object.entries({ ...(!chat && { prompt: null }), ...body }).filter(([name]) => KNOWN.includes(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !KNOWN.includes(name)));
  return `${key.get() ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(
    base_url=${literal(String(new URL("v1", document.baseURI)))},
    api_key=${key.get() ? 'os.environ["PANGU_KEY"]' : '"none"'},
)
answer = client.${chat ? "chat." : ""}completions.create(
${[...known, ["extra_body", extra]].map(([name, value]) => `    ${name}=${literal(value)},\n`).join("")})
for choice in answer.choices:
    print(choice.${chat ? "message.content" : "text"})
`;
}

function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return `{${Object.entries(value).map(([name, inner]) => `${literal(name)}: ${literal(inner)}`).join(", ")}}`;
}

// The state

/** A state in which nothing is chosen or written yet. */
export function fresh() {
  const settings = Object.fromEntries(Object.entries(CONTROLS).map(([name, control]) => [name, control[3]]));
  return { mode: "free", task: "couplet", scenario: "", fields: {}, shots: true, turns: [], samples: [], picked: 0, settings, seed: "", locked: false };
}

/** What a link or an entry of the history holds of a state: all but the probabilities. */
export const snapshot = (state) => ({ ...state, samples: state.samples.map(({ tokens, end }) => ({ end, text: tokens.map((token) => token.text).join("") })) });

/** The state of a snapshot, of which only what has the right form is taken: anybody can write a link. */
export function restored(kept) {
  const start = fresh();
  const text = (value) => (typeof value === "string" ? value : "");
  const rows = (list, name) => (Array.isArray(list) ? list.filter((one) => typeof one?.[name] === "string") : []);
  const number = ([name, [least, most]]) => [name, Math.min(Math.max(Number(kept.settings?.[name] ?? start.settings[name]) || 0, least), most)];
  const end = (one) => (["length", "stop", "document", "cut"].includes(one.end) ? one.end : "halted");
  return {
    ...start, mode: ["task", "dialogue"].includes(kept.mode) ? kept.mode : "free", task: text(kept.task), scenario: text(kept.scenario),
    shots: kept.shots !== false, locked: kept.locked === true, seed: text(kept.seed).replace(/\D/g, "").slice(0, 15),
    fields: Object.fromEntries(Object.entries(kept.fields ?? {}).map(([name, value]) => [name, text(value)])),
    turns: rows(kept.turns, "content").map(({ role, content }) => ({ role: role === "assistant" ? role : "user", content })),
    samples: rows(kept.samples, "text").map((one) => ({ tokens: [{ text: one.text, logprob: null, top: [] }], end: end(one), stop: null })),
    picked: rows(kept.samples, "text")[kept.picked] && Number.isInteger(kept.picked) ? kept.picked : 0,
    settings: Object.fromEntries(Object.entries(CONTROLS).map(number)),
  };
}

/** A state as letters that an address may hold. */
export function packed(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(snapshot(state)));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The state of a link, or null if it is damaged. */
export const unpacked = (text) => attempt(() => {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  return restored(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
});
