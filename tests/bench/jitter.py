"""What the machine itself costs: how late a process on some core wakes up, while others use that core.

`python -m tests.bench.jitter CORE` sleeps 2 ms at a time; for each line on its stdin it prints, as JSON, the milliseconds by
which it woke up late since the line before.
"""

import os
import select
import sys
import time

import orjson

_NAP = 0.002


def main() -> None:
    """The process."""
    os.sched_setaffinity(0, [int(sys.argv[1])])
    late: list[float] = []
    print("up", flush=True)
    while True:
        due = time.monotonic() + _NAP
        if select.select([sys.stdin], [], [], _NAP)[0]:
            if not sys.stdin.readline():
                return
            print(orjson.dumps(late).decode(), flush=True)
            late = []
        else:
            late.append(round((time.monotonic() - due) * 1000, 3))


if __name__ == "__main__":
    main()
