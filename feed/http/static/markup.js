/** The HTML of a description, built anew out of elements that are allowed: nothing of it is inserted as markup. */

import { link } from "./format.js";

// The article has a heading of its own, so those of a description are below it.
const ALLOWED = { H2: "h4", H3: "h5", H4: "h6" };
const SAME =
  "A B BLOCKQUOTE BR CAPTION CODE DIV EM I LI OL P PRE STRONG TABLE TBODY TD TFOOT TH THEAD TR U UL";
for (const name of SAME.split(" ")) ALLOWED[name] = name.toLowerCase();
const DEEPEST = 40;

/** The nodes of a description in HTML, without whatever else it may hold. */
export function markup(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const built = document.createDocumentFragment();
  copy(parsed.body, built, 0);
  return built;
}

function copy(from, to, depth) {
  for (const node of from.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) to.append(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE || !ALLOWED[node.tagName]) continue;
    if (depth === DEEPEST) {
      to.append(node.textContent);
      continue;
    }
    const element = document.createElement(ALLOWED[node.tagName]);
    if (node.tagName === "A") point(element, node.getAttribute("href"));
    copy(node, element, depth + 1);
    to.append(element);
  }
}

/** Make a link lead to an address of the web or of mail; without one it is only text. */
function point(anchor, address) {
  const href = /^mailto:[^\s]+$/i.test(address) ? address : link(address)?.href;
  if (!href) return;
  anchor.href = href;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer nofollow ugc";
}
