/** The command lines that do in a terminal what the page does, and their copy buttons. */

const COPIED_MS = 1600;

/** Fills every element with data-command="stream" or "post" and serves the copy buttons beside them. */
export class Terminal {
  #origin;
  #commands = {};

  constructor(origin) {
    this.#origin = origin;
    const posting = `{"title": "Database Engineer", "company": "Acme",\n      "url": "https://example.com/jobs/1"}`;
    this.#commands.post =
      `curl -X POST ${quote(`${origin}/v1/jobs`)} \\\n  -H 'content-type: application/json' \\\n  -d ${quote(posting)}`;
    document.addEventListener("click", (event) => {
      const button = event.target.closest?.("[data-act=copy]");
      if (button) this.#copy(button);
    });
  }

  /** Take another filter into the stream command, wherever it is shown. */
  show(query) {
    const parameters = query.empty ? "" : `?${query}`;
    this.#commands.stream = `curl -N ${quote(`${this.#origin}/v1/jobs/stream${parameters}`)}`;
    this.fill(document);
  }

  /** Write the commands into an element's places for them. */
  fill(root) {
    for (const place of root.querySelectorAll("[data-command]")) {
      place.textContent = this.#commands[place.dataset.command];
    }
  }

  async #copy(button) {
    const place = button.parentElement.querySelector("[data-command]");
    try {
      await navigator.clipboard.writeText(place.textContent);
    } catch {
      // No clipboard outside a secure context: select it, so that one keystroke copies it.
      getSelection().selectAllChildren(place);
      button.textContent = "Selected";
      setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
      return;
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  }
}

/** A word for a POSIX shell. */
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
