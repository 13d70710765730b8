/** Waiting times that grow, with jitter, so that many pages do not come back in step. */

const FIRST_MS = 1000;
const LONGEST_MS = 30000;

/** Doubles from one second to half a minute; each wait is drawn from the upper half of its step. */
export class Backoff {
  #step = 0;

  /** The next wait in milliseconds. */
  next() {
    const step = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.#step);
    this.#step = Math.min(this.#step + 1, 10);
    return Math.round(step * (0.5 + Math.random() / 2));
  }

  reset() {
    this.#step = 0;
  }
}

/** Resolves after a time, or at once when the network comes back; rejects when the signal aborts. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const leave = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", stop);
    };
    const done = () => {
      leave();
      resolve();
    };
    const stop = () => {
      leave();
      reject(signal.reason);
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done, { once: true });
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
}
