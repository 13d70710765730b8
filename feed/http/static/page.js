/** The page: follows one filter at a time, and shows in its parts what the feed tells. */

import { plural } from "./format.js";
import { Query } from "./query.js";

const TROUBLE = ["reconnecting", "draining", "offline"];

export class Page {
  #parts;
  #query = Query.parse(location.search);
  #typed = false;
  #troubled = false;

  constructor(parts) {
    this.#parts = parts;
  }

  /** Show the filter of the address bar. */
  start() {
    history.scrollRestoration = "manual";
    this.#follow(this.#query);
  }

  // What the reader asks for.

  /** Follow a filter that was just edited; `typing` while a search is being typed. */
  navigate(edited, typing) {
    const address = edited.empty ? location.pathname : `?${edited}`;
    // Typing a search leaves one entry in the history, not one for each letter.
    if (typing && this.#typed) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    this.#typed = typing;
    this.#follow(edited);
  }

  /** Follow the filter of the address bar after the reader went back or forward. */
  popped() {
    const wanted = Query.parse(location.search);
    this.#typed = false;
    // The skip link only changes the fragment.
    if (!wanted.equals(this.#query)) this.#follow(wanted);
  }

  /** Load the list anew. */
  reload() {
    this.#parts.feed.follow(this.#query);
  }

  async signIn(key) {
    await this.#parts.session.signIn(key);
    this.#follow(this.#query);
  }

  async signOut() {
    await this.#parts.session.signOut();
    this.#follow(this.#query);
  }

  /** Put arrivals above the list. */
  show(fresh) {
    const { notice, list, jobs } = this.#parts;
    notice.clear();
    list.prepend(fresh.filter(([id]) => jobs.has(id) && !list.has(id)));
  }

  toTop() {
    this.#parts.arrivals.reveal();
    this.#parts.reader.toTop();
  }

  togglePause() {
    const { arrivals, announcer, pause } = this.#parts;
    const on = !arrivals.paused;
    arrivals.pause(on);
    pause.setAttribute("aria-pressed", String(on));
    document.documentElement.toggleAttribute("data-paused", on);
    announcer.say(on ? "Paused. New postings are held back." : "New postings are shown as they come.");
  }

  /** Let postings age: those whose mark has faded are shown without it, and those that left are gone. */
  tick() {
    if (this.#parts.list.tick(Date.now()).length > 0) this.#showNotice();
  }

  // What the feed tells.

  replaced(ids, about) {
    const { arrivals, list, announcer, total } = this.#parts;
    arrivals.clear();
    list.replace(ids);
    this.#setBusy(false);
    total.hidden = !about;
    total.textContent = about ? `About ${plural(about, "posting")}` : "";
    announcer.say(ids.length > 0 ? `${plural(ids.length, "posting")} loaded, newest first.` : "No postings yet.");
    this.#showNotice();
  }

  arrived(id, type) {
    this.#parts.announcer.count("arrived");
    this.#parts.arrivals.add(id, type);
    this.#parts.unseen.add();
  }

  changed(id, type) {
    const { jobs, list, announcer, arrivals } = this.#parts;
    const entry = jobs.get(id);
    if (list.has(id)) {
      list.change(id, type);
      announcer.count(entry.state === "open" ? "updated" : "closed");
    } else if (entry.state === "left") {
      arrivals.drop(id);
      jobs.remove(id);
    }
  }

  appended(ids) {
    this.#parts.list.append(ids);
    this.#showNotice();
  }

  history(state, refusal) {
    this.#parts.older.show(state, refusal);
  }

  problem(refusal) {
    const { filters, list, notice, jobs, older, announcer, session, total } = this.#parts;
    filters.objections(refusal.errors);
    if (refusal.passing) {
      if (list.size === 0) notice.unreachable(refusal);
      return;
    }
    jobs.clear();
    list.replace([]);
    this.#setBusy(false);
    older.show("none");
    total.hidden = true;
    if (refusal.status === 401) {
      session.ended();
      notice.signIn(refusal, (key) => this.signIn(key));
      announcer.say("Sign in to see the postings.");
      return;
    }
    notice.refused(refusal);
    announcer.say(refusal.message);
  }

  recovered() {
    this.#showNotice();
  }

  /** The state of the connection has changed. That all is well is worth a word only after it was not. */
  connection(state, text) {
    const { announcer, older, feed } = this.#parts;
    const trouble = TROUBLE.includes(state);
    if (state === "live" ? this.#troubled : trouble) announcer.say(text);
    if (state === "live" && older.failed) feed.older();
    if (state === "live") this.#troubled = false;
    else if (trouble) this.#troubled = true;
  }

  /** The list has dropped its oldest postings. */
  trimmed() {
    this.#parts.feed.forgetHistory();
    this.#parts.older.show("trimmed");
  }

  #follow(wanted) {
    const { filters, sheet, terminal, arrivals, announcer, feed } = this.#parts;
    this.#query = wanted;
    filters.show(wanted);
    sheet.count(wanted.pairs.length);
    terminal.show(wanted);
    arrivals.clear();
    announcer.clear();
    this.#setBusy(true);
    scrollTo(0, 0);
    feed.follow(wanted);
  }

  #setBusy(busy) {
    this.#parts.root.setAttribute("aria-busy", String(busy));
  }

  #showNotice() {
    const { list, arrivals, notice } = this.#parts;
    if (list.size > 0 || arrivals.waiting > 0) notice.clear();
    else notice.empty(this.#query);
  }
}
