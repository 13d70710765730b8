/** What stands in the place of the list when there is nothing to list: empty, out of reach, refused. */

/** Shows one of its prepared sections at a time. */
export class Notice {
  #root;
  #terminal;

  constructor({ root, terminal }) {
    this.#root = root;
    this.#terminal = terminal;
  }

  clear() {
    this.#root.replaceChildren();
  }

  /** No postings: with a filter, that it is being listened for; without one, how to post the first. */
  empty(query) {
    const parts = this.#show(query.empty ? "notice-empty" : "notice-unmatched");
    this.#terminal.fill(parts);
  }

  /** The list cannot be had now; it is being tried again. */
  unreachable(problem) {
    const parts = this.#show("notice-unreachable");
    parts.querySelector("[data-part=detail]").textContent = problem.message;
  }

  /** The server objects to the request and says why. */
  refused(problem) {
    const parts = this.#show("notice-refused");
    const detail = parts.querySelector("[data-part=detail]");
    detail.textContent = problem.message;
    // The list says the same, one by one.
    detail.hidden = problem.errors.length > 0;
    const list = parts.querySelector("[data-part=errors]");
    list.replaceChildren(
      ...problem.errors.map(({ field, message }) => {
        const item = document.createElement("li");
        const name = document.createElement("code");
        name.textContent = field ?? "";
        item.append(name, " ", message ?? "");
        return item;
      }),
    );
  }

  #show(id) {
    if (this.#root.firstElementChild?.dataset.notice !== id) {
      const section = document.getElementById(id).content.firstElementChild.cloneNode(true);
      section.dataset.notice = id;
      this.#root.replaceChildren(section);
    }
    return this.#root.firstElementChild;
  }
}
