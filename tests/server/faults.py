"""Faults of HTTP/2 clients."""

import signal

TERM = signal.SIGTERM
