"""Groups: one per filter, and an index that never misses one that matches."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from feed.fanout.encoded_event import EncodedEvent
from feed.fanout.group import Groups
from feed.fanout.subscriber import Subscriber
from feed.model.event import Kind
from feed.model.filter import EVERYTHING, Filter
from tests.unit.events import EPOCH, encoded, event
from tests.unit.wires import FakeWire


def subscriber() -> Subscriber:
    return Subscriber(asyncio.Event(), FakeWire())


def test_equal_filters_share_a_group() -> None:
    groups = Groups()
    one = groups.join(Filter(company=("acme",)), subscriber())
    assert groups.join(Filter(company=("acme",)), subscriber()) is one
    assert groups.join(Filter(company=("other",)), subscriber()) is not one
    assert len(groups) == 2
    assert len(one.members) == 2


def test_the_last_to_leave_takes_the_group_along_and_its_place_in_the_index() -> None:
    groups = Groups()
    wanted = [
        EVERYTHING,
        Filter(tag=("go", "c#")),
        Filter(tag=("go",), company=("acme",)),
        Filter(location=(" berlin ",)),
    ]
    members = [(one, subscriber()) for one in wanted for _ in range(2)]
    for one, member in members:
        groups.join(one, member)
    assert len(groups) == 4
    for one, member in members:
        groups.leave(one, member)
        groups.leave(one, member)  # twice does no harm
    assert len(groups) == 0
    assert not list(groups)
    assert not groups._by_value
    assert not groups._unindexed
    assert groups.candidates(encoded([1], tags=["go"])) == {}


def test_an_event_is_offered_only_to_groups_that_may_match() -> None:
    groups = Groups()
    acme = groups.join(Filter(company=("acme",)), subscriber())
    go = groups.join(Filter(tag=("go", "rust")), subscriber())
    everything = groups.join(EVERYTHING, subscriber())
    groups.join(Filter(company=("nobody",)), subscriber())
    batch = [
        *encoded([1], company="ACME"),
        *encoded([2], company="Other", tags=["Go", "Rust"]),
        *encoded([3], company="X"),
    ]
    found = {group: [one.position for one in some] for group, some in groups.candidates(batch).items()}
    assert found == {acme: [1], go: [2], everything: [1, 2, 3]}


def test_an_event_is_offered_to_the_group_it_left() -> None:
    groups = Groups()
    group = groups.join(Filter(company=("acme",)), subscriber())
    moved = EncodedEvent(EPOCH, event(1, Kind.UPDATED, company="Other", was={"company": "Acme"}))
    assert groups.candidates([moved]) == {group: [moved]}
    (frame,), _ = group.select([moved])
    assert b'"left_filter"' in frame


def test_select_gives_shared_bytes_in_order() -> None:
    groups = Groups()
    group = groups.join(Filter(company=("acme",)), subscriber())
    batch = [*encoded([1]), *encoded([2], company="Other"), *encoded([3])]
    frames, positions = group.select(batch)
    assert frames == [batch[0].frame, batch[2].frame]
    assert positions == [batch[0].position, batch[2].position]
    assert frames[0] is batch[0].frame


_names = st.sampled_from(["Acme", "ACME", "Müller", "Muller", "Other"])
_tags = st.lists(st.sampled_from(["Go", "go", "C#", "Rust"]), max_size=3)
_filters = st.builds(
    Filter,
    company=st.lists(st.sampled_from(["acme", "muller", "other"]), max_size=2, unique=True).map(tuple),
    tag=st.lists(st.sampled_from(["go", "c#", "rust"]), max_size=2, unique=True).map(tuple),
    workplace=st.sampled_from([(), ("remote",)]),
)
_job = st.fixed_dictionaries(
    {"company": _names, "tags": _tags, "workplace": st.sampled_from([None, "remote", "onsite"])}
)


@given(st.lists(_filters, max_size=8), st.lists(st.tuples(_job, st.none() | _job), max_size=5))
def test_the_index_finds_what_asking_everyone_would_find(filters: list[Filter], jobs: list[Any]) -> None:
    groups = Groups()
    for wanted in filters:
        groups.join(wanted, subscriber())
    batch = [EncodedEvent(EPOCH, event(n, Kind.UPDATED, was, **job)) for n, (job, was) in enumerate(jobs, 1)]
    candidates = groups.candidates(batch)
    for group in groups:
        assert group.select(candidates.get(group, ())) == group.select(batch)


def test_what_a_group_was_handed_is_charged_to_who_was_there() -> None:
    groups = Groups()
    early, late = subscriber(), subscriber()
    group = groups.join(EVERYTHING, early)
    group.totals.add(3, 300)
    groups.join(EVERYTHING, late)
    group.totals.add(2, 150)
    assert (early.events, early.size) == (5, 450)
    assert (late.events, late.size) == (2, 150)
    groups.leave(EVERYTHING, early)
    group.totals.add(1, 10)
    groups.leave(EVERYTHING, early)  # twice does no harm
    assert (early.events, early.size) == (5, 450)
    assert (late.events, late.size) == (3, 160)


def test_who_comes_back_is_charged_for_both_stays() -> None:
    groups = Groups()
    member, other = subscriber(), subscriber()
    groups.join(EVERYTHING, other).totals.add(7, 70)
    for _ in range(2):
        group = groups.join(EVERYTHING, member)
        group.totals.add(1, 10)
        groups.leave(EVERYTHING, member)
        group.totals.add(5, 50)
    assert (member.events, member.size) == (2, 20)
    groups.leave(EVERYTHING, other)
    groups.join(EVERYTHING, member).totals.add(1, 10)  # a group anew
    assert (member.events, member.size) == (3, 30)
