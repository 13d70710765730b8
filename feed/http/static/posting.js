/** One posting on screen: built once from the template, changed in place; all text goes in as text, or by markup.js. */

import { ago, hue, link, moment, monogram, salary } from "./format.js";
import { markup } from "./markup.js";

const WORKPLACES = { onsite: "On-site", hybrid: "Hybrid", remote: "Remote" };
const ENDS = {
  closed: "Closed",
  expired: "Expired",
  deleted: "Deleted",
  removed: "Not followed any more",
  left_filter: "No longer matches your filter",
};
const MARKS = { posted: "New", updated: "Updated" };
const MOST_TAGS = 8;
const FLASH_MS = 3200;

const template = document.querySelector("#posting");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The article of one posting; `load(id, signal)` fetches its description when it is opened. */
export class Posting {
  #load;
  #parts = {};
  #job;
  #abort = null;
  #loaded = 0;

  constructor(entry, load) {
    this.#load = load;
    this.element = template.content.firstElementChild.cloneNode(true);
    for (const part of this.element.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    const { id } = entry.job;
    this.element.dataset.jobId = id;
    this.element.setAttribute("aria-labelledby", `title-${id}`);
    this.#parts.title.id = `title-${id}`;
    this.#parts.toggle.setAttribute("aria-controls", `details-${id}`);
    this.#parts.details.id = `details-${id}`;
    this.#show(entry, false);
  }

  get expanded() {
    return !this.#parts.details.hidden;
  }

  /** Show a newer state of the same posting and say, for a while, what kind of change it was. */
  update(entry, type) {
    this.#show(entry, true);
    this.mark(type);
    if (this.expanded) this.#describe();
  }

  /** Say "New" or "Updated"; null takes it away. */
  mark(type) {
    if (type && MARKS[type]) this.element.dataset.mark = type;
    else delete this.element.dataset.mark;
    this.#sayMark();
  }

  /** The coloured sweep of an arrival. */
  greet() {
    if (calm.matches) return;
    this.element.animate(
      [
        { backgroundColor: "var(--fresh)", opacity: 0, transform: "translateY(-6px)" },
        { backgroundColor: "var(--fresh)", opacity: 1, transform: "none", offset: 0.08 },
        { backgroundColor: "transparent" },
      ],
      { duration: FLASH_MS, easing: "ease-out" },
    );
  }

  /** Renew "2 min. ago". */
  tick(now) {
    const text = ago(Date.parse(this.#job.posted_at ?? this.#job.updated_at), now);
    if (this.#parts.time.textContent !== text) this.#parts.time.textContent = text;
  }

  toggle() {
    const open = !this.expanded;
    this.#parts.details.hidden = !open;
    this.#parts.toggle.setAttribute("aria-expanded", String(open));
    this.element.toggleAttribute("data-expanded", open);
    if (open) this.#describe();
    else this.#abort?.abort();
  }

  /** Go to the posting's own page, if it has a safe address. */
  visit() {
    if (!this.#parts.visit.hidden) this.#parts.visit.click();
  }

  focus() {
    this.element.focus();
  }

  /** Let go of what is under way. */
  dispose() {
    this.#abort?.abort();
  }

  #show({ job, state, reason }, flash) {
    this.#job = job;
    const { element } = this;
    element.dataset.version = job.version;
    element.dataset.state = state;
    if (reason) element.dataset.reason = reason;
    else delete element.dataset.reason;
    const parts = this.#parts;
    write(parts.title, job.title || "Untitled", flash);
    write(parts.company, job.company ?? "", flash);
    write(parts.place, job.location || job.country || "", flash);
    parts.place.parentElement.hidden = !parts.place.textContent;
    write(parts.monogram, monogram(job.company), false);
    parts.monogram.style.setProperty("--hue", hue(job.company));
    this.#facts(job, flash);
    const posted = job.posted_at ?? job.updated_at;
    parts.time.dateTime = posted ?? "";
    parts.time.title = moment(posted);
    this.tick(Date.now());
    const url = link(job.url);
    parts.visit.hidden = !url;
    if (url) {
      parts.visit.href = url.href;
      write(parts.host, url.hostname.replace(/^www\./, ""), false);
      parts.visit.setAttribute("aria-label", `Visit ${url.hostname}: ${job.title} (new tab)`);
    } else {
      parts.visit.removeAttribute("href");
    }
    this.#sayMark();
  }

  #facts(job, flash) {
    const tags = Array.isArray(job.tags) ? job.tags : [];
    const facts = [
      ["pay", salary(job)],
      [`workplace ${WORKPLACES[job.workplace] ? job.workplace : ""}`, WORKPLACES[job.workplace] ?? job.workplace],
      ["kind", job.employment_type],
      ["kind", job.seniority],
      ...tags.slice(0, MOST_TAGS).map((tag) => ["tag", tag]),
      ["more", tags.length > MOST_TAGS ? `+${tags.length - MOST_TAGS}` : ""],
    ].filter(([, text]) => text);
    const list = this.#parts.facts;
    list.hidden = facts.length === 0;
    const held = new Set([...list.children].map((item) => item.textContent));
    if (held.size === facts.length && facts.every(([, text]) => held.has(String(text)))) return;
    list.replaceChildren(
      ...facts.map(([kind, text]) => {
        const item = document.createElement("li");
        item.className = kind;
        item.dir = "auto";
        item.textContent = text;
        if (flash && !held.has(String(text))) glow(item);
        return item;
      }),
    );
  }

  #sayMark() {
    const { state, reason, mark } = this.element.dataset;
    const text = state === "open" ? (MARKS[mark] ?? "") : (ENDS[reason] ?? ENDS.closed);
    if (this.#parts.mark.textContent !== text) this.#parts.mark.textContent = text;
    this.#parts.mark.hidden = !text;
  }

  async #describe() {
    const { id, version } = this.#job;
    if (this.#loaded === version) return;
    this.#abort?.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const { description, again } = this.#parts;
    again.hidden = true;
    if (!this.#loaded) this.#say("Loading the description…");
    this.#particulars();
    try {
      const job = await this.#load(id, signal);
      this.#loaded = version;
      const rich = job.description_html ? markup(job.description_html) : null;
      if (rich?.textContent.trim()) {
        description.replaceChildren(rich);
        description.className = "description rich";
      } else if (job.description) {
        description.textContent = job.description;
        description.className = "description";
      } else {
        this.#say("This posting has no description.");
      }
    } catch (problem) {
      if (signal.aborted) return;
      if (problem.name !== "Problem") throw problem;
      again.hidden = problem.status === 404;
      again.onclick = () => this.#describe();
      this.#say(problem.status === 404 ? "This posting no longer exists." : problem.message);
    }
  }

  #say(text) {
    this.#parts.description.textContent = text;
    this.#parts.description.className = "description quiet";
  }

  #particulars() {
    const job = this.#job;
    const rows = [
      ["Location", job.location],
      ["Country", job.country],
      ["Tags", Array.isArray(job.tags) && job.tags.length > MOST_TAGS ? job.tags.join(", ") : ""],
      ["Posted", moment(job.posted_at)],
      ["Updated", job.version > 1 ? moment(job.updated_at) : ""],
      ["Valid through", moment(job.valid_through)],
      ["Source", job.source],
      ["Reference", job.external_id],
      ["Number", `${job.id}, version ${job.version}`],
    ];
    this.#parts.particulars.replaceChildren(
      ...rows
        .filter(([, text]) => text)
        .map(([name, text]) => {
          const row = document.createElement("div");
          const term = document.createElement("dt");
          const value = document.createElement("dd");
          term.textContent = name;
          value.textContent = text;
          value.dir = "auto";
          row.append(term, value);
          return row;
        }),
    );
  }
}

function write(node, value, flash) {
  const text = String(value);
  if (node.textContent === text) return;
  node.textContent = text;
  if (flash) glow(node);
}

function glow(node) {
  if (calm.matches) return;
  node.animate([{ backgroundColor: "var(--changed)" }, { backgroundColor: "var(--changed)", offset: 0.4 }, {}], {
    duration: FLASH_MS,
    easing: "ease-out",
  });
}
