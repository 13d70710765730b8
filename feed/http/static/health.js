/** The panel that tells how the connection is doing; it is brought up to date while it is open. */

const REFRESH_MS = 1000;

export class Health {
  #rows;
  #report;
  #timer = 0;

  /** `report` returns the rows as pairs of a name and a value. */
  constructor({ panel, rows, report }) {
    this.#rows = rows;
    this.#report = report;
    panel.addEventListener("toggle", (event) => this.#toggled(event.newState === "open"));
  }

  #toggled(open) {
    clearInterval(this.#timer);
    if (!open) return;
    this.#render();
    this.#timer = setInterval(() => this.#render(), REFRESH_MS);
  }

  #render() {
    const rows = this.#report().flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const description = document.createElement("dd");
      term.textContent = name;
      description.textContent = value;
      return [term, description];
    });
    this.#rows.replaceChildren(...rows);
  }
}
