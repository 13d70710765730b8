/** The end of the list: loads older postings as the reader comes near, and says how far the list reaches. */

import { count } from "./format.js";

const NEAR_PX = 1600;

export class Older {
  #root;
  #text;
  #retry;
  #list;
  #load;

  /** `load` asks for the next older page. */
  constructor({ root, text, retry, list, load }) {
    this.#root = root;
    this.#text = text;
    this.#retry = retry;
    this.#list = list;
    this.#load = load;
    retry.addEventListener("click", () => load());
    new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.#loadIfNear(), {
      rootMargin: `0px 0px ${NEAR_PX}px`,
    }).observe(root);
  }

  get failed() {
    return this.#root.dataset.state === "failed";
  }

  /** Show a state: none, more, loading, end, failed (for the reason in `refusal`) or trimmed. */
  show(state, refusal) {
    this.#root.dataset.state = state;
    const texts = {
      loading: "Loading older postings…",
      end: this.#list.size > 0 ? "That is everything so far." : "",
      failed: `Older postings could not be loaded. ${refusal?.message ?? ""}`,
      trimmed: `Only the newest ${count(this.#list.size)} are kept here. Narrow the filter to look further back.`,
    };
    this.#text.textContent = texts[state] ?? "";
    this.#retry.hidden = state !== "failed";
    if (state === "more") requestAnimationFrame(() => this.#loadIfNear());
  }

  #loadIfNear() {
    const near = this.#root.getBoundingClientRect().top < innerHeight + NEAR_PX;
    if (near && this.#root.dataset.state === "more") this.#load();
  }
}
