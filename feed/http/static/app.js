/** Puts the page together: one feed, its list, its filters, its status, and the keys. */

import { Announcer } from "./announcer.js";
import { Api } from "./api.js";
import { Arrivals } from "./arrivals.js";
import { Clock } from "./clock.js";
import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { count, plural } from "./format.js";
import { Jobs } from "./jobs.js";
import { listen } from "./keyboard.js";
import { List } from "./list.js";
import { Notice } from "./notice.js";
import { Query } from "./query.js";
import { Sheet } from "./sheet.js";
import { Status } from "./status.js";
import { Terminal } from "./terminal.js";

const TICK_MS = 5000;
const TOP_PX = 120;
const HISTORY_PX = 1600;
const SIGNED_IN = "feed.signed-in";

const get = (id) => document.getElementById(id);
const TITLE = document.title;
const TROUBLE = ["reconnecting", "draining", "offline"];

let query = Query.parse(location.search);
let typed = false;
let troubled = false;
let unseen = 0;
let healthTimer = 0;

const clock = new Clock(location.hostname);
const api = new Api(clock);
const jobs = new Jobs();
const announcer = new Announcer(get("announcer"));
const terminal = new Terminal(location.origin);
const notice = new Notice({ root: get("notice"), terminal });
const status = new Status(get("status"), (state, text) => {
  // That all is well is worth a word only after it was not.
  if (state === "live" ? troubled : TROUBLE.includes(state)) announcer.say(text);
  if (state === "live" && get("end").dataset.state === "failed") feed.older();
  if (state === "live") troubled = false;
  else if (TROUBLE.includes(state)) troubled = true;
});
const list = new List(get("jobs"), jobs, {
  load: (id, signal) => api.posting(id, signal),
  trimmed: () => {
    feed.forgetHistory();
    showHistory("trimmed");
  },
});
const arrivals = new Arrivals(get("new-pill"), { reading, show, overflow: () => feed.follow(query) });
const feed = new Feed({
  api,
  jobs,
  clock,
  status,
  listener: { replaced, arrived, changed, appended, history: showHistory, problem, recovered },
});
const filters = new Filters({
  search: get("q"),
  form: get("filters"),
  chips: document.querySelectorAll(".chips"),
  jobs,
  change: (edited, typing) => navigate(edited, typing),
});
const sheet = new Sheet({
  dialog: get("sheet"),
  home: get("sidebar"),
  form: get("filters"),
  opener: get("open-filters"),
  foot: get("foot"),
});

function navigate(edited, typing) {
  const address = edited.empty ? location.pathname : `?${edited}`;
  // Typing a search leaves one entry in the history, not one a letter.
  if (typing && typed) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  typed = typing;
  follow(edited);
}

function follow(wanted) {
  query = wanted;
  filters.show(query);
  sheet.count(query.pairs.length);
  terminal.show(query);
  arrivals.clear();
  announcer.clear();
  get("jobs").setAttribute("aria-busy", "true");
  scrollTo(0, 0);
  feed.follow(query);
}

// What the feed tells.

function replaced(ids) {
  arrivals.clear();
  list.replace(ids);
  get("jobs").setAttribute("aria-busy", "false");
  announcer.say(ids.length > 0 ? `${plural(ids.length, "posting")} loaded, newest first.` : "No postings yet.");
  showNotice();
}

function arrived(id, type) {
  announcer.count("arrived");
  arrivals.add(id, type);
  if (document.hidden) {
    unseen += 1;
    document.title = `(${count(unseen)}) ${TITLE}`;
  }
}

function changed(id, type) {
  const entry = jobs.get(id);
  if (list.has(id)) {
    list.change(id, type);
    announcer.count(entry.state === "open" ? "updated" : "closed");
  } else if (entry.state === "left") {
    arrivals.drop(id);
    jobs.remove(id);
  }
}

function appended(ids) {
  list.append(ids);
  showNotice();
}

function problem(refusal) {
  filters.objections(refusal.errors);
  if (refusal.passing) {
    if (list.size === 0) notice.unreachable(refusal);
    return;
  }
  jobs.clear();
  list.replace([]);
  get("jobs").setAttribute("aria-busy", "false");
  showHistory("none");
  if (refusal.status === 401) {
    signedIn(false);
    notice.signIn(refusal, signIn);
    announcer.say("Sign in to see the postings.");
    return;
  }
  notice.refused(refusal);
  announcer.say(refusal.message);
}

async function signIn(key) {
  await api.signIn(key);
  signedIn(true);
  follow(query);
}

async function signOut() {
  await api.signOut();
  signedIn(false);
  follow(query);
}

/** The cookie itself is out of a script's reach. */
function signedIn(yes) {
  if (yes) localStorage.setItem(SIGNED_IN, "yes");
  else localStorage.removeItem(SIGNED_IN);
  get("sign-out").hidden = !yes;
}

function recovered() {
  showNotice();
}

function showNotice() {
  if (list.size > 0 || arrivals.waiting > 0) notice.clear();
  else notice.empty(query);
}

function showHistory(state, refusal) {
  const end = get("end");
  end.dataset.state = state;
  const texts = {
    loading: "Loading older postings…",
    end: list.size > 0 ? "That is everything so far." : "",
    failed: `Older postings could not be loaded. ${refusal?.message ?? ""}`,
    trimmed: `Only the newest ${count(list.size)} are kept here. Narrow the filter to look further back.`,
  };
  get("end-text").textContent = texts[state] ?? "";
  get("end-retry").hidden = state !== "failed";
  if (state === "more") requestAnimationFrame(() => nearEnd() && feed.older());
}

// Where the reader is.

function reading() {
  return scrollY > TOP_PX || list.reading || list.idOf(document.querySelector(":focus-visible")) !== null;
}

function nearEnd() {
  return get("end").dataset.state === "more" && get("end").getBoundingClientRect().top < innerHeight + HISTORY_PX;
}

function show(fresh) {
  notice.clear();
  list.prepend(fresh.filter(([id]) => jobs.has(id) && !list.has(id)));
}

function toTop() {
  arrivals.reveal();
  // A focus inside the list would count as reading and hold the next ones back.
  get("jobs").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

function setPaused(on) {
  arrivals.pause(on);
  get("pause").setAttribute("aria-pressed", String(on));
  document.documentElement.toggleAttribute("data-paused", on);
  announcer.say(on ? "Paused. New postings are held back." : "New postings are shown as they come.");
}

function step(by) {
  const current = list.idOf(document.activeElement);
  const id = list.neighbour(current, by);
  if (id !== null) list.focus(id);
}

function current() {
  const id = list.idOf(document.activeElement);
  return id === null ? null : list.view(id);
}

// The reader's hands.

listen({
  "/": () => {
    get("q").focus();
    get("q").select();
  },
  j: () => step(1),
  k: () => step(-1),
  o: () => current()?.toggle(),
  Enter: (event) => (event.target.closest("a, button, summary") ? false : current()?.toggle()),
  v: () => current()?.visit(),
  n: toTop,
  p: () => setPaused(!arrivals.paused),
  f: () => sheet.open(),
  "?": () => get("shortcuts").showModal(),
});
get("q").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  // Left alone, it would also empty the field.
  event.preventDefault();
  event.target.blur();
});
get("new-pill").addEventListener("click", toTop);
get("pause").addEventListener("click", () => setPaused(!arrivals.paused));
get("open-shortcuts").addEventListener("click", () => get("shortcuts").showModal());
get("sign-out").addEventListener("click", signOut);
get("end-retry").addEventListener("click", () => feed.older());
get("health").addEventListener("toggle", (event) => {
  clearInterval(healthTimer);
  if (event.newState !== "open") return;
  renderHealth();
  healthTimer = setInterval(renderHealth, 1000);
});
addEventListener("scroll", () => arrivals.nudge(), { passive: true });
addEventListener("focusout", () => arrivals.nudge());
get("jobs").addEventListener("click", () => arrivals.nudge());
addEventListener("popstate", () => {
  const wanted = Query.parse(location.search);
  typed = false;
  // The skip link only changes the fragment.
  if (!wanted.equals(query)) follow(wanted);
});
document.addEventListener("visibilitychange", () => {
  unseen = 0;
  document.title = TITLE;
});

function renderHealth() {
  get("health-rows").replaceChildren(
    ...status.report(feed.cursor, clock.offset()).flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const description = document.createElement("dd");
      term.textContent = name;
      description.textContent = value;
      return [term, description];
    }),
  );
}

setInterval(() => {
  if (list.tick(Date.now()).length > 0) showNotice();
}, TICK_MS);
new IntersectionObserver((entries) => entries.at(-1).isIntersecting && nearEnd() && feed.older(), {
  rootMargin: `0px 0px ${HISTORY_PX}px`,
}).observe(get("end"));

get("sign-out").hidden = localStorage.getItem(SIGNED_IN) === null;
history.scrollRestoration = "manual";
follow(query);
