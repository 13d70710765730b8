/** Where the person who reads is in the list, and where they go. */

const TOP_PX = 120;

export class Reader {
  #root;
  #list;

  constructor(root, list) {
    this.#root = root;
    this.#list = list;
  }

  /** Whether postings put above would move what is being read. */
  get reading() {
    const focused = this.#list.idOf(document.querySelector(":focus-visible"));
    return scrollY > TOP_PX || this.#list.reading || focused !== null;
  }

  /** The view of the focused posting, or null. */
  get current() {
    const id = this.#list.idOf(document.activeElement);
    return id === null ? null : this.#list.view(id);
  }

  /** Focus the posting `by` places further down. */
  step(by) {
    const id = this.#list.neighbour(this.#list.idOf(document.activeElement), by);
    if (id !== null) this.#list.focus(id);
  }

  /** Go to the top of the list. */
  toTop() {
    // A focus on a posting would count as reading and hold the next arrivals back.
    this.#root.focus({ preventScroll: true });
    scrollTo({ top: 0 });
  }
}
