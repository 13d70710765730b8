/** Whether somebody has signed in here. The session's cookie itself is out of a script's reach. */

const KEY = "feed.signed-in";

export class Session {
  #api;
  #button;

  constructor(api, button) {
    this.#api = api;
    this.#button = button;
    button.hidden = localStorage.getItem(KEY) === null;
  }

  /** Exchange an API key or a token for a session; rejects where it is refused. */
  async signIn(key) {
    await this.#api.signIn(key);
    localStorage.setItem(KEY, "yes");
    this.#button.hidden = false;
  }

  /** End the session. */
  async signOut() {
    await this.#api.signOut();
    this.ended();
  }

  /** The session is over. */
  ended() {
    localStorage.removeItem(KEY);
    this.#button.hidden = true;
  }
}
