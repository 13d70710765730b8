/** The composition root: builds the parts of the page, joins them, and starts. */

import { Announcer } from "./announcer.js";
import { Api } from "./api.js";
import { Arrivals } from "./arrivals.js";
import { Clock } from "./clock.js";
import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { Health } from "./health.js";
import { Jobs } from "./jobs.js";
import { listen } from "./keyboard.js";
import { List } from "./list.js";
import { Notice } from "./notice.js";
import { Older } from "./older.js";
import { Page } from "./page.js";
import { Reader } from "./reader.js";
import { Session } from "./session.js";
import { Sheet } from "./sheet.js";
import { Status } from "./status.js";
import { Terminal } from "./terminal.js";
import { Unseen } from "./unseen.js";

const TICK_MS = 5000;

const get = (id) => document.getElementById(id);

const root = get("jobs");
const clock = new Clock(location.hostname);
const api = new Api(clock);
const jobs = new Jobs();
const terminal = new Terminal(location.origin);
const status = new Status(get("status"), (state, text) => page.connection(state, text));
const list = new List(root, jobs, {
  load: (id, signal) => api.posting(id, signal),
  trimmed: () => page.trimmed(),
});
const reader = new Reader(root, list);
const arrivals = new Arrivals(get("new-pill"), {
  reading: () => reader.reading,
  show: (fresh) => page.show(fresh),
  overflow: () => page.reload(),
});
const feed = new Feed({
  api,
  jobs,
  clock,
  status,
  listener: {
    replaced: (ids, about) => page.replaced(ids, about),
    arrived: (id, type) => page.arrived(id, type),
    changed: (id, type) => page.changed(id, type),
    appended: (ids) => page.appended(ids),
    history: (state, refusal) => page.history(state, refusal),
    problem: (refusal) => page.problem(refusal),
    recovered: () => page.recovered(),
  },
});
const filters = new Filters({
  search: get("q"),
  form: get("filters"),
  chips: document.querySelectorAll(".chips"),
  jobs,
  change: (edited, typing) => page.navigate(edited, typing),
});
const sheet = new Sheet({
  dialog: get("sheet"),
  home: get("sidebar"),
  form: get("filters"),
  opener: get("open-filters"),
  foot: get("foot"),
});
const page = new Page({
  root,
  jobs,
  list,
  reader,
  arrivals,
  feed,
  filters,
  sheet,
  terminal,
  announcer: new Announcer(get("announcer")),
  total: get("total"),
  notice: new Notice({ root: get("notice"), terminal }),
  older: new Older({
    root: get("end"),
    text: get("end-text"),
    retry: get("end-retry"),
    list,
    load: () => feed.older(),
  }),
  session: new Session(api, get("sign-out")),
  unseen: new Unseen(),
  pause: get("pause"),
});
new Health({ panel: get("health"), rows: get("health-rows"), report: () => status.report(feed.cursor, clock.offset()) });

listen({
  "/": () => {
    get("q").focus();
    get("q").select();
  },
  j: () => reader.step(1),
  k: () => reader.step(-1),
  o: () => reader.current?.toggle(),
  Enter: (event) => (event.target.closest("a, button, summary") ? false : reader.current?.toggle()),
  v: () => reader.current?.visit(),
  n: () => page.toTop(),
  p: () => page.togglePause(),
  f: () => sheet.open(),
  "?": () => get("shortcuts").showModal(),
});
get("q").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  // Left alone, it would also empty the field.
  event.preventDefault();
  event.target.blur();
});
get("new-pill").addEventListener("click", () => page.toTop());
get("pause").addEventListener("click", () => page.togglePause());
get("open-shortcuts").addEventListener("click", () => get("shortcuts").showModal());
get("sign-out").addEventListener("click", () => page.signOut());
addEventListener("scroll", () => arrivals.nudge(), { passive: true });
addEventListener("focusout", () => arrivals.nudge());
root.addEventListener("click", () => arrivals.nudge());
addEventListener("popstate", () => page.popped());
setInterval(() => page.tick(), TICK_MS);

page.start();
