"""How much is tried: a bounded number of examples in the suite, the same ones each time; more with FEED_TORTURE_EXAMPLES."""

import os
from itertools import pairwise

from hypothesis import HealthCheck, settings

# Taken out: the services of other tests would refuse a setting that they do not know.
MORE = os.environ.pop("FEED_TORTURE_EXAMPLES", None)


def tries(count: int) -> settings:
    """Settings for a property that is tried `count` times in the suite."""
    return settings(
        max_examples=int(MORE or count), derandomize=MORE is None, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )  # fmt: skip


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces, none of them empty."""
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[first:last] for first, last in pairwise(edges)]
