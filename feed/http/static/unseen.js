/** The number of postings that arrived while the page was hidden, shown in its title. */

import { count } from "./format.js";

export class Unseen {
  #title = document.title;
  #count = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#clear());
  }

  /** Count one more, if nobody is looking. */
  add() {
    if (!document.hidden) return;
    this.#count += 1;
    document.title = `(${count(this.#count)}) ${this.#title}`;
  }

  #clear() {
    this.#count = 0;
    document.title = this.#title;
  }
}
