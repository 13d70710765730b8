/** Shortcuts of one key; they stay out of text fields, dialogs and combinations. */

const EDITABLE = "input:not([type=checkbox]), textarea, select, [contenteditable]";

/** Calls the action of a pressed key; an action that returns false leaves the key to the browser. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest?.(EDITABLE) || document.querySelector("dialog[open]")) return;
    const action = actions[event.key];
    if (action && action(event) !== false) event.preventDefault();
  });
}
