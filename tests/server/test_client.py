"""The client against a real server that follows a script."""

import asyncio
import gc
import inspect
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from importlib import resources
from typing import Any

import orjson
import pytest

from feed.client import Backoff, FeedClient, Refused, StreamEvent, Unavailable, UnexpectedAnswer, Unusable, Written
from tests.conftest import Running
from tests.processes import ROOT
from tests.server.scripted import Answer, Script, counts, frame, posted, problem, running

START = frame(retry=2000) + frame(id="1.0")


class Clock:
    """Stands in for sleep: notes what it is asked for, and returns at once."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def client_at(url: str, clock: Clock | None = None, chance: float = 1.0, **options: Any) -> FeedClient:
    backoff = Backoff(random=lambda: chance)
    return FeedClient(url, backoff=backoff, sleep=(clock or Clock()).sleep, **options)


async def take(count: int, client: FeedClient, **options: Any) -> list[StreamEvent]:
    """Return the first `count` events that the client follows."""
    events: list[StreamEvent] = []
    async with client, aclosing(client.follow(**options)) as stream:
        async for event in stream:
            events.append(event)
            if len(events) == count:
                break
    return events


@pytest.mark.parametrize("http2", [False, True])
async def test_postings_come_in_order_with_id_kind_and_data(http2: bool) -> None:
    script = Script(Answer(START + posted(1) + posted(1, "updated") + posted(2, "closed", reason="expired")))
    async with running(script) as url:
        events = await take(3, client_at(url, http2=http2))
    assert [(event.id, event.kind) for event in events] == [("1.1", "posted"), ("1.1", "updated"), ("1.2", "closed")]
    assert events[2].data["reason"] == "expired"
    assert events[2].position == 2
    assert script.requests[0].http_version == ("2" if http2 else "1.1")


# Over HTTP/2 Hypercorn does not tell a client that an application broke; the watchdog's test covers that.
@pytest.mark.parametrize(("then", "http2"), [("end", False), ("end", True), ("break", False)])
async def test_a_stream_that_ends_is_resumed_after_the_last_id(then: Any, http2: bool) -> None:
    script = Script(Answer(START + posted(1) + posted(2), then=then), Answer(START + posted(3), then="silence"))
    async with running(script) as url:
        events = await take(3, client_at(url, http2=http2), since="2h", filters={"location": ["berlin", "paris"]})
    assert [event.position for event in events] == [1, 2, 3]
    first, second = script.requests
    assert first.query == {"location": ["berlin", "paris"], "since": ["2h"]}
    assert "last-event-id" not in first.headers
    assert second.query == {"location": ["berlin", "paris"]}
    assert second.headers["last-event-id"] == "1.2"


async def test_id_only_frames_heartbeats_and_resets_move_the_cursor() -> None:
    script = Script(
        Answer(frame(id="1.5")),
        Answer(frame("heartbeat", {"position": 9}, id="1.9")),
        Answer(frame("reset", {"reason": "pruned", "snapshot": "/v1/jobs?"}, id="2.40")),
        Answer(posted(1)),
    )
    async with running(script) as url:
        await take(2, client_at(url), last_event_id="1.4")
    assert [request.headers["last-event-id"] for request in script.requests] == ["1.4", "1.5", "1.9", "2.40"]


async def test_a_reset_is_yielded_among_the_postings() -> None:
    script = Script(Answer(frame("reset", {"reason": "pruned", "snapshot": "/v1/jobs?"}, id="1.7") + posted(8)))
    async with running(script) as url:
        reset, after = await take(2, client_at(url), last_event_id="1.1")
    assert (reset.kind, reset.id, reset.data) == ("reset", "1.7", {"reason": "pruned", "snapshot": "/v1/jobs?"})
    assert after.position == 8


async def test_control_events_come_on_request_only() -> None:
    body = (
        START
        + frame("synced", {"position": 0, "replayed": 0})
        + frame("heartbeat", {"position": 0}, id="1.0")
        + frame("goodbye", {"reason": "drain", "retry_ms": 900}, retry=900)
    )
    script = Script(Answer(body), Answer(posted(1)), Answer(body), Answer(posted(1)))
    async with running(script) as url:
        plain = await take(1, client_at(url))
        events = await take(8, client_at(url), control=True)
    assert [event.kind for event in plain] == ["posted"]
    assert [event.kind for event in events] == [
        *("connected", "cursor", "synced", "heartbeat", "goodbye", "reconnecting", "connected", "posted")
    ]
    assert events[0].data == {"url": url, "http_version": "HTTP/1.1"}
    assert events[5].data == {"reason": "the server said goodbye", "delay_ms": 900}


async def test_a_goodbye_is_waited_out_exactly_as_long_as_it_says() -> None:
    script = Script(
        Answer(START + frame("goodbye", {"reason": "drain", "retry_ms": 4123}, retry=4123)), Answer(posted(1))
    )
    clock = Clock()
    async with running(script) as url:
        await take(1, client_at(url, clock, chance=0.3))
    assert clock.slept == [4.123]


async def test_an_ended_stream_is_taken_up_after_full_jitter_on_retry() -> None:
    script = Script(*[Answer(START)] * 3, Answer(posted(1)))
    clock = Clock()
    async with running(script) as url:
        await take(1, client_at(url, clock, chance=0.25))
    assert clock.slept == [0.5, 0.5, 0.5]


async def test_a_retry_of_zero_does_not_make_a_storm() -> None:
    script = Script(Answer(frame(retry=0) + frame(id="1.1")), Answer(posted(2)))
    clock = Clock()
    async with running(script) as url:
        await take(1, client_at(url, clock))
    assert clock.slept == [0.1]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_what_may_pass_is_tried_again_and_retry_after_is_kept(status: int) -> None:
    script = Script(problem(status), problem(status, retry_after="17"), Answer(posted(1)))
    clock = Clock()
    async with running(script) as url:
        await take(1, client_at(url, clock))
    assert clock.slept == [3.0, 17.0]


async def test_without_a_server_the_waits_double_up_to_the_ceiling() -> None:
    async with running(Script()) as url:
        pass
    waits: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 6:
            raise Enough

    with pytest.raises(Enough):
        await take(1, FeedClient(url, backoff=Backoff(ceiling=30, random=lambda: 1.0), sleep=sleep))
    assert waits == [3, 6, 12, 24, 30, 30]


@pytest.mark.parametrize("http2", [False, True])
async def test_silence_is_taken_for_death_and_the_stream_resumed(http2: bool) -> None:
    script = Script(Answer(START + posted(1), then="silence"))
    kinds: list[str] = []
    async with running(script) as url, client_at(url, http2=http2, watchdog=0.2) as client:
        async with aclosing(client.follow(control=True)) as stream:
            async for event in stream:
                kinds.append(event.kind)
                if kinds.count("connected") == 2:
                    break
        await script.left.wait()
    assert kinds == ["connected", "cursor", "posted", "reconnecting", "connected"]
    assert script.requests[1].headers["last-event-id"] == "1.1"


async def test_half_an_event_at_the_end_is_dropped_and_comes_again() -> None:
    script = Script(Answer(posted(1) + posted(2)[:-3], then="break"), Answer(posted(2), then="silence"))
    async with running(script) as url:
        events = await take(2, client_at(url))
    assert [event.position for event in events] == [1, 2]
    assert script.requests[1].headers["last-event-id"] == "1.1"


async def test_separators_of_unicode_do_not_end_a_line() -> None:
    title = "a\u2028b\u2029c\u0085d\u000be\u001cf"
    data = orjson.dumps({"title": title}).replace(b"\\u000b", b"\\u000b")
    assert "\u2028".encode() in data
    async with running(Script(Answer(b"id: 1.1\nevent: posted\ndata: " + data + b"\r\n\r\n"))) as url:
        (event,) = await take(1, client_at(url))
    assert event.data["title"] == title


async def test_a_filter_the_server_does_not_know_is_an_error_that_names_it() -> None:
    script = Script(problem(422, {"field": "workplace", "message": "is none of onsite, hybrid, remote"}))
    async with running(script) as url:
        with pytest.raises(Refused, match="workplace: is none of onsite") as refused:
            await take(1, client_at(url), filters={"workplace": "office"})
    assert refused.value.status == 422
    assert refused.value.faults[0].field == "workplace"
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"<html>", content_type="text/html"),
        Answer(b"", status=204),
        Answer(b"event: posted\ndata: [1]\n\n"),
        Answer(b"event: posted\ndata: {\n\n"),
    ],
)
async def test_what_is_no_feed_is_an_error(answer: Answer) -> None:
    async with running(Script(answer)) as url:
        with pytest.raises(UnexpectedAnswer):
            await take(1, client_at(url))


@pytest.mark.parametrize("status", [404, 405, 410, 501])
async def test_an_answer_that_no_feed_gives_is_an_error_and_a_feeds_own_is_not(status: int) -> None:
    script = Script(Answer(b"<html>", status, "text/html"), problem(status))
    async with running(script) as url:
        with pytest.raises(UnexpectedAnswer, match="Is this the address of a feed"):
            await take(1, client_at(url))
        async with client_at(url) as client:
            with pytest.raises(Unavailable if status >= 500 else Refused):
                await client.jobs()


async def test_tls_to_a_plain_port_is_an_error_that_says_so() -> None:
    async with running(Script()) as url:
        with pytest.raises(UnexpectedAnswer, match=r"does not speak TLS\. .* write http://"):
            await take(1, client_at(url.replace("http:", "https:")))


async def test_what_does_not_speak_http_is_an_error_that_says_so() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnexpectedAnswer, match="does not speak HTTP"):
            await take(1, client_at(f"http://127.0.0.1:{port}"))


async def test_a_posting_is_closed_by_its_id() -> None:
    script = Script(Answer(b'{"id":7,"closed_at":"x"}', content_type="application/json"), problem(404))
    async with running(script) as url, client_at(url) as client:
        assert (await client.close(7))["id"] == 7
        with pytest.raises(Refused) as refused:
            await client.close(8)
    assert refused.value.status == 404
    assert [(r.method, r.path) for r in script.requests] == [("POST", "/v1/jobs/7/close"), ("POST", "/v1/jobs/8/close")]


async def test_leaving_the_loop_closes_the_connection() -> None:
    script = Script(Answer(START + posted(1), then="silence"))
    async with running(script) as url, client_at(url) as client:
        async for _ in client.follow():
            break
        await script.left.wait()


PROGRAM = """
import asyncio, sys
from feed.client import FeedClient

async def main():
    async with FeedClient(sys.argv[1], http2=sys.argv[2] == "True") as client:
        async for event in client.follow():
            print(event.kind, flush=True)
            {then}

asyncio.run(main())
"""


async def run_program(text: str, *arguments: str, interrupt: bool = False) -> tuple[int | None, str, str]:
    """Run a program until it ends, or until Ctrl-C once it has printed a line; its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, *arguments, cwd=ROOT, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        assert process.stdout
        first = await process.stdout.readline()
        if interrupt:
            process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        return process.returncode, (first + out).decode(), err.decode()
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("then", "last"),
    [
        ("break", None),
        ("return", None),
        ("raise ValueError('enough')", "ValueError: enough"),
        ("asyncio.current_task().cancel()", "asyncio.exceptions.CancelledError"),
        ("pass", "KeyboardInterrupt"),
    ],
)
async def test_a_loop_says_nothing_of_its_own_however_it_is_left(then: str, last: str | None, http2: bool) -> None:
    script = Script(Answer(START + posted(1) + posted(2), then="silence"))
    async with running(script) as url:
        _, out, err = await run_program(PROGRAM.format(then=then), url, str(http2), interrupt=then == "pass")
        if not http2:  # Hypercorn does not tell an application that an HTTP/2 connection is gone
            await script.left.wait()
    assert out.startswith("posted")
    assert err.count("Traceback") <= 2  # Ctrl-C: the loop's cancellation, and then the interrupt
    assert "asynchronous generator" not in err
    assert "never retrieved" not in err
    assert (err.splitlines() or [None])[-1] == last


async def test_an_answer_that_is_no_feed_leaves_nothing_behind_either() -> None:
    script = Script(Answer(START + posted(1) + b"event: posted\ndata: [1]\n\n" + posted(2), then="silence"))
    async with running(script) as url:
        _, out, err = await run_program(PROGRAM.format(then="pass"), url, "False")
    assert out == "posted\n"
    assert err.count("Traceback") == 1
    assert err.splitlines()[-1].startswith("feed.client.errors.UnexpectedAnswer")


async def test_an_event_that_was_not_waited_for_is_not_lost() -> None:
    script = Script(Answer(START, then="silence"))
    async with running(script) as url, client_at(url, watchdog=0.1) as client:
        async with aclosing(client.follow()) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await script.asked.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            script.add(Answer(posted(1) + posted(2), then="silence"))
            assert [(await anext(stream)).position, (await anext(stream)).position] == [1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("http2", [False, True])
async def test_nothing_is_left_to_close_when_closing_has_returned(http2: bool) -> None:
    script = Script(Answer(START + posted(1), then="silence"))
    async with running(script) as url, client_at(url, http2=http2) as client:
        async with aclosing(client.follow()) as stream:
            await anext(stream)
        left = [one for one in gc.get_objects() if inspect.isasyncgen(one) and "httpcore" in one.ag_code.co_filename]
        assert left == []


async def test_leaving_the_client_closes_the_streams_that_are_still_held() -> None:
    script = Script(Answer(START + posted(1), then="silence"))
    async with running(script) as url:
        async with client_at(url) as client:
            stream = client.follow()
            await anext(stream)
        await script.left.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


def test_type_checkers_are_told_that_the_package_has_types() -> None:
    assert resources.files("feed").joinpath("py.typed").is_file()


async def test_the_program_in_the_readme_runs_as_it_stands(server: Running) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert program.count("http://127.0.0.1:8000") == 1
    async with client_at(server.url) as client:
        job = {"title": "Baker", "company": "Acme", "url": "https://acme.example/42", "location": "Berlin, Germany"}
        await client.post(job)
    _, out, err = await run_program(program.replace("http://127.0.0.1:8000", server.url), interrupt=True)
    assert out == "posted Baker\n"
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "asynchronous generator" not in err


async def test_one_client_follows_several_streams_at_once() -> None:
    script = Script(*[Answer(START + posted(1), then="silence")] * 20)

    async def first(client: FeedClient) -> StreamEvent:
        async with aclosing(client.follow()) as stream:
            return await anext(stream)

    async with running(script) as url, client_at(url, http2=True) as client:
        events = await asyncio.gather(*[first(client) for _ in range(20)])
    assert [event.position for event in events] == [1] * 20


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host/?location=berlin", "http://a:b"]
)
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(Unusable):
        FeedClient(url)


async def test_an_id_that_no_header_can_carry_is_refused() -> None:
    async with FeedClient() as client:
        with pytest.raises(Unusable):
            await anext(client.follow(last_event_id="1.2\r\nX: y"))


async def test_one_posting_is_posted_as_json_and_returned() -> None:
    script = Script(Answer(b'{"id":7,"title":"t"}', 201, "application/json"))
    async with running(script) as url, client_at(url) as client:
        assert await client.post({"title": "t"}) == {"id": 7, "title": "t"}
    (request,) = script.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/jobs", b'{"title":"t"}')
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("batch", [[{"title": "a"}, {"title": "b"}], b'{"title":"a"}\n{"title":"b"}'])
async def test_a_batch_is_posted_as_ndjson_and_counted(batch: Any) -> None:
    script = Script(counts(created=1, unchanged=1))
    async with running(script) as url, client_at(url) as client:
        assert await client.post(batch) == Written(created=1, updated=0, unchanged=1)
    assert script.requests[0].body == b'{"title":"a"}\n{"title":"b"}'
    assert script.requests[0].headers["content-type"] == "application/x-ndjson"


async def test_a_refused_batch_names_items_and_fields() -> None:
    script = Script(problem(422, {"index": 1, "field": "title", "message": "is required"}))
    async with running(script) as url, client_at(url) as client:
        with pytest.raises(Refused) as refused:
            await client.post([{"title": "a"}, {}])
    assert [(fault.index, fault.field) for fault in refused.value.faults] == [(1, "title")]


def _post(client: FeedClient) -> Awaitable[object]:
    return client.post([{"title": "a"}])


def _jobs(client: FeedClient) -> Awaitable[object]:
    return client.jobs()


@pytest.mark.parametrize("call", [_post, _jobs])
async def test_a_call_says_whether_it_may_succeed_later(call: Callable[[FeedClient], Awaitable[object]]) -> None:
    script = Script(problem(503, retry_after="9"), problem(401), Answer(b"[]", content_type="application/json"))
    async with running(script) as url, client_at(url) as client:
        with pytest.raises(Unavailable) as unavailable:
            await call(client)
        assert unavailable.value.retry_after == 9
        with pytest.raises(Refused):
            await call(client)
        with pytest.raises(UnexpectedAnswer):
            await call(client)
    async with client_at(url) as client:
        with pytest.raises(Unavailable):
            await call(client)


async def test_a_page_of_postings_carries_the_cursor_to_follow_from() -> None:
    page = {"jobs": [{"id": 2}], "next": "n", "stream": {"last_event_id": "1.9", "url": "/v1/jobs/stream?"}}
    script = Script(Answer(orjson.dumps(page), content_type="application/json"))
    async with running(script) as url, client_at(url) as client:
        found = await client.jobs({"salary_min": 60000, "currency": "EUR"}, open=None, limit=10, after="m")
    assert (found.jobs, found.next, found.last_event_id) == ([{"id": 2}], "n", "1.9")
    wanted = {"salary_min": ["60000"], "currency": ["EUR"], "open": ["any"], "limit": ["10"], "after": ["m"]}
    assert script.requests[0].query == wanted


async def test_a_page_before_another_is_asked_for_by_its_mark_in_an_order_and_counted() -> None:
    page = {"jobs": [], "next": "n", "previous": "p", "about": 12, "stream": {"last_event_id": "1.9", "url": "/"}}
    script = Script(Answer(orjson.dumps(page), content_type="application/json"))
    async with running(script) as url, client_at(url) as client:
        found = await client.jobs(before="b", sort="posted", count=True)
    assert (found.previous, found.about) == ("p", 12)
    wanted = {"open": ["true"], "limit": ["50"], "before": ["b"], "sort": ["posted"], "count": ["true"]}
    assert script.requests[0].query == wanted


@pytest.mark.parametrize("http2", [False, True])
async def test_a_key_goes_with_every_request(http2: bool) -> None:
    script = Script(counts(created=1), Answer(b'{"ended":true}', content_type="application/json"), Answer(posted(1)))
    async with running(script) as url:
        client = client_at(url, key="feedkey_x", http2=http2)
        async with client_at(url, key="feedkey_x", http2=http2) as other:
            await other.post([{"title": "a"}])
            assert await other.kick("a/b-1") is True
        await take(1, client)
    assert [request.headers.get("authorization") for request in script.requests] == ["Bearer feedkey_x"] * 3
    assert [request.method for request in script.requests] == ["POST", "DELETE", "GET"]


async def test_a_redirect_takes_the_key_to_the_same_host_only() -> None:
    other = Script(Answer(posted(1)))
    async with running(other) as elsewhere:
        moved = f"{elsewhere}/v1/jobs/stream"
        script = Script(
            Answer(status=307, headers={"location": "/v1/jobs/stream?here=1"}),
            Answer(status=307, headers={"location": moved}),
        )
        async with running(script) as url:
            await take(1, client_at(url, key="feedkey_x"))
    assert [request.headers.get("authorization") for request in script.requests] == ["Bearer feedkey_x"] * 2
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX-Evil: 1", "schlüssel"])
async def test_what_can_be_no_key_is_refused_without_being_named(key: str) -> None:
    with pytest.raises(Unusable) as raised:
        FeedClient("http://127.0.0.1:1", key=key)
    assert not key or key not in str(raised.value)
