/** How the server's clock relates to ours, as bounds; lag is only ever claimed as far as they allow. */

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;
const DATE_STEP_MS = 1000;

/**
 * Keeps low <= (our clock - the server's clock) <= high, in milliseconds.
 *
 * A response's Date header bounds it from both sides (it has a resolution of one second); anything with a server time that
 * arrives bounds it from above, because nothing arrives before it was sent. Several bounds narrow each other.
 */
export class Clock {
  #low = -Infinity;
  #high = Infinity;
  #shared;

  constructor(hostname) {
    this.#shared = LOOPBACK.test(hostname);
  }

  /** Learn from a response: when it was asked for, when it came, and its Date header. */
  answered(asked, came, date) {
    const at = Date.parse(date ?? "");
    if (Number.isNaN(at)) return;
    this.#narrow(asked - at - DATE_STEP_MS, came - at);
  }

  /** Learn from a server time that has just arrived. */
  heard(at, came) {
    this.#narrow(-Infinity, came - at);
  }

  /** Bounds {low, high} of the time between a server time and its arrival here, or null while nothing is known. */
  lag(at, came) {
    const offset = this.offset();
    if (!offset) return null;
    return { low: Math.max(0, came - at - offset.high), high: Math.max(0, came - at - offset.low) };
  }

  /** Bounds {low, high} of our clock minus the server's, or null while nothing is known. */
  offset() {
    if (this.#shared) return { low: 0, high: 0 };
    return Number.isFinite(this.#low) && Number.isFinite(this.#high) ? { low: this.#low, high: this.#high } : null;
  }

  #narrow(low, high) {
    // Loopback means one clock, unless a tunnel is in between; then the bounds soon exclude zero.
    if (low > 0 || high < 0) this.#shared = false;
    const narrowed = { low: Math.max(this.#low, low), high: Math.min(this.#high, high) };
    if (narrowed.low <= narrowed.high) {
      this.#low = narrowed.low;
      this.#high = narrowed.high;
    } else {
      // One of the clocks was set: what was known no longer holds.
      this.#low = low;
      this.#high = high;
    }
  }
}
