"""The fetcher against a server that does everything wrong on purpose, over real sockets."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from feed.errors import ConfigurationError
from feed.ingest.adapter import FetchError, NotModified
from feed.ingest.addresses import Addresses
from feed.ingest.fetcher import REDIRECTS, Ask, Fetcher, opened
from feed.ingest.retry_after import retry_after
from feed.model.source_run import Validators
from feed.settings.settings import load_settings
from tests.ingest.fault_server import ALLOWED, FORBIDDEN, FaultServer, answer, fault_server, in_turn, raw
from tests.waiting import until

MB = 1024 * 1024
QUICK = {
    "ingest_allow_http": True, "ingest_allow_networks": f"{ALLOWED}/32", "ingest_gap": 0.001, "ingest_backoff": 0.001,
    "ingest_retries": 0,
}  # fmt: skip


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with fault_server() as made:
        yield made


def fetching(**more: Any) -> AbstractAsyncContextManager[Fetcher]:
    return opened(load_settings(**(QUICK | more)).ingest)


async def failure(fetcher: Fetcher, url: str, ask: Ask = Ask()) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetcher.get(url, ask)
    return caught.value


async def test_over_tls_with_the_named_authority_an_answer_comes_whole_and_says_who_asks(tmp_path: Path) -> None:
    async with fault_server(tmp_path) as server:
        server.answers["/board"] = answer(b'{"jobs": []}', etag='"1"', set_cookie="who=feed; Path=/")
        async with fetching(ingest_ca_file=str(server.certificate), ingest_contact="https://us.example/bot") as fetcher:
            got = await fetcher.get(server.url("/board", "localhost"), Ask(accept="application/json"))
            assert (got.body, got.content_type, got.headers["ETag"]) == (b'{"jobs": []}', "application/json", '"1"')
            assert server.asked[0].headers["user-agent"].startswith("feed/")
            assert server.asked[0].headers["user-agent"].endswith(" (+https://us.example/bot)")
            assert server.asked[0].headers["host"] == f"localhost:{server.port}"
            await fetcher.get(server.url("/board", "localhost"), Ask())
            assert "cookie" not in server.asked[1].headers
        async with fetching() as fetcher:  # which does not know that authority
            assert (await failure(fetcher, server.url("/board"))).kind == "network"
        async with fetching(ingest_allow_http=False) as fetcher:
            assert "https" in str(await failure(fetcher, f"http://localhost:{server.port}/board"))
        with pytest.raises(ConfigurationError, match="FEED_INGEST_CA_FILE"):
            async with fetching(ingest_ca_file=str(tmp_path / "none.pem")):
                pass


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, "not_found"), (410, "gone"), (403, "refused"), (500, "server"), (204, "server"), (304, "server")],
)
async def test_every_other_status_is_an_error_of_its_kind(server: FaultServer, status: int, kind: str) -> None:
    server.answers["/?key=secret"] = answer(b"", status=status)
    async with fetching() as fetcher:
        error = await failure(fetcher, server.url("/?key=secret"))
    assert (error.kind, error.status) == (kind, status)
    assert "secret" not in str(error)


async def test_a_conditional_get_says_what_it_knows_and_a_304_is_told(server: FaultServer) -> None:
    server.answers["/"] = answer(b"", status=304)
    known = Validators("", '"1"', "Sat, 21 Nov 2026 09:00:00 GMT", b"", "")
    async with fetching() as fetcher:
        with pytest.raises(NotModified):
            await fetcher.get(server.url("/"), Ask(validators=known))
    headers = server.asked[0].headers
    assert (headers["if-none-match"], headers["if-modified-since"]) == ('"1"', known.last_modified)


TRUNCATED = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}" * 100)[:-12],
    "not gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n{}",
}


@pytest.mark.parametrize("said", TRUNCATED.values(), ids=TRUNCATED)
async def test_an_answer_that_is_broken_off_is_an_error_and_tried_again(server: FaultServer, said: bytes) -> None:
    server.answers["/cut"] = raw(said)
    server.answers["/twice"] = in_turn(raw(said), answer(b"[]"))
    async with fetching() as fetcher:
        assert (await failure(fetcher, server.url("/cut"))).kind == "truncated"
    async with fetching(ingest_retries=1) as fetcher:
        assert (await fetcher.get(server.url("/twice"), Ask())).body == b"[]"


async def test_content_codings_are_undone(server: FaultServer) -> None:
    text = b"\xe4 in a charset that nobody knows"
    members = gzip.compress(text[:5]) + gzip.compress(text[5:])
    server.answers["/gzip"] = answer(members, content_encoding="gzip", content_type="text/plain; charset=x-nonsense")
    server.answers["/deflate"] = answer(zlib.compress(text), content_encoding="deflate")
    server.answers["/br"] = answer(text, content_encoding="br")
    async with fetching() as fetcher:
        got = await fetcher.get(server.url("/gzip"), Ask())
        assert (got.body, got.content_type) == (text, "text/plain; charset=x-nonsense")
        assert (await fetcher.get(server.url("/deflate"), Ask())).body == text
        assert (await failure(fetcher, server.url("/br"))).kind == "server"


async def test_what_is_too_large_is_cut_off_however_it_is_packed(server: FaultServer) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join(bomb.compress(b"\0" * MB) for _ in range(65)) + bomb.flush()
    assert len(packed) < MB // 8
    server.answers["/bomb"] = answer(packed, content_encoding="gzip")
    server.answers["/large"] = answer(b"x" * (65 * MB), content_length="")
    server.answers["/announced"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", pause=30)
    async with fetching() as fetcher:
        for path in ("/bomb", "/large", "/announced"):
            assert (await failure(fetcher, server.url(path))).kind == "too_large"
    async with fetching(ingest_max_bytes=1000) as fetcher:
        server.answers["/"] = answer(b"x" * 1000)
        assert len((await fetcher.get(server.url("/"), Ask())).body) == 1000
        assert server.count("/bomb") == 1  # it would not help to ask again


async def test_a_slow_drip_and_a_silence_are_cut_off(server: FaultServer) -> None:
    drip = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[b"x"] * 100_000]
    server.answers["/drip"] = raw(*drip, pause=0.01)
    server.answers["/silent"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"x", pause=30)
    async with fetching(ingest_timeout=0.3) as fetcher:
        assert (await failure(fetcher, server.url("/drip"))).kind == "timeout"
    async with fetching(ingest_read_timeout=0.1) as fetcher:
        assert (await failure(fetcher, server.url("/silent"))).kind == "timeout"


async def test_redirects_are_followed_so_far_and_never_to_a_private_address(server: FaultServer) -> None:
    server.answers["/a"] = answer(b"", status=301, location="b?x=1")
    server.answers["/b?x=1"] = answer(b"there")
    server.answers["/in"] = answer(b"", status=302, location=server.url("/b?x=1", FORBIDDEN))
    server.answers["/cloud"] = answer(b"", status=302, location="http://169.254.169.254/latest/meta-data")
    server.answers["/number"] = answer(b"", status=302, location=f"http://2130706434:{server.port}/b?x=1")
    server.answers["/file"] = answer(b"", status=302, location="file:///etc/passwd")
    server.answers["/round"] = answer(b"", status=307, location="/round")
    async with fetching() as fetcher:
        got = await fetcher.get(server.url("/a"), Ask())
        assert (got.body, got.url) == (b"there", server.url("/b?x=1"))
        for path in ("/in", "/cloud", "/number"):
            assert (await failure(fetcher, server.url(path))).kind == "private_address"
        assert (await failure(fetcher, server.url("/file"))).kind == "refused"
        assert (await failure(fetcher, server.url("/round"))).kind == "refused"
        assert (await failure(fetcher, server.url("/a").replace("//", "//user:pw@"))).kind == "refused"
        assert (await failure(fetcher, "https://\ufffd")).kind == "refused"
    assert server.count("/round") == REDIRECTS + 1
    assert server.count("/b?x=1") == 1
    async with fetching(ingest_allow_networks="") as fetcher:
        assert (await failure(fetcher, server.url("/a", "localhost"))).kind == "private_address"


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose second answer is a private address leads there neither at first nor at a redirect."""
    given = [ALLOWED, FORBIDDEN]

    def resolve(host: str, port: int) -> list[str]:
        assert host == "rebound.example"
        return [given.pop(0)]

    monkeypatch.setattr("feed.ingest.addresses._resolve", resolve)
    server.answers["/"] = answer(b"", status=302, location="/again")
    server.answers["/again"] = answer(b"secret")
    async with fetching() as fetcher:
        assert (await failure(fetcher, server.url("/", "rebound.example"))).kind == "private_address"
    assert [asked.path for asked in server.asked] == ["/"]
    assert server.asked[0].headers["host"] == f"rebound.example:{server.port}"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
     "2002:a00:1::", "ff02::1"],
)  # fmt: skip
def test_no_address_that_is_not_public_may_be_connected_to(address: str) -> None:
    assert not Addresses(()).may_connect(address)
    assert Addresses(()).may_connect("93.184.216.34")
    assert Addresses(()).may_connect("2606:4700::1111")


NOW = datetime.now(UTC).replace(microsecond=0)
AHEAD = NOW + timedelta(hours=5)
"""What a server believes whose clock is wrong."""


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": format_datetime(AHEAD + timedelta(minutes=2)), "date": format_datetime(AHEAD)}, 120),
        ({"retry-after": format_datetime(NOW - timedelta(hours=5)), "date": format_datetime(NOW)}, 0),
        ({"retry-after": "99999999999999999999"}, 7 * 86_400),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_both_forms_of_retry_after_are_read_by_the_servers_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


async def test_a_429_is_waited_for_where_that_is_short_and_handed_on_where_it_is_long(server: FaultServer) -> None:
    server.answers["/short"] = in_turn(answer(b"", status=429, retry_after="0"), answer(b"1"))
    dates = {"date": format_datetime(AHEAD), "retry_after": format_datetime(AHEAD + timedelta(seconds=1))}
    server.answers["/dated"] = in_turn(answer(b"", status=503, **dates), answer(b"1"))
    server.answers["/long"] = answer(b"", status=429, retry_after="600")
    server.answers["/unsaid"] = answer(b"", status=429)
    async with fetching(ingest_retries=2) as fetcher:
        assert (await fetcher.get(server.url("/short"), Ask())).body == b"1"
        assert (await fetcher.get(server.url("/dated"), Ask())).body == b"1"
        error = await failure(fetcher, server.url("/long"))
        assert (error.kind, error.status, error.retry_after) == ("rate_limited", 429, 600)
        assert (await failure(fetcher, server.url("/unsaid"))).retry_after is None
    assert [server.count(path) for path in ("/short", "/dated", "/long", "/unsaid")] == [2, 2, 1, 1]


async def test_a_server_error_is_tried_again_so_often_and_a_404_is_not(server: FaultServer) -> None:
    server.answers["/"] = answer(b"", status=500)
    async with fetching(ingest_retries=2) as fetcher:
        assert (await failure(fetcher, server.url("/"))).kind == "server"
        assert (await failure(fetcher, server.url("/none"))).kind == "not_found"
        with socket.create_server((ALLOWED, 0)) as taken:
            port = taken.getsockname()[1]
        assert (await failure(fetcher, f"http://{ALLOWED}:{port}/")).kind == "network"
    assert (server.count("/"), server.count("/none")) == (3, 1)


async def test_a_host_is_asked_one_request_at_a_time_with_a_gap_and_others_meanwhile(server: FaultServer) -> None:
    gate = asyncio.Event()

    async def wait(writer: asyncio.StreamWriter, _: Any) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server.answers |= {"/slow": wait, "/quick": answer()}
    async with fetching(ingest_gap=0.2, ingest_concurrency=2) as fetcher, asyncio.TaskGroup() as tasks:
        held = tasks.create_task(fetcher.get(server.url("/slow"), Ask()))
        same = [tasks.create_task(fetcher.get(server.url("/quick"), Ask())) for _ in range(3)]
        await until(lambda: server.open)
        await fetcher.get(server.url("/quick", "localhost"), Ask())  # another host: it goes past those that wait
        assert not held.done()
        assert not any(task.done() for task in same)
        gate.set()
    assert server.most_open == 2
    times = [asked.at for asked in server.asked if asked.headers["host"].startswith(ALLOWED)]
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(times))


async def test_pages_are_fetched_as_robots_txt_says_and_it_is_remembered(server: FaultServer) -> None:
    rules = b"User-agent: feed\nDisallow: /private\n\nUser-agent: *\nDisallow: /\n"
    server.answers |= {"/robots.txt": answer(rules), "/jobs": answer(b"<p>"), "/private": answer(), "/list": answer()}
    server.answers["/hop"] = answer(b"", status=302, location="/private")
    page = Ask(accept="text/html")
    async with fetching() as fetcher:
        for _ in range(2):
            assert (await fetcher.get(server.url("/jobs"), page)).body == b"<p>"
            assert (await failure(fetcher, server.url("/private"), page)).kind == "robots"
            assert (await failure(fetcher, server.url("/hop"), page)).kind == "robots"
        await fetcher.get(server.url("/private"), Ask())  # an API is no page
    assert server.count("/robots.txt") == 1
    async with fetching() as fetcher:
        server.answers["/robots.txt"] = answer(b"", status=500)
        assert (await failure(fetcher, server.url("/jobs"), page)).kind == "robots"
        server.answers["/robots.txt"] = answer(b"", status=404)
        assert (await fetcher.get(server.url("/jobs"), page)).body == b"<p>"
    async with fetching() as fetcher:
        server.answers["/robots.txt"] = answer(b"User-agent: *\nCrawl-delay: 0.3\n")
        for _ in range(2):
            await fetcher.get(server.url("/jobs"), page)
    first, second = server.asked[-2:]
    assert second.at - first.at >= 0.29
