/** A run of postings with a box of its own: all of them in the document, or only the room they take. */

/** Holds ids, newest first, and while it is mounted their views; `make(id)` builds a view. */
export class Slab {
  views = null;
  ids;
  element = document.createElement("div");
  /** Whether it is near the viewport; assumed until something knows better. */
  near = true;
  #make;

  constructor(ids, make) {
    this.ids = ids;
    this.#make = make;
    this.element.className = "slab";
    this.element.slab = this;
  }

  get mounted() {
    return this.views === null ? 0 : this.ids.length;
  }

  /** Whether someone is in the middle of it. */
  get busy() {
    return this.element.matches(":has([data-expanded], :focus)");
  }

  /** Take this much room, in pixels, while the postings are not drawn. */
  reserve(height) {
    this.element.style.containIntrinsicBlockSize = `auto ${height}px`;
    this.element.style.blockSize = this.views === null ? `${height}px` : "";
  }

  mount() {
    if (this.views !== null) return;
    this.views = new Map(this.ids.map((id) => [id, this.#make(id)]));
    this.element.replaceChildren(...this.ids.map((id) => this.views.get(id).element));
    this.element.style.blockSize = "";
  }

  unmount(height) {
    this.dispose();
    this.views = null;
    this.element.replaceChildren();
    this.reserve(height);
  }

  /** Put newer postings on top of a mounted slab. */
  prepend(ids) {
    const views = ids.map((id) => [id, this.#make(id)]);
    this.ids.unshift(...ids);
    for (const [id, view] of views) this.views.set(id, view);
    this.element.prepend(...views.map(([, view]) => view.element));
  }

  remove(id) {
    this.ids.splice(this.ids.indexOf(id), 1);
    this.views?.get(id).dispose();
    this.views?.get(id).element.remove();
    this.views?.delete(id);
  }

  /** Let go of what its postings have under way. */
  dispose() {
    for (const view of this.views?.values() ?? []) view.dispose();
  }
}
