/** The postings the page holds, by id: one state each, the newest version wins. */

/** Versions remembered of postings that closed unseen, so that an older list page cannot bring them back. */
const MOST_GONE = 20000;

/** What became of an event: a posting not held before, one held that changed, or nothing. */
export const Outcome = Object.freeze({ ARRIVED: "arrived", CHANGED: "changed", IGNORED: "ignored" });

/** Entries {job, state: "open"|"closed"|"left", reason}; knows no order and no screen. */
export class Jobs {
  #entries = new Map();
  #gone = new Map();

  get size() {
    return this.#entries.size;
  }

  get(id) {
    return this.#entries.get(id);
  }

  has(id) {
    return this.#entries.has(id);
  }

  values() {
    return this.#entries.values();
  }

  /** Take an event in; a closed posting that was never held is only shown to those who `wantClosed`. */
  apply(type, data, wantClosed) {
    const { reason = null, ...job } = data;
    const entry = this.#entries.get(job.id);
    const next = stateOf(type, job, reason);
    if (!entry) {
      if ((this.#gone.get(job.id) ?? 0) >= job.version) return Outcome.IGNORED;
      if (next.state === "left" || (next.state === "closed" && !wantClosed)) {
        this.#bury(job);
        return Outcome.IGNORED;
      }
      this.#gone.delete(job.id);
      this.#entries.set(job.id, { job, ...next });
      return Outcome.ARRIVED;
    }
    // A deleted or expired row may keep its version: an end is also taken at the version held, once.
    const ends = type === "closed" && entry.state === "open" && job.version === entry.job.version;
    if (job.version <= entry.job.version && !ends) return Outcome.IGNORED;
    Object.assign(entry, { job, ...next });
    return Outcome.CHANGED;
  }

  /** Take a list page in; returns the ids {added, changed}, in the page's order. */
  add(page) {
    const added = [];
    const changed = [];
    for (const job of page) {
      const entry = this.#entries.get(job.id);
      if (!entry) {
        if ((this.#gone.get(job.id) ?? 0) >= job.version) continue;
        this.#entries.set(job.id, { job, ...stateOf("posted", job, null) });
        added.push(job.id);
      } else if (job.version > entry.job.version) {
        Object.assign(entry, { job, ...stateOf("updated", job, null) });
        changed.push(job.id);
      }
    }
    return { added, changed };
  }

  /** Let one go, remembering its version. */
  remove(id) {
    const entry = this.#entries.get(id);
    if (entry && this.#entries.delete(id) && entry.state !== "open") this.#bury(entry.job);
  }

  clear() {
    this.#entries.clear();
    this.#gone.clear();
  }

  #bury(job) {
    this.#gone.delete(job.id);
    this.#gone.set(job.id, job.version);
    if (this.#gone.size > MOST_GONE) this.#gone.delete(this.#gone.keys().next().value);
  }
}

function stateOf(type, job, reason) {
  if (type === "closed") return { state: reason === "left_filter" ? "left" : "closed", reason: reason ?? "closed" };
  return job.closed_at ? { state: "closed", reason: "closed" } : { state: "open", reason: null };
}
