"""History: aligned pages, read once for all who wait, bounded, and honest about failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from feed.errors import DatabaseUnavailable
from feed.fanout.history import History, Page, Pruned
from feed.settings.settings import load_settings
from tests.unit.events import EPOCH, positions
from tests.unit.fake_log import FakeLog

LARGE = 10**9


@asynccontextmanager
async def history(log: FakeLog, *, cache: int = LARGE, reads: int = 4) -> AsyncIterator[History]:
    settings = load_settings(history_page=10, history_cache=cache, history_reads=reads).replay
    async with asyncio.timeout(60), History(log, settings) as made:
        yield made
        log.gate.set()


async def test_pages_are_aligned_and_end_at_the_head() -> None:
    log = FakeLog(head=25)
    async with history(log) as pages:
        for position, after, upto in ((0, 0, 10), (9, 0, 10), (10, 10, 20), (13, 10, 20), (20, 20, 25), (24, 20, 25)):
            page = await pages.page(position, EPOCH, 25, 0)
            assert (page.after, page.upto) == (after, upto)
            assert positions(page.beyond(position)) == list(range(position + 1, upto + 1))
    assert log.reads == [(0, 10), (10, 20), (20, 25)]


async def test_the_last_page_is_read_again_once_somebody_has_met_its_end_and_the_head_has_moved() -> None:
    log = FakeLog(head=23)
    async with history(log) as pages:
        assert (await pages.page(22, EPOCH, 23, 0)).upto == 23
        log.head = 27
        assert (await pages.page(22, EPOCH, 27, 0)).upto == 23  # as far as it goes
        assert positions((await pages.page(23, EPOCH, 27, 0)).beyond(23)) == [24, 25, 26, 27]
        assert (await pages.page(22, EPOCH, 25, 0)).upto == 27  # more than is asked for is as good
    assert log.reads == [(20, 23), (20, 27)]


async def test_all_who_want_a_page_share_one_read_and_one_encoding() -> None:
    log = FakeLog()
    log.gate.clear()
    async with history(log) as pages:
        waiting = [pages.page(position % 10, EPOCH, 100, 0) for position in range(50)]
        log.gate.set()
        found = await asyncio.gather(*waiting)
    assert log.reads == [(0, 10)]
    assert all(page is found[0] for page in found)


async def test_no_more_reads_than_allowed_go_on_at_once() -> None:
    log = FakeLog()
    log.gate.clear()
    async with history(log, reads=2) as pages:
        waiting = [pages.page(number * 10, EPOCH, 100, 0) for number in range(8)]
        while len(log.reads) < 2:
            await log.asked.wait()
        log.gate.set()
        await asyncio.gather(*waiting)
    assert len(log.reads) == 8
    assert log.most_under_way == 2


async def test_the_cache_is_bounded_in_bytes_and_keeps_what_was_used_last() -> None:
    log = FakeLog()
    async with history(log) as probe:
        size = max([(await probe.page(number * 10, EPOCH, 100, 0)).size for number in range(10)])
    log.reads.clear()
    async with history(log, cache=3 * size) as pages:
        for number in (0, 1, 2, 0, 3):
            await pages.page(number * 10, EPOCH, 100, 0)
        assert log.reads == [(0, 10), (10, 20), (20, 30), (30, 40)]
        await pages.page(0, EPOCH, 100, 0)
        assert len(log.reads) == 4
        await pages.page(10, EPOCH, 100, 0)
        assert log.reads[4:] == [(10, 20)]
        assert pages._bytes == sum(page.size for page in pages._cached.values()) <= 3 * size


async def test_a_page_larger_than_the_cache_is_kept_alone() -> None:
    log = FakeLog()
    async with history(log, cache=1) as pages:
        for number in (0, 1, 1, 2):
            await pages.page(number * 10, EPOCH, 100, 0)
        assert len(pages._cached) == 1
    assert log.reads == [(0, 10), (10, 20), (20, 30)]


async def test_a_page_whose_beginning_was_pruned_serves_those_who_are_beyond_it() -> None:
    log = FakeLog()
    log.floor = 14
    async with history(log) as pages:
        page = await pages.page(14, EPOCH, 100, 0)
        assert positions(page.beyond(14)) == [15, 16, 17, 18, 19, 20]
        with pytest.raises(Pruned):
            page.beyond(13)


async def test_a_page_that_is_gone_or_has_a_hole_is_pruned() -> None:
    log = FakeLog(head=100)
    log.floor = 50
    async with history(log) as pages:
        with pytest.raises(Pruned):
            await pages.page(0, EPOCH, 100, 0)
        log.head = 95  # shorter than was said
        with pytest.raises(Pruned):
            await pages.page(90, EPOCH, 100, 0)
        log.head = 100
        assert (await pages.page(90, EPOCH, 100, 0)).upto == 100  # a failure is not kept


async def test_a_failure_is_seen_by_all_who_wait_and_the_next_one_tries_again() -> None:
    log = FakeLog()
    log.gate.clear()
    log.fault = DatabaseUnavailable("away")
    async with history(log) as pages:
        waiting = [pages.page(0, EPOCH, 100, 0) for _ in range(5)]
        log.gate.set()
        seen = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, DatabaseUnavailable) for one in seen)
        log.fault = None
        assert (await pages.page(0, EPOCH, 100, 0)).upto == 10
    assert len(log.reads) == 2


async def test_a_fault_of_ours_is_seen_too_and_ends_nothing_else() -> None:
    log = FakeLog()
    log.fault = ZeroDivisionError()
    async with history(log) as pages:
        with pytest.raises(ZeroDivisionError):
            await pages.page(0, EPOCH, 100, 0)
        log.fault = None
        assert (await pages.page(10, EPOCH, 100, 0)).upto == 20


async def test_a_failure_that_nobody_waits_for_is_no_noise() -> None:
    log = FakeLog()
    log.fault = DatabaseUnavailable("away")
    async with history(log) as pages:
        pages.page(0, EPOCH, 100, 0)
        await log.asked.wait()


async def test_a_waiter_that_is_cancelled_does_not_cancel_the_others() -> None:
    log = FakeLog()
    log.gate.clear()

    async def wait(pages: History) -> Page:
        # As a stream waits: for a call, not for the future itself.
        loading, woken = pages.page(0, EPOCH, 100, 0), asyncio.Event()
        loading.add_done_callback(lambda _: woken.set())
        await woken.wait()
        return loading.result()

    async with history(log) as pages:
        leaving, staying = [asyncio.create_task(wait(pages)) for _ in range(2)]
        await log.asked.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        log.gate.set()
        assert (await staying).upto == 10
    assert len(log.reads) == 1


async def test_another_generation_of_the_log_voids_the_pages_and_what_is_on_its_way() -> None:
    log = FakeLog()
    async with history(log) as pages:
        old = await pages.page(0, EPOCH, 100, 0)
        log.gate.clear()
        loading = pages.page(10, EPOCH, 100, 0)
        new = pages.page(0, EPOCH + 1, 100, 1)
        assert loading.cancelled()
        log.gate.set()
        assert (await new) is not old
        assert (await new).events[0].epoch == EPOCH + 1
        assert (await pages.page(10, EPOCH + 1, 100, 1)).events[0].epoch == EPOCH + 1
    assert log.reads.count((10, 20)) >= 1


async def test_leaving_cancels_those_who_still_wait() -> None:
    log = FakeLog()
    log.gate.clear()
    async with history(log) as pages:
        loading = pages.page(0, EPOCH, 100, 0)
        await log.asked.wait()
    assert loading.cancelled()
    assert log.under_way == 0
