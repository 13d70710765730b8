/** The filters as a value: read from a query string, written back to one. */

/** Filters that may be repeated (OR) and are edited as a set. */
export const SETS = ["company", "location", "country", "workplace", "employment_type", "seniority", "tag", "event"];

/** Filters with one value. */
export const SINGLES = ["q", "salary_min", "currency", "near", "radius_km"];

/** Names the page itself puts on a request; in its own address they mean nothing. */
const RESERVED = ["limit", "after", "before", "sort", "count", "last_event_id"];

const LABELS = {
  q: "search",
  employment_type: "type",
  salary_min: "salary from",
  radius_km: "within km",
  tag: "tag",
  event: "event",
};

/** What a filter is called on screen. */
export function label(name) {
  return LABELS[name] ?? name;
}

/** An immutable list of [name, value] pairs; names it does not know are kept, so that the server can object to them. */
export class Query {
  constructor(pairs = []) {
    this.pairs = Object.freeze(pairs.map(([name, value]) => Object.freeze([name, value])));
    Object.freeze(this);
  }

  /** Read the query string of an address; blank values and repeated pairs are dropped. */
  static parse(search) {
    const seen = new Set();
    const pairs = [];
    for (const [name, raw] of new URLSearchParams(search)) {
      const value = raw.trim();
      const key = `${name}=${value}`;
      if (value && !RESERVED.includes(name) && !seen.has(key)) {
        seen.add(key);
        pairs.push([name, value]);
      }
    }
    return new Query(pairs);
  }

  get empty() {
    return this.pairs.length === 0;
  }

  /** All values of a name, in order. */
  all(name) {
    return this.pairs.filter(([key]) => key === name).map(([, value]) => value);
  }

  /** The first value of a name, or "". */
  first(name) {
    return this.all(name)[0] ?? "";
  }

  /** The same query with the values of one name replaced. */
  with(name, values) {
    const kept = this.pairs.filter(([key]) => key !== name);
    const added = [...new Set(values.map((value) => value.trim()).filter(Boolean))].map((value) => [name, value]);
    return new Query([...kept, ...added]);
  }

  /** The same query without one pair; a radius goes with its centre. */
  without(name, value) {
    return new Query(
      this.pairs.filter(([key, held]) => !(key === name && held === value) && !(name === "near" && key === "radius_km")),
    );
  }

  equals(other) {
    return this.toString() === other.toString();
  }

  toString() {
    return new URLSearchParams(this.pairs).toString();
  }
}
