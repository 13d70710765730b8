"""The hub: what it hands to whom, who it leaves behind, and when it speaks into silence."""

import asyncio

import pytest

from feed.fanout import hub as hub_module
from feed.fanout import subscriber as subscriber_module
from feed.fanout.heartbeat import Heartbeat
from feed.fanout.hub import Hub
from feed.model.event import Kind
from feed.model.filter import EVERYTHING, Filter
from feed.settings.settings import Settings, load_settings
from feed.wire.chunk import PIECE
from tests.logs import logged_by
from tests.unit.events import EPOCH, event, positions
from tests.unit.wires import BrokenWire, FakeWire, joined
from tests.waiting import until


@pytest.fixture
def settings() -> Settings:
    return load_settings(heartbeat=10, ring_events=100)


@pytest.fixture
def hub(settings: Settings) -> Hub:
    """A hub that follows an empty log."""
    made = Hub(settings.hub)
    made.restart_at(EPOCH, 0)
    made.ready = True
    return made


async def test_a_batch_is_one_piece_for_each_subscriber_and_the_same_bytes_for_a_group(hub: Hub) -> None:
    one, other = joined(hub), joined(hub)
    hub.publish([event(1), event(2), event(3)])
    (chunk,) = one.wire.held
    assert chunk is other.wire.held[0]
    assert chunk.body.count(b"\n\n") == 3
    assert one.position == 3 and one.live and not one.wake.is_set()
    assert hub.head == 3
    assert (hub.counters.published, hub.counters.deliveries) == (3, 6)


async def test_a_subscriber_that_nothing_concerns_is_left_alone(hub: Hub) -> None:
    member = joined(hub, Filter(company=("nobody",)))
    hub.publish([event(1)])
    assert not member.wake.is_set()
    assert member.take() == b""
    assert member.live


async def test_who_left_is_given_nothing_and_keeps_what_it_was_given(hub: Hub) -> None:
    member = joined(hub)
    hub.publish([event(1)])
    hub.leave(EVERYTHING, member)
    hub.leave(EVERYTHING, member)
    hub.publish([event(2)])
    assert not member.live
    assert member.position == 1
    assert member.take().startswith(b"id: 7.1\n")
    assert len(hub.groups) == 0


async def test_a_subscriber_over_its_bound_leaves_with_its_position_and_the_others_go_on(hub: Hub) -> None:
    slow, quick = joined(hub, wire=FakeWire(1000)), joined(hub)
    for position in range(1, 6):
        hub.publish([event(position, title="x" * 200)])
        quick.take()
    assert hub.counters.overruns == 1
    assert not slow.live and slow.wake.is_set()
    assert slow.position == 1
    assert quick.live and quick.position == 5
    assert positions(hub.ring.after(slow.position, 10)) == [2, 3, 4, 5]
    assert slow.take().count(b"\n\n") == 1


async def test_silence_is_counted_from_the_last_piece_that_was_given(hub: Hub) -> None:
    now = asyncio.get_running_loop().time()
    narrow, wide = joined(hub, Filter(company=("nobody",))), joined(hub)
    hub.beat(now + 5)
    assert narrow.take() == wide.take() == b""
    hub.publish([event(1)])
    wide.take()
    wide.told_at = now + 8
    hub.beat(now + 11)
    assert narrow.take().startswith(b"id: 7.1\nevent: heartbeat\n")
    assert narrow.position == 1
    assert wide.take() == b""
    hub.beat(now + 18.5)
    assert narrow.take() == b""
    assert wide.take().startswith(b"id: 7.1\nevent: heartbeat\n")
    hub.beat(now + 21.5)
    assert b"heartbeat" in narrow.take()


async def test_a_new_generation_of_the_log_sends_everyone_back_and_empties_the_ring(hub: Hub) -> None:
    member = joined(hub)
    hub.publish([event(1)])
    woken = asyncio.Event()
    hub.await_change(woken)
    before = hub.generation
    hub.restart_at(EPOCH + 1, 40)
    assert hub.generation == before + 1
    assert not member.live and member.wake.is_set() and woken.is_set()
    assert (hub.head, hub.epoch, len(hub.ring)) == (40, EPOCH + 1, 0)
    hub.publish([event(41)])
    assert hub.ring.covers(40)
    assert not hub.ring.covers(39)


async def test_a_new_name_for_the_same_log_disturbs_nobody(hub: Hub) -> None:
    member = joined(hub)
    before = hub.generation
    hub.continue_as(EPOCH + 1)
    hub.publish([event(1)])
    assert member.live
    assert hub.generation == before
    assert member.take().startswith(b"id: 8.1\n")


async def test_who_waits_for_the_head_to_move_is_woken_once(hub: Hub) -> None:
    woken, gone = asyncio.Event(), asyncio.Event()
    hub.await_change(woken)
    hub.await_change(gone)
    hub.forget(gone)
    hub.publish([event(1)])
    assert woken.is_set() and not gone.is_set()
    woken.clear()
    hub.publish([event(2)])
    assert not woken.is_set()


def test_retry_is_jittered_within_its_bounds_and_never_zero() -> None:
    hub = Hub(load_settings(retry_min=1, retry_max=2, retry_busy=3).hub)
    calm, busy = {hub.retry_ms() for _ in range(100)}, {hub.retry_ms(busy=True) for _ in range(100)}
    assert len(calm) > 1 and min(calm) >= 1000 and max(calm) <= 2000
    assert len(busy) > 1 and min(busy) >= 2000 and max(busy) <= 3000
    assert Hub(load_settings(retry_min=1e-6, retry_max=1e-6).hub).retry_ms() == 1


async def test_an_idle_feed_beats_by_its_own_timer() -> None:
    hub = Hub(load_settings(heartbeat=0.05).hub)
    hub.restart_at(EPOCH, 3)
    hub.ready = True
    member = joined(hub)
    timer = asyncio.create_task(Heartbeat(hub).run())
    await until(lambda: member.wire.held)
    timer.cancel()
    assert member.take().startswith(b"id: 7.3\nevent: heartbeat\n")


async def test_a_wire_that_takes_no_more_leaves_the_live_set_where_it_stopped(hub: Hub) -> None:
    slow = joined(hub, wire=FakeWire(2 * PIECE))
    hub.publish([event(position, title="x" * 1000) for position in range(1, 201)])
    assert not slow.live and slow.wake.is_set()
    written = slow.wire.body
    assert 0 < slow.position < 200
    assert written.count(b"\n\n") == slow.position
    assert b"id: 7.%d\n" % slow.position in written
    assert all(chunk.size <= PIECE for chunk in slow.wire.held)


async def test_a_heartbeat_that_the_wire_does_not_take_ends_the_live_time(hub: Hub) -> None:
    member = joined(hub, wire=FakeWire(0))
    hub.beat(asyncio.get_running_loop().time() + 11)
    assert not member.live and member.wake.is_set() and member.position == 0


async def test_an_event_larger_than_a_piece_is_not_pushed(hub: Hub) -> None:
    member = joined(hub)
    hub.publish([event(1, title="x" * PIECE)])
    assert not member.live and member.position == 0 and not member.wire.held


async def test_accounts_and_counters_say_what_was_handed_over(hub: Hub) -> None:
    narrow, wide = joined(hub, Filter(company=("acme",))), joined(hub)
    hub.publish([event(1), event(2, company="Other")])
    late = joined(hub)
    hub.publish([event(3)])
    assert (narrow.events, wide.events, late.events) == (2, 3, 1)
    assert wide.size == len(wide.take())
    assert late.size == len(late.take())
    assert hub.counters.deliveries == 6
    assert hub.counters.bytes == narrow.size + wide.size + late.size


async def test_who_refuses_a_batch_is_not_charged_for_it(hub: Hub) -> None:
    slow, quick = joined(hub, wire=FakeWire(1000)), joined(hub)
    hub.publish([event(1, title="x" * 200)])
    hub.publish([event(2, title="x" * 200)])
    assert not slow.live
    assert (slow.events, slow.size) == (1, len(slow.take()))
    assert (quick.events, quick.size) == (2, len(quick.take()))
    assert hub.counters.deliveries == 3


async def test_who_refuses_in_the_middle_of_a_batch_is_charged_for_what_it_took(hub: Hub) -> None:
    slow, quick = joined(hub, wire=FakeWire(2 * PIECE)), joined(hub)
    hub.publish([event(position, title="x" * 1000) for position in range(1, 201)])
    assert not slow.live and 0 < slow.position < 200
    assert slow.events == slow.position
    assert slow.size == len(slow.take())
    assert (quick.events, quick.live) == (200, True)
    assert hub.counters.deliveries == 200 + slow.position
    assert hub.counters.bytes == quick.size + slow.size


async def test_heartbeats_are_bytes_and_no_events(hub: Hub) -> None:
    member = joined(hub)
    hub.beat(asyncio.get_running_loop().time() + 11)
    assert (member.events, member.size) == (0, len(member.take()))
    assert hub.counters.bytes == member.size


async def test_what_fills_the_ring_of_a_hub_that_starts_is_not_counted_as_news(settings: Settings) -> None:
    hub = Hub(settings.hub)
    hub.restart_at(EPOCH, 0)
    hub.publish([event(1), event(2)])
    hub.ready = True
    hub.publish([event(3)])
    assert hub.counters.published == 1


async def test_a_subscriber_that_raises_ends_alone_and_everybody_else_gets_the_batch(hub: Hub) -> None:
    one, other, wire = joined(hub), joined(hub), BrokenWire()
    broken = joined(hub, wire=wire)
    narrow = joined(hub, Filter(company=("acme",)))
    with logged_by(hub_module, subscriber_module) as logged:
        hub.publish([event(1)])
        hub.publish([event(2)])
    assert hub.head == one.position == other.position == narrow.position == 2
    assert len(one.wire.held) == len(other.wire.held) == 2
    assert narrow.take().count(b"\n\n") == 2
    assert broken.failed and not broken.live and broken.wake.is_set() and wire.writes == 1
    assert [entry["event"] for entry in logged] == ["a subscriber failed"]
    assert (broken.events, hub.counters.deliveries) == (0, 6)


async def test_a_heartbeat_that_raises_ends_its_subscriber_alone(hub: Hub) -> None:
    broken, other = joined(hub, wire=BrokenWire()), joined(hub)
    with logged_by(hub_module, subscriber_module) as logged:
        hub.beat(asyncio.get_running_loop().time() + 11)
    assert broken.failed and not broken.live
    assert len(other.wire.held) == 1
    assert [entry["event"] for entry in logged] == ["a subscriber failed"]


async def test_a_filter_that_raises_ends_its_group_alone_and_every_other_group_gets_the_batch(hub: Hub) -> None:
    looking = [joined(hub, Filter(q=(" baker",))) for _ in range(2)]
    wide, other = joined(hub), joined(hub)
    with logged_by(hub_module, subscriber_module) as logged:
        hub.publish([event(1, title=5), event(2)])  # no version of feed writes such a title
        hub.publish([event(3)])
    assert hub.head == wide.position == other.position == 3
    assert wide.take().count(b"\n\n") == 3 and len(other.wire.held) == 2
    assert all(member.failed and not member.live and member.wake.is_set() for member in looking)
    assert [entry["event"] for entry in logged] == ["a filter failed"]


async def test_an_event_that_cannot_be_indexed_reaches_those_whose_filters_do_not_mind(hub: Hub) -> None:
    remote, tagged, wide = joined(hub, Filter(company=("acme",))), joined(hub, Filter(tag=("go",))), joined(hub)
    with logged_by(hub_module, subscriber_module) as logged:
        hub.publish([event(1, tags=5)])
    assert hub.head == wide.position == 1
    assert wide.take().count(b"\n\n") == 1
    assert remote.failed and tagged.failed
    assert [entry["event"] for entry in logged] == ["events could not be indexed", "a filter failed", "a filter failed"]


async def test_an_event_of_an_unknown_kind_takes_its_position_and_is_sent_to_nobody(hub: Hub) -> None:
    wide, narrow = joined(hub), joined(hub, Filter(company=("acme",)))
    hub.publish([event(1), event(2, Kind("merged")), event(3)])
    assert hub.head == wide.position == 3
    assert wide.take().count(b"\n\n") == narrow.take().count(b"\n\n") == 2
    assert [one.kind for one in hub.ring.after(1, 1)] == [Kind.UNKNOWN]
