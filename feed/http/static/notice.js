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

  /** The postings are not for everybody: ask for a key; `submit(key)` raises a Problem for one that is no good. */
  signIn(problem, submit) {
    const parts = this.#show("notice-sign-in");
    const form = parts.querySelector("form");
    parts.querySelector("[data-part=detail]").textContent = form.dataset.tried ? "" : "Reading this feed requires a key.";
    const error = parts.querySelector("[data-part=error]");
    form.onsubmit = async (event) => {
      event.preventDefault();
      form.dataset.tried = "yes";
      const button = form.querySelector("button");
      button.disabled = true;
      error.hidden = true;
      try {
        await submit(form.elements.key.value.trim());
      } catch (refusal) {
        if (refusal.name !== "Problem") throw refusal;
        error.textContent = refusal.message;
        error.hidden = false;
        form.elements.key.select();
      } finally {
        button.disabled = false;
      }
    };
    form.elements.key.focus({ preventScroll: true });
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
