/** The page: what the user chooses and writes, the answer that is being written, what is shown and what is told. */
import * as api from "./api.js";
import { Cards, begun, make, spelt } from "./result.js";
import { GREETINGS, OPENINGS, has, local, say, speak, spoken } from "./words.js";

const [LANGUAGE, UNDOS, ALTERNATIVES] = ["pangu-language", 50, 5];
const phone = matchMedia("(pointer: coarse)");
const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));

let [tasks, models, base] = [[], [], null];
let state = api.fresh();
let before = []; // states to go back to
let running = null; // the AbortController of the answer that is being written
let counting = 0; // timer of the token count

// What is chosen

const talks = () => state.mode === "dialogue";
const given = (name) => state.fields[name] ?? "";
/** The scenarios that are talked to, or those that fill in a form. */
const scenarios = (talked) => models.filter((one) => one.kind === "scenario" && /dialogue$/.test(one.task) === talked);
const scenario = () => models.find((one) => one.id === { free: "", task: state.task, dialogue: state.scenario }[state.mode]);
const model = () => scenario() ?? base ?? models[0];
const task = () => tasks.find((one) => one.id === (scenario()?.task ?? state.task));

/** The fields of the form: `{name, words, hint, lines, optional}`. */
function formFields() {
  if (state.mode === "free") return [{ name: "prompt", words: say("prompt"), hint: say("prompt_hint"), lines: true }];
  const turn = { name: "turn", words: say("turn"), hint: "" };
  if (talks() && (scenario() || state.turns.length)) return [turn];
  if (talks()) return [{ name: "persona", words: say("persona"), hint: "", lines: true, optional: true }, turn];
  const open = (task()?.fields ?? []).filter((field) => !scenario() || scenario().fields.includes(field.name));
  return open.map(({ name, label, example, multiline }) => ({ name, words: local(label), hint: example ?? "", lines: multiline }));
}

const values = () => Object.fromEntries(formFields().map(({ name }) => [name, given(name)]));
/** @returns {[string, any]} */
const request = () => api.request(state, { model: model()?.id, scenario: scenario(), task: task(), fields: values() });

// An answer

const cards = new Cards($("cards"), $("alternatives"), {
  more: (index) => extend(index, state.samples[index].tokens),
  copy: (index) => copy(spelt(state.samples[index].tokens)),
  use: (index) => (Object.assign(state, { picked: index }), render()),
  merge(index) {
    remember();
    Object.assign(state, { fields: { ...state.fields, prompt: given("prompt") + spelt(state.samples[index].tokens) }, samples: [] });
    render();
  },
  instead(index, place, [text, logprob]) {
    const { tokens } = state.samples[index];
    extend(index, [...tokens.slice(0, place), { text, logprob, top: tokens[place].top }]);
  },
});

/** What can be done with a sample. A scenario shows nobody its prompt: only a dialogue goes on without it. */
function actions(sample) {
  const choose = talks() && state.samples.length > 1 && state.samples[state.picked] !== sample;
  const more = talks() ? sample.end !== "stop" : !scenario();
  return [more && "more", choose && "use", "copy", state.mode === "free" && "merge"].filter(Boolean);
}

function remember() {
  const { fields, turns, samples, picked } = state;
  before = [...before.slice(1 - UNDOS), structuredClone({ fields, turns, samples, picked })];
}

/** Writes all samples anew. */
function rewrite() {
  const asked = request();
  Object.assign(state, { samples: Array.from({ length: asked[1].n }, () => begun()), picked: 0 });
  return write(() => asked, (choice) => choice.index, rewrite);
}

/** Writes on after some tokens of a sample; what stood behind them goes. */
function extend(index, tokens) {
  if (running) return;
  remember();
  const { tokens: all, end, stop } = state.samples[index];
  const beyond = end === "stop" && tokens.length === all.length; // of the text that stopped it
  const kept = beyond && stop ? [...tokens, { text: stop, logprob: null, top: [] }] : tokens;
  const again = () => {
    state.samples[index] = begun([...kept]);
    return write(() => api.continuation(request(), spelt(kept), beyond ? null : task()?.stop), () => index, again);
  };
  again();
}

/** Streams an answer into the samples. `place` says which of them a choice belongs to. */
async function write(prepare, place, again) {
  const mine = (running = new AbortController());
  let end = "cut";
  history.replaceState(null, "", location.pathname + location.search); // a shared link shows another state
  $("problem").hidden = true;
  render();
  try {
    const [path, body] = await prepare();
    const chances = talks() ? { logprobs: true, top_logprobs: ALTERNATIVES } : { logprobs: ALTERNATIVES };
    for await (const chunk of api.stream(path, { ...body, ...chances }, mine.signal)) if (running === mine) take(chunk, place);
  } catch (cause) {
    if (mine.signal.aborted) end = "halted";
    else tell(cause, again);
  }
  if (running !== mine) return; // the user has gone elsewhere
  running = null;
  for (const sample of state.samples) sample.end ??= end;
  state.samples = state.samples.filter((sample) => sample.tokens.length || sample.end !== "cut");
  if (state.samples.some((sample) => sample.tokens.length)) record();
  render();
}

function take(chunk, place) {
  if (chunk.x_seed !== undefined && !state.locked) state.seed = $("seed").value = String(chunk.x_seed);
  for (const choice of chunk.choices) {
    const { finish_reason: end, stop_reason: stop = null } = choice;
    cards.grow(place(choice), api.tokensOf(choice));
    if (end) Object.assign(state.samples[place(choice)], { end: end === "stop" && stop === null && !talks() ? "document" : end, stop });
  }
}

function submit() {
  const needed = formFields().filter((field) => !field.optional);
  if (running || !models.length) return null;
  if (needed.length && !needed.some((field) => given(field.name).trim())) return tell(new api.ServerError("empty"));
  remember();
  if (talks()) {
    if (state.samples.length) state.turns.push({ role: "assistant", content: spelt(state.samples[state.picked].tokens).trim() });
    state.turns.push({ role: "user", content: given("turn").trim() });
    state.fields.turn = "";
  }
  return rewrite();
}

// What is told

/** Words an error; `again` is what can be tried once more. */
function tell(error, again) {
  if (!(error instanceof api.ServerError)) throw error;
  const { seconds, message, code, detail } = error;
  const [n, context, length] = [detail.x_prompt_tokens, detail.x_max_model_len, state.settings.max_tokens];
  const words = has(`error_${code}`) && (n || code !== "context_length_exceeded") ? `error_${code}` : "error";
  const button = make("button", { textContent: say("retry"), hidden: !again, disabled: seconds > 1, onclick: again });
  if (n) Object.assign(button, { textContent: say("shorten", { n: context - n }), hidden: n >= context, onclick: () => (set("max_tokens", context - n), again()) });
  setTimeout(() => (button.disabled = false), 1000 * seconds);
  button.addEventListener("click", () => ($("problem").hidden = true));
  $("problem").replaceChildren(make("p", { textContent: say(words, { seconds, message, n, context, length, over: n + length - context }) }), button);
  $("problem").hidden = false;
  if (code === "loading") watch();
}

function toast(words) {
  $("toast").textContent = say(words);
  setTimeout(() => ($("toast").textContent = ""), 4000);
}

const copy = async (text, words = "copied") => toast((await api.toClipboard(text)) ? words : "not_copied");

/** Says that the model is loading until it is there. */
async function watch() {
  for (let waits = true; waits; ) {
    const { status } = await fetch("health/ready").then((answer) => answer.json()).catch(() => ({}));
    waits = status === "loading" || status === "engine_lost";
    $("notice").hidden = !waits;
    $("notice").textContent = say("error_loading");
    if (waits) await new Promise((resume) => setTimeout(resume, 2000));
  }
}

/** Counts the tokens of what is written, a moment after the last key. */
function count() {
  clearTimeout(counting);
  $("count").textContent = "";
  const asked = request();
  if (talks() && given("turn").trim()) asked[1].messages.push({ role: "user", content: given("turn") });
  const written = talks() ? asked[1].messages.length : !scenario() && Object.values(values()).some((text) => text.trim());
  if (!models.length || !written) return;
  counting = setTimeout(async () => {
    const found = await api.tokenized(asked, { quiet: true }).catch(() => null);
    if (!found) return;
    const [n, context, length] = [found.count, found.max_model_len, state.settings.max_tokens];
    const over = n + length - context;
    $("count").textContent = say(over > 0 ? "count_over" : "count", { n, context, length, over });
    $("count").classList.toggle("over", over > 0);
  }, 400);
}

/** Puts the answer on top of the history; the next answer to the same text takes its place. */
function record() {
  const title = state.turns[0]?.content || Object.values(values()).find((value) => value.trim()) || say("result");
  const entry = { time: Date.now(), title: title.slice(0, 60), state: api.snapshot(state) };
  api.past.set([entry, ...api.past.get().filter((one, place) => place || one.title !== entry.title || one.state.mode !== state.mode)]);
  showPast();
}

/** Shows what a snapshot holds, if that can be read. */
function restore(kept) {
  if (running) return;
  if (kept) [state, before] = [kept, []];
  else toast("bad_link");
  render();
}

const openLink = () => location.hash.length > 1 && restore(api.unpacked(location.hash.slice(1)));

// What is shown

const render = () => [showChoices, showForm, showControls, showResult, count].forEach((show) => show());

function showPast() {
  const date = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" });
  const erase = (entry) => (api.past.set(api.past.get().filter((one) => one.time !== entry.time)), showPast());
  $("entries").replaceChildren(...api.past.get().map((entry) => make("li", {},
    make("button", { className: "entry", onclick: () => restore(api.restored(entry.state)) },
      make("span", { lang: "zh-CN", textContent: entry.title }), make("time", { textContent: date.format(entry.time) })),
    make("button", { textContent: "×", ariaLabel: say("erase_one", entry), onclick: () => erase(entry) }))));
  $("erase").hidden = !$("entries").children.length;
}

function showChoices() {
  $("modes").querySelector(`input[value=${state.mode}]`).checked = true;
  const name = talks() ? "scenario" : "task";
  const all = [...(!base ? [] : talks() ? [{ id: "" }] : tasks), ...scenarios(talks())];
  if (!all.some((one) => one.id === state[name])) state[name] = all[0]?.id ?? "";
  const chips = all.map(({ id, title }) => make("label", {},
    make("input", { type: "radio", name: "choice", value: id, checked: id === state[name], onchange: () => begin({ [name]: id }) }),
    make("span", { textContent: id ? local(title) || id : say("plain") })));
  const held = $("choices").contains(document.activeElement);
  $("choices").replaceChildren(make("legend", { className: "unseen", textContent: say(`which_${name}`) }), ...chips);
  if (held) $("choices").querySelector(":checked").focus();
  $("choices").hidden = state.mode === "free" || all.length < 2;
  $("about").textContent = scenario() ? local(scenario().description) : has(`about_${state.mode}`) ? say(`about_${state.mode}`) : "";
}

/** Another mode, task or scenario: nothing is written yet, and a scenario has its own sampling. */
function begin(choice) {
  running?.abort();
  [running, before] = [null, []];
  const was = scenario();
  Object.assign(state, choice, { turns: [], samples: [] });
  showChoices();
  if (scenario() !== was) Object.assign(state.settings, api.fresh().settings, scenario()?.sampling);
  $("problem").hidden = true;
  render();
}

/** Builds the form anew only when it has other fields: who is typing goes on typing. */
function showForm() {
  const [form, fields, solved] = [$("form"), formFields(), (state.mode === "task" && !scenario() && task()?.examples.length) || 0];
  const shape = JSON.stringify([state.mode, fields, solved]);
  if (form.dataset.shape !== shape) {
    form.dataset.shape = shape;
    form.replaceChildren(...fields.map(fieldRow));
    const shots = make("input", { type: "checkbox", id: "shots", onchange: (event) => (state.shots = event.target.checked, count()) });
    if (solved) form.append(make("label", { className: "check" }, shots, make("span", { textContent: say("shots", { n: solved }) })));
    $(talks() ? "bar" : "sheet").prepend(form);
  }
  if (solved) $("shots").checked = state.shots;
  $("sheet").className = `sheet ${state.mode}${state.samples.length ? " written" : ""}`;
  for (const area of form.querySelectorAll("textarea")) {
    if (area.value !== given(area.name)) area.value = given(area.name);
    fit(area);
  }
}

function fieldRow({ name, words, hint, lines }) {
  const area = make("textarea", { id: `field-${name}`, name, rows: 1, placeholder: hint, lang: "zh-CN", spellcheck: false });
  area.oninput = () => {
    if (!lines) area.value = area.value.replace(/\n/g, " ");
    state.fields[name] = area.value;
    fit(area);
    count();
  };
  area.addEventListener("keydown", (event) => event.key === "Enter" && sends(event, lines) && (event.preventDefault(), submit()));
  return make("div", { className: "field" }, make("label", { htmlFor: area.id, textContent: words }), area);
}

/** Ctrl or Cmd with Enter sends; Enter alone in a one-line field, but not on a phone nor in an input method. */
const sends = (event, lines) => !event.isComposing && event.keyCode !== 229
  && (event.ctrlKey || event.metaKey || (!lines && !event.shiftKey && !phone.matches));

const fit = (area) => ((area.style.height = "auto"), (area.style.height = `${area.scrollHeight + 1}px`));

function showControls() {
  // Of a small context, room is left for what is written.
  const most = { max_tokens: model() && Math.max(1, model().max_model_len - 64), n: model()?.max_samples };
  for (const [name, [min, max, step]] of Object.entries(api.CONTROLS)) {
    const range = $(name) ?? make("input", { id: name, type: "range", min, step, oninput: () => set(name, Number(range.value)) });
    if (!range.isConnected) $("controls").append(make("div", { className: "control" }, make("label", { htmlFor: name }), make("output", { htmlFor: name }), range));
    state.settings[name] = Math.min(state.settings[name], most[name] ?? max);
    Object.assign(range, { max: most[name] ?? max, value: state.settings[name] });
    range.previousSibling.textContent = String(state.settings[name]);
    range.parentElement.firstChild.textContent = say(name);
  }
  Object.assign($("seed"), { value: state.seed, placeholder: say("drawn") });
  $("locked").checked = state.locked;
  $("forget").hidden = !api.key.get();
  $("model").textContent = model() ? say("about_model", { model: model().id, context: model().max_model_len }) : "";
}

const set = (name, value) => (Object.assign(state.settings, { [name]: value }), showControls(), count());

function showResult() {
  const [busy, held, told] = [Boolean(running), document.activeElement, talks() ? state.turns : []];
  const greeting = talks() && scenario()?.greeting ? [{ role: "assistant", content: scenario().greeting }] : [];
  const started = state.samples.length + told.length > 0;
  $("turns").replaceChildren(...[...greeting, ...told].map(({ role, content }) => make("li", { className: role },
    make("span", { className: "unseen", textContent: say(role) }), make("p", { lang: "zh-CN", textContent: content }))));
  $("turns").hidden = !$("turns").children.length;
  $("empty").replaceChildren(...(started || busy ? [] : toTry()));
  cards.show(state.samples, { probabilities: $("probabilities").checked, busy, picked: talks() ? state.picked : null, actions });
  $("send").textContent = say(talks() ? "say" : "send");
  [$("send").hidden, $("stop").hidden, $("legend").hidden] = [busy, !busy, !$("probabilities").checked];
  if (held === $("send") && busy) $("stop").focus();
  if (held === $("stop") && !busy) $("send").focus();
  [$("again").disabled, $("undo").disabled] = [busy || !started, busy || !before.length];
}

/** Examples that one click tries. */
function toTry() {
  const hints = Object.fromEntries(formFields().map((field) => [field.name, field.hint]));
  const cases = { free: OPENINGS.map((prompt) => ({ prompt })), dialogue: GREETINGS.slice(0, scenario() ? 1 : 3).map((turn) => ({ turn })), task: [hints] }[state.mode];
  const buttons = cases.map((fields) => make("button", { className: "try", lang: "zh-CN", onclick: () => (Object.assign(state.fields, fields), submit()),
    textContent: Object.values(fields).filter(Boolean).join(" · ") })).filter((button) => button.textContent);
  return buttons.length && models.length ? [make("p", { className: "quiet", textContent: say("try") }), ...buttons] : [];
}

function askForKey(wrong) {
  const [dialog, field] = [$("asking"), $("key")];
  $("asking-why").textContent = say(wrong ? "key_wrong" : "key_why");
  dialog.returnValue = field.value = "";
  dialog.showModal();
  return new Promise((answer) => (dialog.onclose = () => answer(dialog.returnValue === "use" && (api.key.set(field.value), true))));
}

async function load() {
  try {
    [models, tasks] = [(await api.json("v1/models")).data, (await api.json("v1/tasks")).data];
  } catch (cause) {
    return cause.code === "loading" ? void setTimeout(load, 2000) : tell(cause, load);
  }
  base = models.find((one) => one.kind === "base") ?? null;
  if (!base) state.mode = scenarios(true).length ? "dialogue" : "task"; // a key of scenarios only
  for (const one of $("modes").querySelectorAll("input")) one.disabled = !base && (one.value === "free" || !scenarios(one.value === "dialogue").length);
  begin({});
  openLink();
}

function changeLanguage(language) {
  speak(language);
  Object.assign($("language"), { textContent: say("other"), lang: language === "zh" ? "en" : "zh-CN" });
  showPast();
  render();
}

const CLICKS = {
  stop: () => running?.abort(),
  again: () => (remember(), rewrite()),
  undo: () => (Object.assign(state, before.pop()), render()),
  probabilities: showResult,
  curl: () => copy(api.asCurl(...request())),
  python: () => copy(api.asPython(...request())),
  share: () => (history.replaceState(null, "", `#${api.packed(state)}`), copy(location.href, "shared")),
  language: () => (changeLanguage(spoken() === "zh" ? "en" : "zh"), api.keep(LANGUAGE, spoken())),
  locked: () => (state.locked = $("locked").checked),
  reset: () => (Object.assign(state, { settings: { ...api.fresh().settings, ...scenario()?.sampling }, seed: "", locked: false }), render()),
  erase: () => (api.past.set([]), showPast()),
  forget: () => (api.key.set(null), showControls()),
};
for (const [id, act] of Object.entries(CLICKS)) $(id).addEventListener("click", act);
$("modes").addEventListener("change", () => begin({ mode: $("modes").querySelector(":checked").value }));
$("form").addEventListener("submit", (event) => (event.preventDefault(), submit()));
$("seed").addEventListener("input", () => {
  state.seed = $("seed").value.replace(/\D/g, "").slice(0, 15);
  state.locked = $("locked").checked = state.seed !== "";
});
window.addEventListener("hashchange", openLink);
window.addEventListener("keydown", (event) => event.key === "Escape" && !document.querySelector("dialog[open]") && running?.abort());
api.key.onMissing(askForKey);
$("sampling").open = $("past").open = matchMedia("(min-width: 60rem)").matches;
changeLanguage((api.recall(LANGUAGE) ?? navigator.language).startsWith("zh") ? "zh" : "en");
watch();
load();
