"""What a reader has before them: one page, with a witness inside that misses nothing between two looks."""

import re
from typing import Any, Self, TypeAlias

import asyncpg
from playwright.async_api import BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.waiting import until

Database: TypeAlias = "asyncpg.Connection[Any]"

WAIT = 60_000  # milliseconds; on a loaded machine a reconnection may take several attempts
UNREACHABLE = r"Failed to load resource: (net::ERR_|the server responded with a status of 503)"
"""What Chromium says of a service that is gone or not ready; expected where a test takes it away."""

_WITNESS = """
window.witness = {states: [], most: 0, doubled: [], aged: [], violations: []};
addEventListener('securitypolicyviolation', (event) => witness.violations.push(event.violatedDirective));
new MutationObserver((records) => {
  for (const {target, attributeName, oldValue} of records) {
    const {version, jobId} = target.dataset ?? {};
    if (attributeName === 'data-version' && version < Number(oldValue)) witness.aged.push(jobId);
    if (target.id === 'status' && witness.states.at(-1) !== target.dataset.state) witness.states.push(target.dataset.state);
  }
  const ids = [...document.querySelectorAll('#jobs [data-job-id]')].map((article) => article.dataset.jobId);
  witness.most = Math.max(witness.most, ids.length);
  if (new Set(ids).size < ids.length) witness.doubled.push(...ids.filter((id, at) => ids.indexOf(id, at + 1) >= 0));
}).observe(document, {
  subtree: true, childList: true, attributeFilter: ['data-state', 'data-version'], attributeOldValue: true,
});
"""

# The list is made of runs, each drawn when one comes near it.
_READ_DOWN = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const end = document.querySelector('#end');
  const read = [];
  for (let run = document.querySelector('#jobs').firstElementChild; run; ) {
    run.scrollIntoView();
    while (run.childElementCount === 0) await frame();
    read.push(...[...run.children].map((article) => Number(article.dataset.jobId)));
    while (!run.nextElementSibling && ['more', 'loading'].includes(end.dataset.state)) {
      end.scrollIntoView();
      await frame();
    }
    run = run.nextElementSibling;
  }
  if (end.dataset.state !== 'end') throw new Error(end.innerText);
  scrollTo(0, 0);
  return read;
}"""


class Screen:
    """A page under watch: `expected` holds patterns of the console errors that belong to the test."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.expected: list[str] = []
        self._errors: list[str] = []
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", self._heard)

    @classmethod
    async def of(cls, context: BrowserContext) -> Self:
        """A new page in a context."""
        await context.add_init_script(_WITNESS)
        return cls(await context.new_page())

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._errors.append(message.text)

    async def objections(self) -> list[str]:
        """Everything that must not happen on any page, and did."""
        unexpected = [e for e in self._errors if not any(re.search(pattern, e) for pattern in self.expected)]
        doubled = await self.witnessed("doubled")
        aged = await self.witnessed("aged")
        return [
            *unexpected,
            *(f"posting {job_id} was on screen twice" for job_id in doubled),
            *(f"posting {job_id} went back to an older version" for job_id in aged),
        ]

    async def witnessed(self, what: str) -> Any:
        """states: of the connection, in order; most: articles at once; doubled, aged: ids; violations: of the policy."""
        return await self.page.evaluate(f"witness.{what}")

    @property
    def status(self) -> Locator:
        """What the connection does."""
        return self.page.locator("#status")

    async def is_in(self, state: str) -> None:
        """Wait until the connection is in this state."""
        await expect(self.status).to_have_attribute("data-state", state)

    async def live(self) -> None:
        """Wait until the page is live."""
        await self.is_in("live")

    def posting(self, job_id: int) -> Locator:
        """One posting."""
        return self.page.locator(f'#jobs [data-job-id="{job_id}"]')

    async def ids(self) -> list[int]:
        """The postings in the document, from the top."""
        script = "articles => articles.map(article => Number(article.dataset.jobId))"
        return await self.page.locator("#jobs [data-job-id]").evaluate_all(script)

    async def read_down(self) -> list[int]:
        """The postings that one passes on the way from the top of the list to its end."""
        return await self.page.evaluate(_READ_DOWN)

    async def shows(self, ids: list[int]) -> None:
        """Wait until exactly these are in the document, in this order."""

        async def same() -> bool:
            self._last = await self.ids()
            return self._last == ids

        try:
            await until(same)
        except TimeoutError:
            raise AssertionError(f"on screen: {self._last}, and not {ids}") from None

    async def focused(self) -> int | None:
        """The posting that has the focus."""
        found = await self.page.evaluate("document.activeElement.dataset.jobId ?? null")
        return None if found is None else int(found)

    async def sideways(self) -> int:
        """Pixels by which the page is wider than the window."""
        return await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")


async def post(database: Database, title: str, **columns: object) -> int:
    """Commit a posting with plain SQL and return its id."""
    row = {"title": title, "company": "Acme", "url": "https://acme.example/jobs"} | columns
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    return await database.fetchval(f"INSERT INTO job ({', '.join(row)}) VALUES ({places}) RETURNING id", *row.values())


async def fill(database: Database, count: int) -> list[int]:
    """Commit many postings in one statement and return their ids, newest first."""
    rows = await database.fetch(
        "INSERT INTO job (title, company, url) SELECT 'Job ' || n, 'Acme', 'https://acme.example/' || n "
        "FROM generate_series(1, $1) n RETURNING id",
        count,
    )
    return [row["id"] for row in reversed(rows)]
