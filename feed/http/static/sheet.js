/** Where the filter form is: beside the list on a wide screen, with the foot below it; in a dialog on a small one. */

const wide = matchMedia("(min-width: 60rem)");

/** Moves the form between its home and the dialog, and opens the dialog. */
export class Sheet {
  #dialog;
  #home;
  #form;
  #opener;
  #foot;

  constructor({ dialog, home, form, opener, foot }) {
    this.#dialog = dialog;
    this.#home = home;
    this.#form = form;
    this.#opener = opener;
    this.#foot = foot;
    opener.addEventListener("click", () => this.open());
    wide.addEventListener("change", () => this.#place());
    // A click on the backdrop has the dialog itself as its target.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    this.#place();
  }

  open() {
    if (wide.matches) this.#form.querySelector("input:not([type=checkbox])").focus();
    else if (!this.#dialog.open) this.#dialog.showModal();
  }

  /** Say on the button how many filters are set. */
  count(filters) {
    const badge = this.#opener.querySelector("[data-part=count]");
    badge.textContent = filters || "";
    badge.hidden = filters === 0;
    this.#opener.setAttribute("aria-label", filters ? `Filters, ${filters} set` : "Filters");
  }

  #place() {
    if (wide.matches) {
      this.#dialog.close();
      this.#home.append(this.#form, this.#foot);
    } else {
      this.#dialog.querySelector("[data-part=body]").append(this.#form);
      this.#home.parentElement.append(this.#foot);
    }
  }
}
