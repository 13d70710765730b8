"""The page against postings, and addresses, that were written to harm its readers."""

from urllib.parse import quote, urlencode

import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.screen import Database, post
from tests.conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVIL = (
    '"\'><img src=x onerror="window.harmed=1"><script>window.harmed=1</script><svg onload="window.harmed=1">'
    "<iframe srcdoc='<script>parent.harmed=1</script>'></iframe><a href=javascript:window.harmed=1>a</a>"
    "</template></textarea>{{window.harmed=1}}${window.harmed=1}\u2028\r\ndata: x\n\nevent: reset\n\u202e"
)
ADDRESSES = (
    "javascript:window.harmed=1", " \x01JaVaScRiPt:window.harmed=1", "java\nscript:window.harmed=1", "vbscript:x",
    "data:text/html,<script>window.harmed=1</script>", "blob:x", "file:///etc/passwd", "//evil.example", "nothing", EVIL,
)  # fmt: skip
DEEP = "<form action=/v1/session><input name=key></form><p style='position:fixed' id=status>" + "<div>" * 300 + "deep"
FIELDS = (
    "source", "external_id", "title", "company", "location", "country", "employment_type", "seniority", "description",
)  # fmt: skip

# Whatever makes an element act; the page itself has none of these.
ACTIVE = """[...document.querySelectorAll('*')].filter((element) =>
  element.matches('img, iframe, object, embed, base, style, script:not([src="/static/app.js"])')
  || [...element.attributes].some(({name, value}) => /^on/.test(name) || /^\\s*(javascript|data|vbscript):/i.test(value))
).map((element) => element.outerHTML)"""


@pytest.mark.parametrize("unprotected", [False, True], ids=["with the policy", "without the policy"])
async def test_nothing_in_a_posting_or_an_address_is_taken_for_more_than_text(
    server: Running, database: Database, visit: Visit, unprotected: bool
) -> None:
    """Without the content security policy, too: it is the second wall, not the first."""
    listed = await post(database, "To be changed")
    screen = await visit(server.url, bypass_csp=unprotected)
    screen.expected.append("status of 422")
    page = screen.page
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    await screen.live()

    evil = dict.fromkeys(FIELDS, EVIL[:200]) | {"title": EVIL, "tags": [EVIL, EVIL + "2"]}
    ids = [await post(database, url=address, **{**evil, "external_id": str(n)}) for n, address in enumerate(ADDRESSES)]
    ids.append(await post(database, "Safe", url='https://acme.example/"onmouseover="window.harmed=1'))
    await database.execute("UPDATE job SET title = $2, company = $3 WHERE id = $1", listed, EVIL, EVIL[:200])
    await expect(screen.posting(listed)).to_contain_text("onerror")
    await screen.shows([*reversed(ids), listed])

    for job_id in ids:
        await screen.posting(job_id).get_by_role("button").first.click()
        await expect(screen.posting(job_id).locator(".description")).to_contain_text(
            "no description" if job_id == ids[-1] else "onerror"
        )
        await page.keyboard.press("v") if job_id != ids[-1] else None
    visits = page.locator("#jobs a[href]")
    assert await visits.evaluate_all("links => links.map(link => link.protocol)") == ["https:", "https:"]
    assert await visits.evaluate_all("links => links.map(link => link.rel)") == ["noopener noreferrer nofollow"] * 2
    assert await page.evaluate(ACTIVE) == []
    assert len(page.context.pages) == 1

    for field in ("#f-company", "#f-tag", "#f-location"):
        await page.locator(field).focus()
    await page.goto(f"{server.url}/?" + urlencode({"company": EVIL, "q": EVIL, EVIL: EVIL}))
    await expect(page.get_by_role("alert")).to_contain_text("This filter does not work")
    assert await page.evaluate(ACTIVE) == []
    await page.goto(f"{server.url}/?company={quote(EVIL[:200])}#{quote(EVIL)}")
    await screen.live()
    assert await page.evaluate(ACTIVE) == []

    assert await page.evaluate("window.harmed") is None
    assert dialogs == []
    assert await screen.witnessed("violations") == []


HTML = (
    "<h2>What you do</h2><p>Bread, and <a href='https://acme.example/rolls'>rolls</a>.</p><ul><li>one<li>two</ul>"
    "<a href='mailto:jobs@acme.example'>mail</a><table><tr><td>Mon<td>9</table>"
)


@pytest.mark.parametrize("unprotected", [False, True], ids=["with the policy", "without the policy"])
async def test_the_html_of_a_description_keeps_its_form_and_cannot_act(
    server: Running, database: Database, visit: Visit, unprotected: bool
) -> None:
    """By the service, and by the page alone: it builds what it shows itself, even if the service let everything through."""
    job_id = await post(database, "Baker")
    await database.execute("UPDATE job SET description_html = $2 WHERE id = $1", job_id, HTML + EVIL)
    screen = await visit(server.url, bypass_csp=unprotected)
    page = screen.page
    await screen.live()
    description = screen.posting(job_id).locator(".description")

    async def look() -> None:
        await screen.posting(job_id).get_by_role("button").first.click()
        await expect(description.get_by_role("heading", name="What you do")).to_be_visible()
        await expect(description.get_by_role("listitem")).to_have_text(["one", "two"])
        await expect(description.get_by_role("cell")).to_have_text(["Mon", "9"])
        links = description.locator("a[href]")
        assert await links.evaluate_all("links => links.map(link => link.href)") == [
            "https://acme.example/rolls", "mailto:jobs@acme.example",
        ]  # fmt: skip
        assert set(await links.evaluate_all("links => links.map(link => `${link.target} ${link.rel}`)")) == {
            "_blank noopener noreferrer nofollow ugc"
        }
        assert await page.evaluate(ACTIVE) == []

    await look()
    assert await screen.witnessed("violations") == []

    async def unsanitised(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, json=await answer.json() | {"description_html": HTML + EVIL + DEEP})

    screen.expected.append("Content Security Policy")  # which also watches what is only parsed
    await page.route(f"**/v1/jobs/{job_id}", unsanitised)
    await page.reload()
    await screen.live()
    await look()
    await expect(description).to_contain_text("deep")
    assert await page.evaluate("window.harmed") is None


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/app.css"])
async def test_the_page_and_its_files_come_with_a_strict_policy(server: Running, visit: Visit, path: str) -> None:
    screen = await visit(server.url)
    response = await screen.page.request.get(server.url + path)
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_the_policy_stops_what_would_get_past_the_page(server: Running, visit: Visit) -> None:
    screen = await visit(server.url)
    screen.expected.append("Content Security Policy")
    await screen.live()
    await screen.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.harmed=1\">x</b>')")
    await screen.page.evaluate("document.body.lastElementChild.click()")
    assert await screen.page.evaluate("window.harmed") is None
    assert await screen.witnessed("violations")
