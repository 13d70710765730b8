/** The postings on screen, newest first, in slabs; of a long list only those around the viewport are in the document. */

import { Posting } from "./posting.js";
import { Slab } from "./slab.js";

const SLAB = 20;
const NEAR_PX = 1200;
/** Postings in the document at most, apart from those near the viewport, being read or focused. */
const MOST_MOUNTED = 400;
/** Postings kept in the list; older ones are let go from its end. */
const MOST = 20000;
const MARK_MS = 20000;
/** A batch larger than this comes without a flourish. */
const FEW = 12;
/** A batch up to this size is in the document at once, all of it. */
const SOME = 100;
/** The list is filled up to MOST_MOUNTED only when it has been quiet this long. */
const QUIET_MS = 400;
const LEAVE_MS = 20000;
const ESTIMATE_PX = 112;

/** Shows entries of `jobs`; `load` is handed to each posting, `trimmed()` is told when old ones were let go. */
export class List {
  #root;
  #jobs;
  #load;
  #trimmed;
  #slabs = [];
  #home = new Map();
  #marks = new Map();
  #leaving = new Map();
  #height = ESTIMATE_PX;
  #quiet = 0;
  #near;

  constructor(root, jobs, { load, trimmed }) {
    this.#root = root;
    this.#jobs = jobs;
    this.#load = load;
    this.#trimmed = trimmed;
    this.#near = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: `${NEAR_PX}px 0px` });
    root.addEventListener("click", (event) => this.#click(event));
  }

  get size() {
    return this.#home.size;
  }

  /** Whether a posting's details are open. */
  get reading() {
    return this.#root.querySelector("[data-expanded]") !== null;
  }

  has(id) {
    return this.#home.has(id);
  }

  /** The posting's view, if it is in the document. */
  view(id) {
    return this.#home.get(id)?.views?.get(id) ?? null;
  }

  /** The id of the posting an element belongs to, or null. */
  idOf(element) {
    const article = element?.closest?.("[data-job-id]");
    return article && this.#root.contains(article) ? Number(article.dataset.jobId) : null;
  }

  /** Forget everything and show these, newest first. */
  replace(ids) {
    for (const slab of this.#slabs) this.#drop(slab);
    this.#slabs = [];
    this.#home.clear();
    this.#marks.clear();
    this.#leaving.clear();
    this.append(ids);
  }

  /** Add older postings at the end. */
  append(ids) {
    for (let at = 0; at < ids.length; at += SLAB) this.#insert(ids.slice(at, at + SLAB), this.#slabs.length, true);
    this.#settle();
  }

  /** Add new postings on top: [[id, type]], newest first. */
  prepend(arrivals) {
    const until = Date.now() + MARK_MS;
    for (const [id, type] of arrivals.slice(0, SLAB)) this.#marks.set(id, { type, until });
    const ids = arrivals.map(([id]) => id);
    const rest = ids.length % SLAB;
    const top = this.#slabs[0];
    for (let end = ids.length; end > rest; end -= SLAB) {
      this.#insert(ids.slice(end - SLAB, end), 0, ids.length <= SOME || end - SLAB === rest);
    }
    if (rest > 0) this.#insertRest(ids.slice(0, rest), top);
    if (arrivals.length <= FEW) for (const id of ids) this.view(id)?.greet();
    this.#settle();
  }

  /** Show the present state of one posting. */
  change(id, type) {
    const entry = this.#jobs.get(id);
    if (!entry || !this.#home.has(id)) return;
    if (entry.state === "left") this.#leaving.set(id, Date.now() + LEAVE_MS);
    else this.#leaving.delete(id);
    if (type !== "closed") this.#marks.set(id, { type, until: Date.now() + MARK_MS });
    this.view(id)?.update(entry, type);
  }

  /** The id `step` places from the given one (null: the first on screen), or null at either end. */
  neighbour(id, step) {
    if (id === null || !this.#home.has(id)) return this.#firstVisible();
    const slab = this.#home.get(id);
    const at = slab.ids.indexOf(id) + step;
    if (at >= 0 && at < slab.ids.length) return slab.ids[at];
    const beside = this.#slabs[this.#slabs.indexOf(slab) + step];
    return beside ? beside.ids.at(step > 0 ? 0 : -1) : null;
  }

  /** Bring a posting into the document and into view, and focus it. */
  focus(id) {
    const slab = this.#home.get(id);
    slab?.mount();
    slab?.views.get(id).focus();
  }

  /** Renew relative times, take expired marks off, let go of what has left the filter; returns the ids gone. */
  tick(now) {
    for (const [id, mark] of this.#marks) {
      if (mark.until > now) continue;
      this.#marks.delete(id);
      this.view(id)?.mark(null);
    }
    const gone = [];
    for (const [id, until] of this.#leaving) {
      const view = this.view(id);
      if (until > now || view?.expanded || view?.element.matches(":hover, :focus-within")) continue;
      gone.push(id);
      this.#remove(id);
    }
    for (const slab of this.#slabs) for (const view of slab.views?.values() ?? []) view.tick(now);
    return gone;
  }

  #insert(ids, at, mounted) {
    const slab = new Slab(ids, (id) => this.#make(id));
    for (const id of ids) this.#home.set(id, slab);
    if (mounted) slab.mount();
    slab.near = mounted;
    slab.reserve(ids.length * this.#height);
    this.#root.insertBefore(slab.element, this.#slabs[at]?.element ?? null);
    this.#slabs.splice(at, 0, slab);
    this.#near.observe(slab.element);
  }

  #insertRest(ids, top) {
    if (!top || this.#slabs[0] !== top || top.ids.length + ids.length > SLAB) {
      this.#insert(ids, 0, true);
      return;
    }
    top.mount();
    top.prepend(ids);
    for (const id of ids) this.#home.set(id, top);
  }

  #make(id) {
    const view = new Posting(this.#jobs.get(id), this.#load);
    view.mark(this.#marks.get(id)?.type ?? null);
    return view;
  }

  #remove(id) {
    const slab = this.#home.get(id);
    this.#forget(id);
    slab.remove(id);
    if (slab.ids.length === 0) {
      this.#slabs.splice(this.#slabs.indexOf(slab), 1);
      this.#drop(slab);
    }
    this.#settle();
  }

  #forget(id) {
    this.#leaving.delete(id);
    this.#marks.delete(id);
    this.#home.delete(id);
    this.#jobs.remove(id);
  }

  #drop(slab) {
    this.#near.unobserve(slab.element);
    slab.dispose();
    slab.element.remove();
  }

  /** After every change of what the list holds: keep its bounds, and its role. */
  #settle() {
    let trimmed = false;
    while (this.#home.size > MOST && this.#slabs.length > 1) {
      trimmed = true;
      const slab = this.#slabs.pop();
      for (const id of slab.ids) this.#forget(id);
      this.#drop(slab);
    }
    // A feed without an article is not a feed.
    this.#root.setAttribute("role", this.size > 0 ? "feed" : "group");
    this.#balance();
    if (trimmed) this.#trimmed();
  }

  /** Keep the document small, and fill it when there is time. */
  #balance() {
    clearTimeout(this.#quiet);
    let excess = this.#slabs.reduce((sum, slab) => sum + slab.mounted, -MOST_MOUNTED);
    if (excess <= 0) {
      this.#quiet = setTimeout(() => this.#fill(-excess), QUIET_MS);
      return;
    }
    const far = [];
    for (let at = this.#slabs.length - 1; at >= 0 && excess > 0; at -= 1) {
      const slab = this.#slabs[at];
      if (slab.near || !slab.mounted || slab.busy) continue;
      far.push(slab);
      excess -= slab.mounted;
    }
    // All heights are read before anything is written, so that the layout is computed once.
    const heights = far.map((slab) => slab.element.getBoundingClientRect().height);
    far.forEach((slab, at) => {
      if (heights[at] > 0) this.#height = heights[at] / slab.ids.length;
      slab.unmount(heights[at]);
    });
  }

  /** Mount the uppermost slab that is not, and go on as long as there is room and nothing else happens. */
  #fill(room) {
    const slab = this.#slabs.find(({ views }) => views === null);
    if (!slab || slab.ids.length > room) return;
    slab.mount();
    this.#quiet = setTimeout(() => this.#fill(room - slab.ids.length), 0);
  }

  #see(entries) {
    for (const { target, isIntersecting } of entries) {
      target.slab.near = isIntersecting;
      if (isIntersecting) target.slab.mount();
    }
    this.#balance();
  }

  #firstVisible() {
    for (const article of this.#root.querySelectorAll("[data-job-id]")) {
      const margin = parseFloat(getComputedStyle(article).scrollMarginBlockStart) || 0;
      if (article.getBoundingClientRect().top >= margin - 8) return Number(article.dataset.jobId);
    }
    return null;
  }

  #click(event) {
    const id = this.idOf(event.target);
    if (id === null) return;
    if (!event.target.closest("[data-part=toggle]")) {
      if (event.target.closest("a, button, [data-part=details]")) return;
      if (String(getSelection())) return;
    }
    this.view(id).toggle();
  }
}
