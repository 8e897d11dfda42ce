/**
 * The samples of an answer as cards that grow, and each token with its probability and its alternatives.
 * A sample is `{tokens: [{text, logprob, top}], end, stop}`. What a model wrote enters the page as text only.
 */
import { say } from "./words.js";

const SHOWN = 5; // alternatives of a token
const ENDS = ["", "<eot>"];
const WORDLESS = /^(<(eot|pad|unk|s|\/s)>)?$|⁇/; // tokens that no text can stand for

/** An element with properties, attributes (`role` and names with a dash) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A sample that begins with some tokens. */
export const begun = (tokens = []) => ({ tokens, end: null, stop: null });
/** The text of tokens. */
export const spelt = (tokens) => tokens.map((token) => token.text).join("");

/** A probability as the page shows it: 42%, 4.2%, <0.1%. */
export function percent(logprob) {
  const part = 100 * Math.exp(logprob);
  return part < 0.1 ? "<0.1%" : `${part.toFixed(part < 9.95 ? 1 : 0)}%`;
}

/** A token's text where a bare space or line feed would not be seen. */
function visible(text) {
  if (ENDS.includes(text)) return say("ended");
  return text.trim() ? text : text.includes("\n") ? `↵ ${say("newline")}` : `␣ ${say("space")}`;
}

export class Cards {
  root; dialog; actions; samples; view;
  /** `actions`: more, copy, merge, use of a sample's number; instead has a place and its `[text, logprob]` besides. */
  constructor(root, dialog, actions) {
    Object.assign(this, { root, dialog, actions, samples: [], view: {} });
    root.addEventListener("click", (event) => this.#open(event.target.closest(".token")));
    root.addEventListener("keydown", (event) => this.#steer(event));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  /** Shows samples anew. `view`: probabilities, busy; picked: a sample's number or null; actions(sample): their names. */
  show(samples, view) {
    Object.assign(this, { samples, view });
    this.root.ariaBusy = String(view.busy);
    this.root.classList.toggle("several", samples.length > 1);
    this.root.replaceChildren(...samples.map((sample, index) => this.#card(sample, index)));
  }

  /** Adds tokens to the end of a sample and of its card; a page that shows its end goes on showing it. */
  grow(index, tokens) {
    const known = this.samples[index].tokens;
    const follow = this.root.getBoundingClientRect().bottom < innerHeight;
    this.root.children[index].querySelector(".text").append(...this.#pieces(index, tokens, known.length));
    known.push(...tokens);
    if (follow) this.root.lastElementChild.scrollIntoView({ block: "nearest" });
  }

  #card(sample, index) {
    const writing = this.view.busy && sample.end === null;
    const picked = this.view.picked === index && this.samples.length > 1;
    const buttons = this.view.actions(sample).map((name) => make("button", { textContent: say(name), disabled: this.view.busy,
      onclick: () => this.actions[name](index), "data-action": name }));
    return make("article", { className: `card${picked ? " picked" : ""}${writing ? " writing" : ""}`, ariaLabel: say("sample", { n: index + 1 }) },
      make("p", { className: "text", lang: "zh-CN" }, ...this.#pieces(index, sample.tokens, 0)),
      make("footer", {}, ...buttons, make("span", { className: "quiet", textContent: this.#note(sample) })));
  }

  #note({ tokens, end }) {
    if (end === null) return this.view.busy ? say("writing") : "";
    const counted = tokens.length && tokens.every((token) => token.logprob !== null);
    return say(`end_${end}`) + (counted ? ` · ${say("made", { n: tokens.length })}` : "");
  }

  #pieces(index, tokens, first) {
    if (!this.view.probabilities) return tokens.map((token) => token.text);
    return tokens.map((token, number) => (token.logprob === null ? token.text : this.#token(token, index, first + number)));
  }

  #token({ text, logprob }, index, place) {
    const element = make("span", { className: text.includes("\n") ? "token line" : "token", role: "button", tabIndex: place ? -1 : 0,
      textContent: text, ariaLabel: say("token", { text: visible(text), p: percent(logprob) }), ariaHasPopup: "dialog",
      "data-sample": index, "data-place": place });
    element.style.setProperty("--doubt", (1 - Math.exp(logprob)).toFixed(3));
    return element;
  }

  /** Arrows go from token to token; Enter and the space bar open one. */
  #steer(event) {
    const from = event.target;
    if (!from.matches(".token")) return;
    const to = { ArrowRight: from.nextElementSibling, ArrowLeft: from.previousElementSibling }[event.key];
    if (to) {
      [from.tabIndex, to.tabIndex] = [-1, 0];
      to.focus();
    } else if (event.key === "Enter" || event.key === " ") this.#open(from);
    else return;
    event.preventDefault();
  }

  #open(element) {
    if (!element || this.view.busy) return;
    const [index, place] = [Number(element.dataset.sample), Number(element.dataset.place)];
    const { text, logprob, top } = this.samples[index].tokens[place];
    const others = top.slice(0, SHOWN);
    if (!others.some(([other]) => other === text)) others.push([text, logprob]);
    this.dialog.replaceChildren(make("p", { className: "quiet", textContent: say("instead") }),
      ...others.map((other) => this.#row(other, text, () => this.actions.instead(index, place, other))));
    this.dialog.showModal();
    this.#move(element.getClientRects()[0]);
  }

  #row([text, logprob], current, choose) {
    const row = make("button", { className: "other", disabled: WORDLESS.test(text) || !this.view.actions({}).includes("more") },
      make("span", { className: "word", lang: "zh-CN", textContent: visible(text) }), make("span", { textContent: percent(logprob) }));
    row.style.setProperty("--chance", `${100 * Math.exp(logprob)}%`);
    if (text === current) row.ariaCurrent = "true";
    row.onclick = () => {
      this.dialog.close();
      if (text !== current) choose();
    };
    return row;
  }

  /** Below a token, or above it where there is no room; narrow windows show the dialog at their lower edge. */
  #move(box) {
    const { offsetWidth: width, offsetHeight: height, style } = this.dialog;
    const below = box.bottom + 6 + height < innerHeight ? box.bottom + 6 : Math.max(8, box.top - 6 - height);
    style.setProperty("--left", `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`);
    style.setProperty("--top", `${below}px`);
  }
}
