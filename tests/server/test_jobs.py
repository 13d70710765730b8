"""Postings over HTTP: written one and many, all or nothing; listed; documented truly; every error a problem."""

import asyncio
import json
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from feed.model.posting import FIELDS
from feed.settings.settings import Settings
from tests.cluster import Cluster
from tests.conftest import Running, make_settings, run_server
from tests.reader import reading
from tests.server.postings import NASTY, fill
from tests.waiting import until

JOB: dict[str, Any] = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture
async def client(server: Running) -> Any:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


def lines(jobs: list[Any]) -> bytes:
    return b"".join(orjson.dumps(job) + b"\n" for job in jobs)


def job(key: object, **more: Any) -> dict[str, Any]:
    return JOB | {"source": "test", "external_id": str(key)} | more


def check_problem(response: httpx.Response, status: int) -> list[dict[str, Any]]:
    """RFC 9457: the media type, and the members; returns the faults."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"] and problem["detail"]
    assert set(problem) <= {"type", "title", "status", "detail", "errors"}
    faults: list[dict[str, Any]] = problem.get("errors", [])
    assert all(fault["field"] and fault["message"] and set(fault) <= {"index", "field", "message"} for fault in faults)
    return faults


async def count(client: httpx.AsyncClient) -> int:
    return len((await client.get("/v1/jobs?open=any&limit=500")).json()["jobs"])


async def test_one_posting_is_made_and_can_be_read_where_it_says(client: httpx.AsyncClient) -> None:
    whole = job(
        1, location="Köln", country="Germany", workplace="hybrid", employment_type="full-time", seniority="senior",
        tags=["c#", "Go"], salary_min=70000.5, salary_max=90000, currency="EUR", salary_period="year", latitude=50.94,
        longitude=6.96, description="Ærø\n\n*", posted_at="2026-11-20T10:00:00+02:00", valid_through="2099-01-01T00:00:00Z",
    )  # fmt: skip
    made = await client.post("/v1/jobs", json=whole)
    assert made.status_code == 201
    posting = made.json()
    assert set(posting) == {*FIELDS, "href", "description", "description_html"}
    assert made.headers["location"] == posting["href"] == f"/v1/jobs/{posting['id']}"
    read = await client.get(posting["href"])
    assert read.json() == posting
    assert {name: posting[name] for name in whole if not name.endswith(("_at", "_through"))} == {
        name: value for name, value in whole.items() if not name.endswith(("_at", "_through"))
    }
    assert posting["posted_at"].startswith("2026-11-20T08:00:00")
    assert posting["version"] == 1 and posting["closed_at"] is None


async def test_a_posting_without_a_key_is_new_each_time_and_with_one_it_is_the_same(client: httpx.AsyncClient) -> None:
    first, second = [await client.post("/v1/jobs", json=JOB) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    first, second = [await client.post("/v1/jobs", json=job(1)) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


@pytest.mark.parametrize("form", ["array", "ndjson"])
async def test_many_are_written_in_order_and_counted(client: httpx.AsyncClient, server: Running, form: str) -> None:
    async def write(jobs: list[dict[str, Any]]) -> Any:
        if form == "array":
            return (await client.post("/v1/jobs", json=jobs)).json()
        return (await client.post("/v1/jobs", content=lines(jobs).replace(b"\n", b"\n\r\n"), headers=NDJSON)).json()

    async with reading(server.url) as reader:
        assert await write([job(n) for n in range(1200)]) == {"created": 1200, "updated": 0, "unchanged": 0}
        again = [job(n, title="Chef" if n in (3, 700) else "Baker") for n in range(1201)]
        assert await write(again) == {"created": 1, "updated": 2, "unchanged": 1198}
        frames = await reader.jobs(1203)
    assert [frame.data["external_id"] for frame in frames[:1200]] == [str(n) for n in range(1200)]
    assert {(frame.event, frame.data["external_id"]) for frame in frames[1200:]} == {
        ("updated", "3"), ("updated", "700"), ("posted", "1200"),
    }  # fmt: skip


async def test_ten_thousand_lines_in_one_request_reach_a_subscriber_in_order(
    client: httpx.AsyncClient, server: Running
) -> None:
    async def body() -> Any:
        for begin in range(0, 10_000, 250):
            yield lines([job(n, title=f"Job {n}") for n in range(begin, begin + 250)])

    async with reading(server.url, http2=True) as reader:
        written = await client.post("/v1/jobs", content=body(), headers=NDJSON)
        assert written.json() == {"created": 10_000, "updated": 0, "unchanged": 0}
        frames = await reader.jobs(10_000)
    assert [frame.position for frame in frames] == list(range(1, 10_001))
    assert [frame.data["title"] for frame in frames] == [f"Job {n}" for n in range(10_000)]


async def test_writing_the_same_again_delivers_nothing(client: httpx.AsyncClient, server: Running) -> None:
    many = [job(n, tags=["a"], salary_max=5, posted_at="2026-01-01T00:00:00Z") for n in range(50)]
    await client.post("/v1/jobs", json=many)
    await until(lambda: server.service.hub.head == 50)
    async with reading(server.url) as reader:
        await reader.until("synced")
        await client.post("/v1/jobs", json=many)
        await client.post("/v1/jobs", content=lines(many), headers=NDJSON)
        await client.post("/v1/jobs", json=many[0])
        await client.put("/v1/jobs/test/1", json=many[1])
        await client.post("/v1/jobs", json=JOB)
        assert (await reader.jobs(1))[0].position == 51


@pytest.mark.parametrize("form", ["array", "ndjson"])
async def test_one_bad_item_and_nothing_is_written_and_each_is_named(client: httpx.AsyncClient, form: str) -> None:
    jobs: list[Any] = [job(n) for n in range(800)]
    jobs[3] = job(3, title=" ", salary_min=-1)
    jobs[5] = 17
    jobs[700] = job(700, colour="red", url="ftp://x.example")
    del jobs[701]["company"]
    sent = {"json": jobs} if form == "array" else {"content": lines(jobs), "headers": NDJSON}
    faults = check_problem(await client.post("/v1/jobs", **sent), 422)
    assert [(fault["index"], fault["field"]) for fault in faults] == [
        (3, "title"), (3, "salary_min"), (5, "posting"), (700, "url"), (700, "colour"), (701, "company"),
    ]  # fmt: skip
    assert await count(client) == 0


async def test_a_line_that_is_no_json_is_named_by_its_number(client: httpx.AsyncClient) -> None:
    body = lines([job(1)]) + b'{"title": \n' + lines([job(2)])
    faults = check_problem(await client.post("/v1/jobs", content=body, headers=NDJSON), 422)
    assert [(fault["index"], fault["field"]) for fault in faults] == [(1, "posting")]
    assert await count(client) == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b"\xff\xfe", b"[1,", b'"text"', b"17", b"null", b"[" * 100_000], ids=repr
)
async def test_a_body_that_is_no_posting_is_a_problem(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert check_problem(await client.post("/v1/jobs", content=body, headers=headers), 422)


@pytest.mark.parametrize("form", ["array", "ndjson"])
async def test_a_key_twice_in_one_request_is_an_error_that_names_both(client: httpx.AsyncClient, form: str) -> None:
    jobs = [job(n) for n in range(600)]
    jobs[599] = job(2, title="Other")
    sent = {"json": jobs} if form == "array" else {"content": lines(jobs), "headers": NDJSON}
    faults = check_problem(await client.post("/v1/jobs", **sent), 422)
    assert [(fault["index"], fault["field"]) for fault in faults] == [(599, "external_id")]
    assert "item 2" in faults[0]["message"]
    assert await count(client) == 0


BAD = (job(2, url="acme"), b"{oops", [7], job(1, title="again"), job(3, description="x" * 1_100_000))


@pytest.mark.parametrize("form", ["ndjson", "array"])
async def test_on_error_skip_writes_what_is_good_and_lists_the_faults_of_the_rest(
    client: httpx.AsyncClient, form: str
) -> None:
    if form == "ndjson":
        body = b"".join(
            (one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n" for one in (job(1), b"", *BAD, job(4))
        )
        sent: dict[str, Any] = {"content": body, "headers": NDJSON}
        places = [{"index": n, "line": n + 2} for n in range(1, 6)]
    else:
        sent = {"json": [job(1), BAD[0], 5, *BAD[2:], job(4)]}
        places = [{"index": n} for n in range(1, 6)]
    answer = await client.post("/v1/jobs?on_error=skip", **sent)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    errors = found.pop("errors")
    assert found == {"created": 2, "updated": 0, "unchanged": 0, "rejected": 5}
    assert [{name: value for name, value in one.items() if name in ("index", "line")} for one in errors] == places
    assert [one["field"] for one in errors] == ["url", "posting", "posting", "external_id", "posting"]
    assert errors[4]["message"] == "has more than 1,048,576 bytes"
    assert [one["title"] for one in (await client.get("/v1/jobs")).json()["jobs"]] == ["Baker"] * 2
    again = (await client.post("/v1/jobs?on_error=skip", **sent)).json()
    assert (again["unchanged"], again["rejected"]) == (2, 5)


async def test_on_error_skip_leaves_out_what_only_the_database_refuses(
    client: httpx.AsyncClient, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await database.execute("ALTER TABLE job ADD CONSTRAINT of_the_owner CHECK (seniority <> 'chief')")
    jobs = [
        job(n, **({"seniority": "chief"} if n in (3, 4, 998) else {"title": ""} if n == 2 else {})) for n in range(1200)
    ]
    check_problem(await client.post("/v1/jobs", content=lines(jobs[3:]), headers=NDJSON), 422)
    found = (await client.post("/v1/jobs?on_error=skip", content=b"\n" + lines(jobs), headers=NDJSON)).json()
    errors = [(one["index"], one["line"], one["field"]) for one in found.pop("errors")]
    assert found == {"created": 1196, "updated": 0, "unchanged": 0, "rejected": 4}
    assert errors == [(2, 4, "title"), *((n, n + 2, "of_the_owner") for n in (3, 4, 998))]
    chiefs = lines([job(n, seniority="chief") for n in range(101)])
    check_problem(await client.post("/v1/jobs?on_error=skip", content=chiefs, headers=NDJSON), 422)


async def test_on_error_skip_lists_a_hundred_faults_and_counts_all(client: httpx.AsyncClient) -> None:
    body = lines([JOB | {"title": ""}] * 1000 + [job(1)])
    found = (await client.post("/v1/jobs?on_error=skip", content=body, headers=NDJSON)).json()
    assert (found["created"], found["rejected"], len(found["errors"])) == (1, 1000, 100)
    nothing = (await client.post("/v1/jobs?on_error=skip", json=[])).json()
    assert nothing == {"created": 0, "updated": 0, "unchanged": 0, "rejected": 0, "errors": []}
    check_problem(await client.post("/v1/jobs?on_error=skip", json=JOB | {"title": ""}), 422)
    check_problem(await client.post("/v1/jobs?on_error=maybe", json=[JOB]), 422)


async def test_an_item_of_a_mebibyte_is_taken_and_one_over_it_is_not(client: httpx.AsyncClient) -> None:
    room = 1024 * 1024 - len(orjson.dumps(job(1, description="")))
    fits, over = job(1, description="x" * room), job(1, description="x" * (room + 1))
    for sent in (
        {"json": [job(2), over]},
        {"content": lines([job(2), over]), "headers": NDJSON},
        {"content": lines([job(2), over])[:-1], "headers": NDJSON},
        {"content": orjson.dumps(over), "headers": {"content-type": "application/json"}},
    ):
        check_problem(await client.post("/v1/jobs", **sent), 413)
    check_problem(await client.put("/v1/jobs/test/1", content=orjson.dumps(over)), 413)
    assert await count(client) == 0
    for sent in ({"content": orjson.dumps([fits])}, {"content": lines([fits]), "headers": NDJSON}):
        assert (await client.post("/v1/jobs", **sent)).status_code == 200
    whole = (await client.get("/v1/jobs?q=baker")).json()["jobs"][0]
    assert (await client.get(whole["href"])).json()["description"] == fits["description"]


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_request_over_its_bound_is_refused_declared_or_not(
    settings: Settings, declared: bool, http2: bool
) -> None:
    assert settings.requests.bytes == 32 * 1024 * 1024
    piece = lines([JOB | {"description": "x" * 60_000}])

    async def body() -> Any:
        for _ in range(60):
            yield piece

    headers = NDJSON | ({"content-length": str(len(piece) * 60)} if declared else {})
    async with (
        run_server(settings.changed(request_bytes=2 * 1024 * 1024)) as running,
        httpx.AsyncClient(base_url=running.url, http1=not http2, http2=http2, trust_env=False) as client,
        client.stream("GET", "/v1/jobs/stream") as neighbour,  # with HTTP/2, on the same connection
    ):
        pieces = neighbour.aiter_raw()
        assert await anext(pieces)
        check_problem(await client.post("/v1/jobs", content=body(), headers=headers), 413)
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
        while b"event: posted" not in await anext(pieces):
            pass
        assert await count(client) == 1


async def test_no_refusal_costs_its_connection_the_other_streams(server: Running) -> None:
    # Hypercorn drops an HTTP/2 connection when data comes for a request that was answered.
    body = lines([job(n, description="x" * 50_000) for n in range(30)])

    async def slowly() -> Any:
        for begin in range(0, len(body), 50_000):
            yield body[begin : begin + 50_000]

    async with (
        httpx.AsyncClient(base_url=server.url, http1=False, http2=True, trust_env=False) as client,
        client.stream("GET", "/v1/jobs/stream") as neighbour,
    ):
        pieces = neighbour.aiter_raw()
        assert await anext(pieces)
        for method, path, kind, status in (
            ("POST", "/v1/nothing", "application/json", 404),
            ("POST", "/v1/jobs/stream", "application/json", 405),
            ("POST", "/v1/jobs", "text/plain", 415),
            ("POST", "/v1/jobs/0/close", "text/plain", 422),
            ("POST", "/v1/jobs", "application/json", 422),
            ("PUT", "/v1/jobs/a/b", "application/json", 422),
        ):
            answer = await client.request(method, path, content=slowly(), headers={"content-type": kind})
            check_problem(answer, status)
        check_problem(
            await client.post("/v1/jobs", content=b'"' + b"x" * 2_000_000 + b'"\n' + body, headers=NDJSON), 413
        )
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
        while b"event: posted" not in await anext(pieces):
            pass


async def test_a_content_type_that_cannot_be_read_is_refused(client: httpx.AsyncClient) -> None:
    for kind in (
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
    ):
        check_problem(await client.post("/v1/jobs", content=b"{}", headers={"content-type": kind}), 415)
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"):
        made = await client.post("/v1/jobs", content=orjson.dumps(JOB), headers={"content-type": kind})
        assert made.status_code == 201
    assert (await client.post("/v1/jobs", content=orjson.dumps(JOB))).status_code == 201


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize(
    ("bad", "named"), [(r"\u0000", "NUL"), (r"\ud800", "surrogate"), (r"\udc00\ud800", "surrogate")]
)
async def test_what_cannot_be_stored_is_refused_in_words(
    client: httpx.AsyncClient, bad: str, named: str, kind: str
) -> None:
    for field in ("title", "company", "source", "external_id", "location", "description", "tags"):
        value = f'["a{bad}b"]' if field == "tags" else f'"a{bad}b"'
        rest = ", ".join(f'"{name}": {json.dumps(value)}' for name, value in JOB.items() if name != field)
        body = f'{{{rest}, "{field}": {value}}}'
        faults = check_problem(await client.post("/v1/jobs", content=body, headers={"content-type": kind}), 422)
        assert any(named in fault["message"] for fault in faults), faults
        assert named == "surrogate" or any(fault["field"].startswith(field) for fault in faults), faults
    assert await count(client) == 0


async def test_text_is_kept_as_sent(client: httpx.AsyncClient, server: Running) -> None:
    text = NASTY[:200]
    decomposed = "e\u0301 \u00e9 \u1e9e \ufb01 \u202e\u200b\U0001f469\u200d\U0001f680"
    fields = ("source", "external_id", "title", "company", "location", "country", "employment_type", "seniority")
    for value in (text, decomposed, "  blanks  "):
        sent = JOB | dict.fromkeys(fields, value) | {"tags": [value, value], "description": value}
        async with reading(server.url) as reader:
            await reader.until("synced")
            made = (await client.post("/v1/jobs", json=sent)).json()
            told = (await reader.jobs(1))[0].data
        for name in (*fields, "tags", "description"):
            assert made[name] == sent[name], name
            assert name == "description" or told[name] == sent[name], name


async def test_put_writes_one_posting_under_its_own_name(client: httpx.AsyncClient) -> None:
    made = await client.put("/v1/jobs/board/a%2Fb%20c%3F", json=JOB)
    assert made.status_code == 201
    assert (made.json()["source"], made.json()["external_id"]) == ("board", "a/b c?")
    again = await client.put("/v1/jobs/board/a%2Fb%20c%3F", json=JOB | {"title": "Chef"})
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["version"]) == (made.json()["id"], 2)
    same = await client.put("/v1/jobs/board/x", json=JOB | {"source": "board", "external_id": "x"})
    assert same.status_code == 201
    for name in ("source", "external_id"):
        faults = check_problem(await client.put("/v1/jobs/board/x", json=JOB | {name: "other"}), 422)
        assert [fault["field"] for fault in faults] == [name]
    for body in (b"[]", b"17", b"{"):
        check_problem(await client.put("/v1/jobs/board/x", content=body), 422)


async def test_close_is_idempotent_and_reaches_subscribers_once(client: httpx.AsyncClient, server: Running) -> None:
    made = (await client.post("/v1/jobs", json=job(1))).json()
    await until(lambda: server.service.hub.head == 1)
    async with reading(server.url, "?from=earliest") as reader:
        await reader.until("synced")
        closed, again = [await client.post(f"{made['href']}/close") for _ in range(2)]
        assert closed.status_code == again.status_code == 200
        assert closed.json() == again.json()
        assert closed.json()["closed_at"] and closed.json()["version"] == 2
        # A write that says nothing of it leaves it closed; null opens it again, a time closes it.
        assert (await client.post("/v1/jobs", json=job(1))).json() == closed.json()
        assert (await client.post("/v1/jobs", json=job(1, closed_at=None))).json()["closed_at"] is None
        shut = (await client.post("/v1/jobs", json=job(1, closed_at="2026-01-01T00:00:00Z"))).json()
        assert shut["closed_at"].startswith("2026-01-01T00:00:00")
        frames = await reader.jobs(3)
    assert [(frame.event, frame.data.get("reason")) for frame in frames] == [
        ("closed", "closed"), ("posted", None), ("closed", "closed"),
    ]  # fmt: skip
    for number in (made["id"] + 1, 2**63 - 1):
        check_problem(await client.post(f"/v1/jobs/{number}/close"), 404)
    for number in ("0", "-1", "x", str(2**63)):
        check_problem(await client.post(f"/v1/jobs/{number}/close"), 422)


async def test_going_through_all_pages_meets_every_posting_once_newest_first(
    client: httpx.AsyncClient, server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    await fill(server, database, 123)
    seen, after = [], ""
    while True:
        page = (await client.get(f"/v1/jobs?limit=10{after}")).json()
        seen += [posting["id"] for posting in page["jobs"]]
        assert len(page["jobs"]) == (10 if page["next"] else 3)
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
        await client.post("/v1/jobs", json=JOB)  # what is new lies before the first page
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 123
    exact = (await client.get("/v1/jobs?limit=135")).json()
    assert len(exact["jobs"]) == 135 and exact["next"] is None
    assert all(set(posting) == {*FIELDS, "href"} for posting in exact["jobs"])


async def test_a_list_is_read_back_to_its_beginning_by_time_too(
    client: httpx.AsyncClient, server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    await fill(server, database, 25)
    for sort in ("arrived", "posted"):
        first = (await client.get(f"/v1/jobs?limit=10&sort={sort}&count=true")).json()
        assert (first["previous"], first["about"]) == (None, 25)
        second = (await client.get("/v1/jobs", params={"limit": 10, "sort": sort, "after": first["next"]})).json()
        assert "about" not in second
        back = (await client.get("/v1/jobs", params={"limit": 10, "sort": sort, "before": second["previous"]})).json()
        assert (back["jobs"], back["previous"], back["next"]) == (first["jobs"], None, first["next"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=j1&before=j9", "before"), ("sort=posted&after=j1", "after"), ("after=p1.1", "after"), ("before=1", "before"),
        ("sort=posted&after=p9999999999999999999.1", "after"), ("sort=posted&after=p-9999999999999999999.1", "after"),
        ("sort=posted&before=p1.9999999999999999999", "before"), ("sort=size", "sort"), ("count=some", "count"),
    ],
)  # fmt: skip
async def test_marks_that_do_not_fit_the_list_are_refused(client: httpx.AsyncClient, query: str, field: str) -> None:
    assert check_problem(await client.get(f"/v1/jobs?{query}"), 422)[0]["field"] == field


@pytest.mark.parametrize("after", ["x", "j", "j-1", "1", "j99999999999999999999", "j9999999999999999999"])
async def test_an_after_that_is_no_next_is_refused(client: httpx.AsyncClient, after: str) -> None:
    assert check_problem(await client.get(f"/v1/jobs?after={after}"), 422)[0]["field"] == "after"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "open=maybe", "since=1h", "limt=5", "salary_min=1", "company=a%00", "q=%00b"]
)
async def test_a_list_refuses_what_it_does_not_know(client: httpx.AsyncClient, query: str) -> None:
    assert check_problem(await client.get(f"/v1/jobs?{query}"), 422)[0]["field"] in query


async def test_the_stream_goes_on_from_its_list_without_a_gap(client: httpx.AsyncClient, server: Running) -> None:
    filters = "company=Acme%20%26%20S%C3%B6hne&q=baker&event=posted&event=updated"
    ours = {"company": "Acme & Söhne"}
    await client.post("/v1/jobs", json=[job(n, **ours) for n in range(3)] + [job("other")])
    listed = (await client.get(f"/v1/jobs?{filters}")).json()
    await client.post("/v1/jobs", json=[job(n, **ours) for n in range(3, 6)] + [job("another")])
    known = {posting["id"]: posting["version"] for posting in listed["jobs"]}
    assert len(known) == 3
    path, _, query = listed["stream"]["url"].partition("?")
    assert path == "/v1/jobs/stream"
    assert query.endswith(f"last_event_id={listed['stream']['last_event_id']}")
    async with reading(server.url, f"?{query}") as reader:
        while len(known) < 6:
            (frame,) = await reader.jobs(1)
            assert frame.data["company"] == "Acme & Söhne"
            assert known.setdefault(frame.data["id"], 1) == frame.data["version"] == 1


async def test_a_list_and_its_stream_agree_while_others_write(client: httpx.AsyncClient, server: Running) -> None:
    # Lists are taken in the middle of a flood; each with its stream must come to what the last list says.
    async def write() -> None:
        for n in range(60):
            await client.post("/v1/jobs", json=[job(n), job(n // 2, title=f"Chef {n}")] if n else job(0))

    async def follow() -> dict[int, int]:
        listed = (await client.get("/v1/jobs?open=any&limit=500")).json()
        held = {posting["id"]: posting["version"] for posting in listed["jobs"]}
        async with reading(server.url, f"?last_event_id={listed['stream']['last_event_id']}") as reader:
            await writing
            last = (await client.get("/v1/jobs")).json()["stream"]["last_event_id"]
            await until(lambda: server.service.hub.head >= int(last.split(".")[1]))
            frames = await reader.until("synced")
            while max([frame.position for frame in frames if frame.id], default=0) < int(last.split(".")[1]):
                frames += await reader.jobs(1)
        for frame in frames:
            if frame.event in ("posted", "updated") and frame.data["version"] > held.get(frame.data["id"], 0):
                held[frame.data["id"]] = frame.data["version"]
        return held

    writing = asyncio.create_task(write())
    held = []
    followers = []
    while not writing.done():
        followers.append(asyncio.create_task(follow()))
        await client.get("/v1/jobs?limit=1")
        if len(followers) > 8:
            break
    held = await asyncio.gather(*followers)
    await until_quiet(server)
    final = {p["id"]: p["version"] for p in (await client.get("/v1/jobs?open=any&limit=500")).json()["jobs"]}
    assert held and all(one == final for one in held)


async def until_quiet(server: Running) -> None:
    """The log has everything that was committed."""
    await until(lambda: server.service.hub.behind == 0)


async def test_filters_mean_the_same_in_the_list(client: httpx.AsyncClient) -> None:
    await client.post(
        "/v1/jobs",
        json=[
            job("a", company="Müller", location="Berlin, Germany", country="Germany", workplace="remote", tags=["Go"],
                salary_max=6000, salary_period="month", currency="EUR", latitude=52.52, longitude=13.4),
            job("b", company="Acme", location="New Berlin", workplace="onsite", seniority="Senior", tags=["C#", "go"],
                salary_min=50000, currency="EUR"),
            job("c", company="Acme", location="Paris", employment_type="Full-Time", salary_max=90000, currency="USD",
                latitude=48.86, longitude=2.35),
        ],
    )  # fmt: skip
    for query, wanted in {
        "company=MULLER": "a", "company=acme": "bc", "company=acme&company=m%C3%BCller": "abc", "location=berlin": "ab",
        "location=berl": "", "country=germany&workplace=remote": "a", "workplace=remote&workplace=onsite": "ab",
        "tag=go": "ab", "tag=c%23": "b", "seniority=senior": "b", "employment_type=full-time": "c",
        "salary_min=60000&currency=eur": "a", "salary_min=50000&currency=EUR": "ab", "currency=USD": "c", "q=ac+bak": "bc",
        "q=berlin": "ab", "near=52.5,13.4&radius_km=10": "a", "near=52.5,13.4&radius_km=2000": "ac", "near=52.5,13.4": "a",
        "event=closed": "abc", "tag=rust": "",
    }.items():  # fmt: skip
        answer = (await client.get(f"/v1/jobs?{query}")).json()
        assert "".join(sorted(posting["external_id"] for posting in answer["jobs"])) == wanted, query


async def test_open_chooses_open_closed_or_both(client: httpx.AsyncClient) -> None:
    await client.post("/v1/jobs", json=[job("open"), job("shut", closed_at="2026-01-01T00:00:00Z")])
    for query, wanted in {
        "": ["open"],
        "?open=true": ["open"],
        "?open=false": ["shut"],
        "?open=any": ["shut", "open"],
    }.items():
        answer = (await client.get(f"/v1/jobs{query}")).json()
        assert [posting["external_id"] for posting in answer["jobs"]] == wanted


async def test_every_error_is_a_problem(client: httpx.AsyncClient) -> None:
    check_problem(await client.get("/v1/nothing"), 404)
    check_problem(await client.get("/v1/jobs/12345"), 404)
    wrong = await client.delete("/v1/jobs")
    check_problem(wrong, 405)
    assert "GET" in wrong.headers["allow"]
    check_problem(await client.post("/v1/jobs/stream"), 405)
    check_problem(await client.get("/v1/jobs/9223372036854775808"), 422)
    check_problem(await client.get("/v1/jobs?company=" + "x" * 201), 422)
    check_problem(await client.get("/v1/jobs?" + "&".join(f"tag={n}" for n in range(101))), 422)


async def test_a_database_that_goes_away_is_a_503_that_says_when_to_come_back() -> None:
    cluster = Cluster().create().start()
    try:
        async with (
            run_server(make_settings(cluster.dsn(), log_level="error")) as running,
            httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
        ):
            made = (await client.post("/v1/jobs", json=job(1))).json()
            await asyncio.to_thread(cluster.stop)
            for answer in (
                await client.get("/v1/jobs"),
                await client.get(made["href"]),
                await client.post("/v1/jobs", json=job(1)),
                await client.post("/v1/jobs", content=lines([job(2)]), headers=NDJSON),
                await client.put("/v1/jobs/test/1", json=JOB),
                await client.post(f"{made['href']}/close"),
            ):
                check_problem(answer, 503)
                assert int(answer.headers["retry-after"]) > 0
    finally:
        cluster.remove()


async def test_health_says_what_it_knows(
    client: httpx.AsyncClient, server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    assert (await client.get("/healthz")).json() == {"alive": True}
    await fill(server, database, 2)
    async with reading(server.url) as reader:
        await reader.until("synced")

        async def ready() -> dict[str, Any] | None:
            answer = await client.get("/readyz")
            return answer.json() if answer.status_code == 200 else None

        state = await until(ready)
    assert state["ready"] is True and state["draining"] is False and state["database"] == "ok"
    assert (state["streams"], state["position"], state["lag"]) == (1, 2, 0)


def examples(schema: Any) -> list[Any]:
    """Every example inside a part of the document."""
    if isinstance(schema, list):
        return [found for part in schema for found in examples(part)]
    if not isinstance(schema, dict):
        return []
    mine = list(schema["examples"]) if isinstance(schema.get("examples"), list) else []
    if "example" in schema:
        mine.append(schema["example"])
    return mine + [
        found for name, part in schema.items() if name not in ("example", "examples") for found in examples(part)
    ]


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [found for one in part for found in references(one)]
    if not isinstance(part, dict):
        return []
    mine = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return mine + [found for one in part.values() for found in references(one)]


async def test_the_openapi_document_is_whole(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"] == "feed"
    for reference in references(document):
        part: Any = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["responses"], (path, method)
            named = {part.strip("{}").split(":")[0] for part in path.split("/") if part.startswith("{")}
            assert named == {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}, path
            for status, response in operation["responses"].items():
                assert response["description"]
                if int(status) >= 400 and path.startswith("/v1"):
                    assert list(response["content"]) == ["application/problem+json"], (path, method, status)
    assert {"/v1/jobs", "/v1/jobs/stream", "/v1/jobs/{job_id}", "/healthz", "/readyz"} <= set(document["paths"])


async def test_the_documented_example_can_be_posted_in_every_way(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    writes = [
        (path, method, kind, media["itemSchema"] if "itemSchema" in media else media["schema"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        for kind, media in operation.get("requestBody", {}).get("content", {}).items()
        if path != "/v1/tickets"
    ]
    assert {(path, kind) for path, _, kind, _ in writes} == {
        ("/v1/jobs", "application/json"), ("/v1/jobs", "application/x-ndjson"),
        ("/v1/jobs/{source}/{external_id}", "application/json"),
    }  # fmt: skip
    for path, method, kind, schema in writes:
        found = [one for one in examples(schema) if isinstance(one, dict)]
        assert found, (path, kind)
        for example in found:
            address = path.format(source=example.get("source"), external_id=example.get("external_id"))
            answer = await client.request(
                method, address, content=orjson.dumps(example), headers={"content-type": kind}
            )
            assert answer.status_code in (200, 201), answer.text
            assert set(example) <= {*FIELDS, "description", "description_html"}


async def test_the_documented_parameters_are_the_ones_that_work(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for path in ("/v1/jobs", "/v1/jobs/stream"):
        parameters = document["paths"][path]["get"]["parameters"]
        names = {p["name"] for p in parameters if p["in"] == "query"}
        assert {"company", "country", "location", "workplace", "employment_type", "seniority", "tag", "salary_min",
                "currency", "q", "near", "radius_km", "event"} <= names  # fmt: skip
        assert all(p.get("description") or p["schema"] for p in parameters)
    stream = {p["name"] for p in document["paths"]["/v1/jobs/stream"]["get"]["parameters"]}
    assert {"last_event_id", "since", "from", "last-event-id"} <= {name.lower() for name in stream}
    listed = {p["name"] for p in document["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert {"open", "limit", "after", "before", "sort", "count"} <= listed


async def test_the_stream_documents_every_frame_it_sends(
    client: httpx.AsyncClient, server: Running, settings: Settings
) -> None:
    document = (await client.get("/openapi.json")).json()
    content = document["paths"]["/v1/jobs/stream"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
    frames = {
        kind["properties"]["event"]["const"]: kind
        for kind in content["text/event-stream"]["itemSchema"]["oneOf"]
        if "event" in kind["properties"]
    }
    assert set(frames) == {"posted", "updated", "closed", "synced", "heartbeat", "reset", "goodbye"}
    for block in content["text/event-stream"]["example"].strip().split("\n\n"):
        assert all(line.split(": ")[0] in ("id", "event", "data", "retry") for line in block.split("\n"))

    async with (
        run_server(settings.changed(heartbeat=0.1)) as running,
        reading(running.url, "?last_event_id=x") as reader,
    ):
        seen = await reader.until("synced")
        await client.post("/v1/jobs", json=job(1))
        await client.post("/v1/jobs", json=job(1, title="Chef"))
        await client.post("/v1/jobs", json=job(1, closed_at="2026-01-01T00:00:00Z"))
        seen += await reader.jobs(3)
        seen += await reader.until("heartbeat")
        running.stop.set()
        seen += await reader.rest()
    assert {frame.event for frame in seen if frame.event} == set(frames)
    for frame in seen:
        if frame.event is None:
            continue
        kind = frames[frame.event]
        assert set(kind["required"]) <= {name for name in ("id", "event", "data") if getattr(frame, name) is not None}
        documented = set(kind["properties"]["data"]["contentSchema"]["properties"])
        assert set(frame.data) == documented - {"backfill"}, frame.event  # tests/server/test_stream_backfill.py


async def test_the_stream_documents_what_a_client_reads(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
async def test_another_sites_page_may_not_write(server: Running, headers: dict[str, str]) -> None:
    body = b'{"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}'
    async with httpx.AsyncClient(base_url=server.url) as client:
        refused = await client.post("/v1/jobs", content=body, headers=headers)
        closing = await client.post("/v1/jobs/1/close", headers=headers)
        own = await client.post("/v1/jobs", content=body, headers={"origin": server.url})
    assert (refused.status_code, closing.status_code, own.status_code) == (403, 403, 201)
    assert refused.headers["content-type"] == "application/problem+json"


WILL_NOT_DO = (
    ("?next=j42", "next", "unknown parameter: pass the `next` of the page before as `after`"),
    ("?cursor=j42", "cursor", "unknown parameter: pass the `next` of the page before as `after`"),
    ("?after=42", "after", "takes the `next` of the page before, such as `j42`"),
    ("?after=j9999999999999999999", "after", "takes the `next` of the page before, such as `j42`"),
    ("?compnay=acme", "compnay", "unknown parameter; did you mean `company`?"),
    ("?zzz=1", "zzz", "unknown parameter"), ("?limit=many", "limit", "must be a whole number"),
    ("?limit=0", "limit", "must be at least 1"), ("?open=maybe", "open", "must be true, false or any"),
    ("/stream?after=1", "after", "unknown parameter: pass the id of the last event as `last_event_id`"),
    ("/stream?lastEventId=1", "lastEventId", "unknown parameter; did you mean `last_event_id`?"),
    ("/stream?from=beginning", "from", "must be earliest or now"),
    ("/zero", "job_id", "must be a whole number"),
)  # fmt: skip


async def test_a_parameter_that_will_not_do_is_refused_in_plain_words(client: httpx.AsyncClient) -> None:
    for query, field, says in WILL_NOT_DO:
        answer = await client.get(f"/v1/jobs{query}")
        assert check_problem(answer, 422) == [{"field": field, "message": says}], query
        assert answer.json()["detail"] == f"{field}: {says}"


async def test_the_document_says_which_parameter_takes_the_next_page(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert "`after`" in document["components"]["schemas"]["JobList"]["properties"]["next"]["description"]
    after = next(one for one in document["paths"]["/v1/jobs"]["get"]["parameters"] if one["name"] == "after")
    assert "`next`" in after["description"]
