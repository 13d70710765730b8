/** The filter form, its chips and its field errors: shows a query, and proposes another when the reader edits it. */

import { Query, SETS, SINGLES, label } from "./query.js";

const TYPING_MS = 350;
/** Suggestions offered for a field, taken from the postings on screen. */
const MOST_SUGGESTED = 60;
const RADIUS_KM = 50;

/** Field name in an error to the name of the control that shows it. */
const CONTROL_OF = { latitude: "near", longitude: "near", lat: "near", lon: "near" };

/**
 * Binds the search box and the form, which lives beside the list or, on a small screen, in a dialog.
 *
 * `change(query, typing)` is called with each edited query; `typing` says that it is one step of many.
 */
export class Filters {
  #search;
  #form;
  #chips;
  #change;
  #jobs;
  #query = null;
  #timer = 0;

  constructor({ search, form, chips, jobs, change }) {
    this.#search = search;
    this.#form = form;
    this.#chips = chips;
    this.#jobs = jobs;
    this.#change = change;
    search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#propose(this.#query.with("q", [search.value]), true), TYPING_MS);
    });
    search.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#propose(this.#query.with("q", [search.value]), true);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take(document.activeElement);
    });
    form.addEventListener("change", (event) => this.#take(event.target));
    form.addEventListener("focusin", (event) => this.#suggest(event.target));
    form.addEventListener("click", (event) => this.#press(event));
    for (const list of chips) list.addEventListener("click", (event) => this.#press(event));
  }

  /** Put a query into the form and the chips. */
  show(query) {
    clearTimeout(this.#timer);
    this.#query = query;
    if (document.activeElement !== this.#search || this.#search.value.trim() !== query.first("q")) {
      this.#search.value = query.first("q");
    }
    for (const control of this.#controls()) {
      if (control.type === "checkbox") control.checked = query.all(control.name).includes(control.value);
      else if (SINGLES.includes(control.name)) control.value = query.first(control.name);
      else control.value = "";
    }
    for (const list of this.#chips) this.#renderChips(list, query);
    this.#form.querySelector("[data-act=clear]").hidden = query.empty;
    const more = this.#form.querySelector("details");
    if (query.pairs.some(([name]) => more.querySelector(`[name="${CSS.escape(name)}"]`))) more.open = true;
    this.objections([]);
  }

  /** Show the server's objections beside the fields they concern. */
  objections(errors) {
    const said = new Map();
    for (const { field = "", message = "" } of errors) {
      const name = CONTROL_OF[field] ?? field;
      said.set(name, [...(said.get(name) ?? []), message]);
    }
    for (const slot of this.#form.querySelectorAll("[data-error]")) {
      const messages = said.get(slot.dataset.error) ?? [];
      slot.textContent = messages.join("; ");
      slot.hidden = messages.length === 0;
    }
    for (const control of [this.#search, ...this.#controls()]) {
      if (said.has(control.name)) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
    for (const list of this.#chips) {
      for (const chip of list.children) chip.toggleAttribute("data-invalid", said.has(chip.dataset.name));
    }
  }

  #controls() {
    return [...this.#form.elements].filter((control) => control.name);
  }

  #propose(query, typing = false) {
    clearTimeout(this.#timer);
    if (!query.equals(this.#query)) this.#change(query, typing);
  }

  #take(control) {
    if (!control?.name || control.form !== this.#form) return;
    const { name } = control;
    if (control.type === "checkbox") {
      const values = this.#controls().filter((other) => other.name === name && other.checked);
      this.#propose(this.#query.with(name, values.map((other) => other.value)));
    } else if (SETS.includes(name)) {
      if (control.value.trim()) this.#propose(this.#query.with(name, [...this.#query.all(name), control.value]));
    } else {
      let query = this.#query.with(name, [control.value]);
      if (name === "near") query = this.#around(query);
      this.#propose(query);
    }
  }

  /** A centre needs a radius, and a radius means nothing without a centre. */
  #around(query) {
    if (!query.first("near")) return query.with("radius_km", []);
    return query.first("radius_km") ? query : query.with("radius_km", [String(RADIUS_KM)]);
  }

  #press(event) {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.act === "clear") this.#propose(new Query());
    else if (button.dataset.act === "locate") this.#locate(button);
    else if (button.dataset.act === "remove") {
      const list = button.closest("ul");
      const at = [...list.children].indexOf(button.parentElement);
      const { name, value } = button.parentElement.dataset;
      this.#propose(this.#query.without(name, value));
      // The focus goes to a neighbour instead of getting lost with the chip.
      (list.children[Math.min(at, list.children.length - 1)]?.querySelector("button") ?? this.#search).focus();
    }
  }

  #locate(button) {
    const slot = this.#form.querySelector('[data-error="near"]');
    button.disabled = true;
    navigator.geolocation.getCurrentPosition(
      ({ coords }) => {
        button.disabled = false;
        const near = `${coords.latitude.toFixed(3)},${coords.longitude.toFixed(3)}`;
        this.#propose(this.#around(this.#query.with("near", [near])));
      },
      (refusal) => {
        button.disabled = false;
        slot.hidden = false;
        slot.textContent = refusal.code === 1 ? "This page is not allowed to use your location." : "Your location could not be determined.";
      },
      { timeout: 10000, maximumAge: 600000 },
    );
  }

  #suggest(control) {
    const list = control.list;
    if (!list) return;
    const values = new Set();
    for (const { job } of this.#jobs.values()) {
      for (const value of [job[control.name] ?? (control.name === "tag" ? job.tags : null)].flat()) {
        if (value) values.add(String(value));
      }
      if (values.size >= MOST_SUGGESTED) break;
    }
    for (const value of this.#query.all(control.name)) values.delete(value);
    list.replaceChildren(
      ...[...values].sort((a, b) => a.localeCompare(b)).map((value) => {
        const option = document.createElement("option");
        option.value = value;
        return option;
      }),
    );
  }

  #renderChips(list, query) {
    const chips = query.pairs.map(([name, value]) => {
      const chip = document.createElement("li");
      const text = document.createElement("span");
      const remove = document.createElement("button");
      chip.dataset.name = name;
      chip.dataset.value = value;
      const key = document.createElement("span");
      key.className = "key";
      key.textContent = label(name);
      const held = document.createElement("bdi");
      held.textContent = value;
      text.append(key, " ", held);
      remove.type = "button";
      remove.dataset.act = "remove";
      remove.setAttribute("aria-label", `Remove filter ${label(name)}: ${value}`);
      chip.append(text, remove);
      return chip;
    });
    list.replaceChildren(...chips);
    list.hidden = chips.length === 0;
  }
}
