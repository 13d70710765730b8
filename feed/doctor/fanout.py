"""How a feed on this machine writes events to its subscribers."""

from feed.doctor.finding import Finding, fail, ok
from feed.errors import ConfigurationError
from feed.settings.settings import Settings
from feed.wire.native.fanout_writer import choose_writer

_MEANING = {
    "io_uring": "one call into C for all subscribers of a filter, by io_uring",
    "send": "one call into C for all subscribers of a filter, by a loop of send(2)",
    "python": "by one Python call for each subscriber, which takes about a third more processor time",
}


def examine_fanout(settings: Settings) -> Finding:
    """Say which way is taken and why; a way that was asked for and does not work is a failure."""
    try:
        chosen = choose_writer(settings.wire.fanout_writer)
    except ConfigurationError as error:
        return fail("fan-out", str(error), "Set FEED_FANOUT_WRITER=auto, which takes the best way that works.")
    return ok("fan-out", f"{chosen.way}: {_MEANING[chosen.way]}; {chosen.reason}")
