"""An unfiltered stream is proved whole by its ids, or found out."""

from collections.abc import Iterable

import pytest

from feed.client import BrokenContinuity, Continuity, StreamEvent


def check(events: Iterable[tuple[str, str]]) -> Continuity:
    continuity = Continuity()
    for kind, id in events:
        continuity.check(StreamEvent(id, kind, {"reason": "pruned"}))
    return continuity


@pytest.mark.parametrize(
    "events",
    [
        [("posted", "1.7"), ("updated", "1.8"), ("closed", "1.9")],
        [("cursor", "1.6"), ("posted", "1.7"), ("synced", "1.7"), ("heartbeat", "1.7"), ("posted", "1.8")],
        [("cursor", "1.6"), ("posted", "1.7"), ("reconnecting", "1.7"), ("cursor", "1.7"), ("posted", "1.8")],
        [("cursor", "1.6"), ("posted", "1.7"), ("posted", "2.8")],
        [("cursor", "2.6"), ("posted", "1.7"), ("posted", "2.8"), ("reconnecting", "2.8"), ("posted", "1.9")],
        [("connected", ""), ("heartbeat", "1.6"), ("posted", "1.7")],
    ],
)
def test_positions_that_follow_each_other_are_whole(events: list[tuple[str, str]]) -> None:
    assert "none missing" in str(check(events))


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([("posted", "1.7"), ("posted", "1.10")], "gap: 1.10 came after 1.7, 2 missing"),
        ([("cursor", "1.6"), ("posted", "1.8")], "gap: 1.8 came after 1.6, 1 missing"),
        ([("posted", "1.7"), ("posted", "1.7")], "duplicate: 1.7 came twice"),
        ([("posted", "1.7"), ("posted", "1.6")], "inversion: 1.6 came after 1.7"),
        ([("posted", "1.7"), ("heartbeat", "1.9")], "heartbeat at 1.9 after 1.7"),
        ([("posted", "1.7"), ("reset", "1.20")], "reset (pruned) after 1.7: events up to 1.20 may be missing"),
        ([("posted", "x")], "without a position"),
    ],
)
def test_what_is_not_whole_is_named(events: list[tuple[str, str]], fault: str) -> None:
    with pytest.raises(BrokenContinuity) as broken:
        check(events)
    assert fault in str(broken.value)
