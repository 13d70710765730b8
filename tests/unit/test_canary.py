"""Canaries: no subscriber is sent one, whoever times them is shown each, and their age tells when they stop."""

from feed.fanout.canary import Canary
from feed.fanout.encoded_event import EncodedEvent
from feed.fanout.hub import Hub
from feed.model.event import Event, Kind
from feed.model.filter import EVERYTHING, Filter
from feed.model.posting import FIELDS
from feed.settings.settings import load_settings
from tests.unit.events import EPOCH, event
from tests.unit.wires import joined

FILTERS = [
    EVERYTHING,
    Filter(company=("acme",)),
    Filter(tag=("go",)),
    Filter(q=(" baker",)),
    Filter(location=(" berlin ",)),
    Filter(event=(Kind.POSTED,)),
    Filter(salary_min=1.0, currency=("EUR",)),
]


def canary(position: int, captured: float | None = None) -> Event:
    """One as the log gives it: its row holds no posting."""
    return Event(position, Kind.CANARY, dict.fromkeys(FIELDS), captured=captured)


def following(timed: Canary) -> Hub:
    """A hub that follows an empty log."""
    hub = Hub(load_settings().hub, timed)
    hub.restart_at(EPOCH, 0)
    hub.ready = True
    return hub


def test_no_filter_gets_a_frame_of_one() -> None:
    one = EncodedEvent(EPOCH, canary(1))
    assert [one.frame_for(wanted) for wanted in FILTERS] == [None] * len(FILTERS)
    assert one.frame == b""


async def test_subscribers_of_every_kind_get_what_is_around_it_and_the_head_moves() -> None:
    hub = following(Canary(lambda _: None))
    members = [joined(hub, wanted) for wanted in FILTERS]
    hub.publish([event(1), canary(2, 0.0), event(3)])
    hub.publish([canary(4, 0.0)])
    assert hub.head == 4
    everything = members[0].take()
    assert everything.count(b"\n\n") == 2
    assert b"canary" not in everything and b":7.2\n" not in everything
    assert all(member.live for member in members)


async def test_each_that_is_published_is_timed_from_its_row() -> None:
    now = [100.0]
    took: list[float] = []
    timed = Canary(took.append, lambda: now[0])
    hub = following(timed)
    assert timed.seconds is None
    hub.publish([event(1), canary(2, captured=99.5)])
    now[0] = 103.0
    hub.publish([canary(3, captured=102.75), event(4)])
    assert took == [0.5, 0.25]
    assert timed.seconds == 0.25


def test_its_age_counts_from_the_row_of_the_newest_and_before_the_first_from_the_beginning() -> None:
    now = [100.0]
    timed = Canary(lambda _: None, lambda: now[0])
    now[0] = 107.0
    assert timed.age == 7.0
    timed.note_arrival(canary(1, captured=105.0))
    assert timed.age == 2.0
    timed.note_arrival(canary(2, captured=104.0))  # an older one that comes late makes nothing younger, or older
    assert timed.age == 2.0
    timed.note_arrival(canary(3))  # of a log that does not say when
    assert timed.age == 2.0
