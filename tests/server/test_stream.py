"""The stream over real sockets: opening, live, start, filters, heartbeat, refusals, and what a frame can carry."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from feed.model.filter import Filter, Terms
from feed.settings.settings import Settings
from tests.conftest import Connect, Running, make_settings, run_server
from tests.reader import reading
from tests.server.postings import INSERT, NASTY, fill, replayed
from tests.waiting import until


@pytest.mark.parametrize("http2", [False, True])
async def test_a_committed_posting_arrives_live(server: Running, connect: Connect, http2: bool) -> None:
    writer = await connect()
    async with reading(server.url, http2=http2) as reader:
        opening = await reader.until("synced")
        assert opening[0].retry
        assert opening[1].position == 0
        assert opening[2].data == {"position": 0, "replayed": 0}
        await writer.execute(INSERT, "Baker")
        event = await reader.frame()
        assert event
        assert event.event == "posted"
        assert event.position == 1
        assert event.data["title"] == "Baker"
        assert event.data["href"] == f"/v1/jobs/{event.data['id']}"
        assert "description" not in event.data


@pytest.mark.parametrize("http2", [False, True])
async def test_the_response_is_an_event_stream_that_nobody_stores_or_buffers(server: Running, http2: bool) -> None:
    async with reading(server.url, http2=http2) as reader:
        headers = reader.response.headers
        assert reader.response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert "connection" not in headers


async def test_the_opening_pins_the_cursor_before_anything_happens(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    epoch = await fill(server, database, 3)
    async with reading(server.url) as reader:
        retry, pin = await reader.frame(), await reader.frame()
    assert retry and retry.retry and retry.id is None and retry.event is None
    assert pin and pin.id == f"{epoch}.3" and pin.event is None and pin.data is None


async def test_every_opening_has_a_retry_of_its_own_and_never_zero(settings: Settings) -> None:
    async with run_server(settings.changed(retry_min=0.0001, retry_max=9.0)) as running:
        seen = set()
        for _ in range(8):
            async with reading(running.url) as reader:
                first = await reader.frame()
                assert first and first.retry and 1 <= first.retry <= 9000
                seen.add(first.retry)
        assert len(seen) > 1


@pytest.mark.parametrize("http2", [False, True])
async def test_a_stream_resumes_after_the_id_that_was_sent(
    server: Running, database: "asyncpg.Connection[Any]", http2: bool
) -> None:
    epoch = await fill(server, database, 5)
    for sent in (f"{epoch}.2", "2"):
        for query, headers in (("", {"Last-Event-ID": sent}), (f"?last_event_id={sent}", {})):
            async with reading(server.url, query, headers=headers, http2=http2) as reader:
                assert await replayed(reader) == [3, 4, 5]


async def test_the_header_wins_over_the_parameter(server: Running, database: "asyncpg.Connection[Any]") -> None:
    # A browser that reconnects sends both: the address it was opened with, and the newest id in the header.
    epoch = await fill(server, database, 5)
    async with reading(server.url, "?last_event_id=1", headers={"Last-Event-ID": f"{epoch}.4"}) as reader:
        assert await replayed(reader) == [5]


async def test_a_cursor_wins_over_since_and_since_over_from(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    await fill(server, database, 3)
    async with reading(server.url, "?last_event_id=2&since=1h&from=earliest") as reader:
        assert await replayed(reader) == [3]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    async with reading(server.url, f"?since={later}&from=earliest") as reader:
        assert await replayed(reader) == []


async def test_from_earliest_replays_the_whole_log_and_from_now_nothing(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    await fill(server, database, 4)
    async with reading(server.url, "?from=earliest") as reader:
        assert await replayed(reader) == [1, 2, 3, 4]
    async with reading(server.url, "?from=now") as reader:
        assert await replayed(reader) == []


async def test_since_replays_what_was_sequenced_from_that_instant_on(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    await fill(server, database, 2)
    await fill(server, database, 2)
    instant: datetime = await database.fetchval("SELECT at FROM log WHERE position = 3")
    assert instant > await database.fetchval("SELECT at FROM log WHERE position = 2")
    zone = instant.astimezone(tz=None).isoformat()
    for text in (
        instant.isoformat().replace("+00:00", "Z"),
        quote(instant.isoformat()),
        instant.isoformat(),
        quote(zone),
    ):
        async with reading(server.url, f"?since={text}") as reader:
            assert await replayed(reader) == [3, 4], text
    for text in ("15m", "2h", "3d", "900s"):
        async with reading(server.url, f"?since={text}") as reader:
            assert await replayed(reader) == [1, 2, 3, 4], text


SENSELESS = (
    ("?since=yesterday", "since"), ("?since=2026-11-21T09:30:00", "since"), ("?since=5y", "since"),
    ("?compny=acme", "compny"), ("?workplace=moon", "workplace"), ("?from=middle", "from"),
    ("?salary_min=5", "salary_min"), ("?near=1", "near"), ("?radius_km=3", "radius_km"), ("?event=heartbeat", "event"),
    ("?q=..", "q"), ("?company=", "company"), ("?limit=5", "limit"),
)  # fmt: skip


async def test_a_parameter_that_makes_no_sense_is_a_problem_that_names_it(server: Running) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for query, field in SENSELESS:
            response = await client.get(f"{server.url}/v1/jobs/stream{query}")
            assert response.status_code == 422, query
            assert response.headers["content-type"] == "application/problem+json"
            problem = response.json()
            assert problem["status"] == 422
            assert field in [error["field"] for error in problem["errors"]], query


async def test_head_on_the_stream_ends(server: Running) -> None:
    for http2 in (False, True):
        async with httpx.AsyncClient(http1=not http2, http2=http2, trust_env=False, timeout=10) as client:
            response = await client.head(f"{server.url}/v1/jobs/stream")
            assert response.content == b""
            assert response.status_code in (200, 405)
            assert (await client.get(f"{server.url}/healthz")).status_code == 200
    assert len(server.service.streams) == 0


async def test_any_origin_may_read_the_stream(server: Running) -> None:
    async with reading(server.url, headers={"Origin": "https://board.example"}) as reader:
        assert reader.response.headers["access-control-allow-origin"] == "*"
    async with httpx.AsyncClient(trust_env=False) as client:
        preflight = await client.options(
            f"{server.url}/v1/jobs/stream",
            headers={
                "Origin": "https://board.example", "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "Last-Event-ID",
            },
        )  # fmt: skip
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "last-event-id" in preflight.headers["access-control-allow-headers"].lower()


async def test_only_the_origins_that_are_set_may_read(settings: Settings) -> None:
    async with run_server(settings.changed(cors_origins=("https://ours.example",))) as running:
        async with reading(running.url, headers={"Origin": "https://ours.example"}) as reader:
            assert reader.response.headers["access-control-allow-origin"] == "https://ours.example"
        async with reading(running.url, headers={"Origin": "https://board.example"}) as reader:
            assert "access-control-allow-origin" not in reader.response.headers


async def test_a_filter_lets_only_its_events_pass_in_replay_and_live(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    insert = "INSERT INTO job (title, company, url, location) VALUES ($1, 'Acme', 'https://acme.example', $2)"
    for title, place in (("a", "Berlin, Germany"), ("b", "Paris"), ("c", "Greater Berlin"), ("d", "Berlingen")):
        await database.execute(insert, title, place)
    await until(lambda: server.service.hub.head == 4)
    async with reading(server.url, "?location=BERLIN&from=earliest") as reader:
        assert await replayed(reader) == [1, 3]
        await database.execute(insert, "e", "Paris")
        await database.execute(insert, "f", "berlin")
        assert [frame.data["title"] for frame in await reader.jobs(1)] == ["f"]


@pytest.mark.parametrize("live", [False, True])
async def test_a_posting_that_leaves_the_filter_is_closed_for_it(
    server: Running, database: "asyncpg.Connection[Any]", live: bool
) -> None:
    await database.execute(
        "INSERT INTO job (title, company, url, location) VALUES ('a', 'Acme', 'https://a.example', 'Berlin')"
    )
    move = "UPDATE job SET location = 'Paris'"
    if not live:
        await database.execute(move)
    await until(lambda: server.service.hub.head == (1 if live else 2))
    async with (
        reading(server.url, "?location=berlin&from=earliest") as here,
        reading(server.url, "?location=paris&from=earliest") as there,
    ):
        if live:
            await here.until("synced")
            await there.until("synced")
            await database.execute(move)
            gone = (await here.jobs(1))[0]
        else:
            gone = (await here.jobs(1))[0]  # the posting as it was told then, in an event of its own
            assert gone.event == "posted"
            gone = (await here.jobs(1))[0]
        come = (await there.jobs(1))[0]
    assert (gone.event, gone.data["reason"], gone.position) == ("closed", "left_filter", 2)
    assert (come.event, come.data["location"], come.position) == ("updated", "Paris", 2)
    assert gone.data["version"] == come.data["version"] == 2


async def test_event_chooses_kinds(server: Running, database: "asyncpg.Connection[Any]") -> None:
    async with reading(server.url, "?event=closed&event=updated") as some, reading(server.url) as all_of_them:
        await some.until("synced")
        await all_of_them.until("synced")
        await database.execute(INSERT, "a")
        await database.execute("UPDATE job SET title = 'b'")
        await database.execute("UPDATE job SET closed_at = now()")
        await database.execute("UPDATE job SET closed_at = NULL")
        await database.execute("DELETE FROM job")
        kinds = [(frame.event, frame.data.get("reason")) for frame in await all_of_them.jobs(5)]
        assert kinds == [
            ("posted", None),
            ("updated", None),
            ("closed", "closed"),
            ("posted", None),
            ("closed", "deleted"),
        ]
        assert [frame.position for frame in await some.jobs(3)] == [2, 3, 5]


async def test_silence_is_broken_by_heartbeats_that_move_a_narrow_filters_cursor(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(settings.changed(heartbeat=0.1)) as running:
        async with reading(running.url, "?company=nobody") as reader:
            await reader.until("synced")
            epoch = await fill(running, database, 7)
            while (beat := (await reader.until("heartbeat"))[-1]).position < 7:
                pass
        assert beat.id == f"{epoch}.7"
        assert beat.data["position"] == 7
        assert datetime.fromisoformat(beat.data["at"]).tzinfo is not None
        async with reading(running.url, "?company=nobody", headers={"Last-Event-ID": beat.id}) as reader:
            opening = await reader.until("synced")
            assert opening[1].position == 7
            assert opening[-1].data == {"position": 7, "replayed": 0}


async def test_a_replay_in_which_nothing_matches_moves_the_cursor_all_the_same(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(settings.changed(ring_events=1, history_page=2)) as running:
        epoch = await fill(running, database, 30)
        async with reading(running.url, "?company=nobody&from=earliest") as reader:
            opening = await reader.until("synced")
            assert [frame.event for frame in opening[2:-1]] == [None] * len(opening[2:-1])
            assert len(opening) > 5
            assert reader.last_id in (f"{epoch}.29", f"{epoch}.30")


async def test_nothing_in_any_field_breaks_a_frame(server: Running, database: "asyncpg.Connection[Any]") -> None:
    fields = ("source", "external_id", "title", "company", "url", "location", "country", "employment_type", "seniority")
    async with reading(server.url) as reader:
        await reader.until("synced")
        await database.execute(
            f"INSERT INTO job ({', '.join(fields)}, tags, description) VALUES "
            f"({', '.join(f'${n}' for n in range(1, len(fields) + 1))}, ARRAY[$1, $1], $1)",
            *[NASTY[:200]] * len(fields),
        )
        await database.execute(INSERT, "after")
        raw = await reader.raw(2)
    # By anybody's reckoning of what ends a line: three lines of the event, a blank one, and again.
    for text in (raw.decode().splitlines(), raw.split(b"\n"), raw.splitlines()):
        assert [len(line) > 0 for line in text[:8]] == [True, True, True, False] * 2
    async with reading(server.url, "?from=earliest") as reader:
        nasty, after = await reader.jobs(2)
    assert all(nasty.data[field] == NASTY[:200] for field in fields)
    assert nasty.data["tags"] == [NASTY[:200]] * 2
    assert after.data["title"] == "after"


async def test_a_nasty_filter_does_not_break_the_frame_that_repeats_it(server: Running) -> None:
    async with reading(server.url, f"?company={quote(NASTY[:200])}&last_event_id=nonsense") as reader:
        reset = (await reader.until("reset"))[-1]
        assert reset.data["reason"] == "malformed"
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(server.url + reset.data["snapshot"])).json()["jobs"] == []


@pytest.mark.parametrize("http2", [False, True])
async def test_a_posting_of_a_mebibyte_arrives_whole_live_and_in_replay(
    server: Running, database: "asyncpg.Connection[Any]", http2: bool
) -> None:
    assert server.service.settings.streams.subscriber_buffer < 1024 * 1024
    async with reading(server.url, http2=http2) as reader:
        await reader.until("synced")
        await database.execute(
            "INSERT INTO job (title, company, url, tags) SELECT 'a', 'Acme', 'https://a.example', "
            "array_agg(repeat(chr(8364), 4000)) FROM generate_series(1, 100)"
        )
        await database.execute(INSERT, "b")
        live = await reader.jobs(2)
    async with reading(server.url, "?from=earliest", http2=http2) as reader:
        again = await reader.jobs(2)
    assert live == again
    assert live[0].data["tags"] == ["€" * 4000] * 100
    assert live[1].data["title"] == "b"


@pytest.mark.parametrize("http2", [False, True])
async def test_a_stream_too_many_is_told_to_come_back_with_200(settings: Settings, http2: bool) -> None:
    # Browsers never come back from a 429 or a 503 (HYPERCORN.md, Browsers).
    async with run_server(settings.changed(max_streams=1)) as running:
        async with reading(running.url) as first:
            await first.until("synced")
            async with reading(running.url, http2=http2) as second:
                only = await second.rest()
            assert [frame.event for frame in only] == [None, "goodbye"]  # what it misses meanwhile is replayed
            assert only[1].data["reason"] == "full"
            assert only[1].retry == only[1].data["retry_ms"] > 0
        await until(lambda: len(running.service.streams) == 0)
        async with reading(running.url) as third:
            await third.until("synced")


async def test_streams_whose_clients_leave_are_forgotten(server: Running, database: "asyncpg.Connection[Any]") -> None:
    for http2 in (False, True):
        for _ in range(3):
            async with reading(server.url, http2=http2) as reader:
                await reader.until("synced")
    await until(lambda: len(server.service.streams) == 0 and len(server.service.hub.groups) == 0)
    await fill(server, database, 1)


async def test_two_services_on_one_database_deliver_the_same_positions(settings: Settings, connect: Connect) -> None:
    writer = await connect()
    async with (
        run_server(settings) as one, run_server(settings) as other,
        reading(one.url) as here, reading(other.url, http2=True) as there,
    ):  # fmt: skip
        await here.until("synced")
        await there.until("synced")
        for n in range(20):
            await writer.execute(INSERT, f"Job {n}")
        await writer.execute("UPDATE job SET title = title || '!'")
        ours, theirs = await asyncio.gather(here.jobs(40), there.jobs(40))
        assert ours == theirs
        assert [frame.position for frame in ours] == list(range(1, 41))
        # What one gave, the other goes on from.
        async with reading(other.url, headers={"Last-Event-ID": ours[24].id or ""}) as moved:
            assert await replayed(moved) == list(range(26, 41))


async def test_a_service_without_a_sequencer_lives_on_that_of_another(
    settings: Settings, dsn: str, connect: Connect
) -> None:
    writer = await connect()
    async with run_server(make_settings(dsn, sequencer=False)) as follower, reading(follower.url) as reader:
        await reader.until("synced")
        await writer.execute(INSERT, "early")
        async with run_server(settings):
            assert [frame.data["title"] for frame in await reader.jobs(1)] == ["early"]


@pytest.mark.parametrize("http2", [False, True])
async def test_a_fault_in_one_filter_ends_its_streams_as_errors_and_no_other(
    server: Running, database: "asyncpg.Connection[Any]", monkeypatch: pytest.MonkeyPatch, http2: bool
) -> None:
    matches = Filter.matches

    def faulty(self: Filter, posting: Terms) -> bool:
        if self.q:
            raise RuntimeError("a fault in the filter")
        return matches(self, posting)

    monkeypatch.setattr(Filter, "matches", faulty)
    streams = server.service.streams
    async with reading(server.url, "?q=job", http2=http2) as looking, reading(server.url, http2=http2) as wide:
        await looking.until("synced")
        await wide.until("synced")
        await fill(server, database, 2)
        assert len(await wide.jobs(2)) == 2
        await until(lambda: streams.ended["error"] == 1)
        with pytest.raises(httpx.HTTPError):
            await looking.jobs(1)
        await fill(server, database, 1)
        assert len(await wide.jobs(1)) == 1
    await until(lambda: not len(streams))
    assert streams.ended == {"error": 1, "client": 1}
