"""Header fields as both protocols write them, and the `Date` that each response has."""

import time
from email.utils import formatdate

Headers = list[tuple[bytes, bytes]]
"""Names, in lower case, and values."""


class Dates:
    """The `Date` header, which is written once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def now(self) -> bytes:
        """Return the time now as an HTTP date (RFC 9110, 5.6.7)."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True).encode()
        return self._text


dates = Dates()
"""The clock of this process."""
