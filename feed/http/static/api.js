/** Requests to the service, and the one error they raise. */

const TIMEOUT_MS = 15000;

/** A problem+json answer, or status 0 when there was no answer at all. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", errors = [] }) {
    super(detail || title || "The server does not answer.");
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.errors = Array.isArray(errors) ? errors : [];
  }

  /** Whether asking again, unchanged, may help. */
  get passing() {
    return this.status === 0 || this.status >= 500 || this.status === 408 || this.status === 429;
  }
}

/** Reads lists and postings, signs in and out; tells the clock what it learns on the way. */
export class Api {
  #clock;

  constructor(clock) {
    this.#clock = clock;
  }

  /** One page of the list: {jobs, next, stream: {last_event_id, url}}, and with `count`, `about` how many match. */
  page(query, { limit, after = null, count = false, signal }) {
    const parameters = new URLSearchParams(query.pairs);
    parameters.set("limit", String(limit));
    if (after !== null) parameters.set("after", after);
    if (count) parameters.set("count", "true");
    return this.#get(`/v1/jobs?${parameters}`, signal);
  }

  /** One posting with its description. */
  posting(id, signal) {
    return this.#get(`/v1/jobs/${encodeURIComponent(id)}`, signal);
  }

  /** Exchange a key for a session's cookie. */
  signIn(key) {
    // What cannot stand in a header cannot be a key either.
    const authorization = `Bearer ${key.replace(/[^!-~]/g, "")}`;
    return this.#ask("/v1/session", { method: "POST", headers: { authorization } });
  }

  /** End the session. */
  signOut() {
    return this.#ask("/v1/session", { method: "DELETE" });
  }

  #get(url, signal) {
    return this.#ask(url, { signal });
  }

  async #ask(url, { method = "GET", headers = {}, signal = new AbortController().signal }) {
    const asked = Date.now();
    let response;
    try {
      response = await fetch(url, {
        method,
        headers: { accept: "application/json", ...headers },
        cache: "no-store",
        signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
      });
    } catch (error) {
      signal.throwIfAborted();
      throw new Problem({ detail: error.name === "TimeoutError" ? "The server takes too long to answer." : "" });
    }
    this.#clock.answered(asked, Date.now(), response.headers.get("date"));
    if (response.status === 204) return null;
    let body;
    try {
      body = await response.json();
    } catch {
      signal.throwIfAborted();
      throw new Problem({ status: response.ok ? 0 : response.status, title: response.statusText });
    }
    if (!response.ok) throw new Problem({ ...body, status: response.status });
    return body;
  }
}
