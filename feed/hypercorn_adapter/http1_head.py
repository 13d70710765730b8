"""Heads of HTTP/1.1: what is refused of a request's besides what llhttp refuses, and how a response's is written.

A proxy in front of us may read the same octets as other fields or other requests, which is how requests are smuggled past
it. llhttp (through httptools, the one parser here) refuses folded lines, bare LF, white space before a colon, control
characters, and lengths that are there twice or contradict a transfer coding. What it lets pass is refused here (RFC 9112).
"""

from http import HTTPStatus

from feed.hypercorn_adapter.headers import Headers

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
"""By status: its line, with the reason phrase, without which some clients take every answer for a failure."""


class BadHead(ValueError):
    """A request's head that is refused; `status` is that of the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> None:
    """Check the head of a request that llhttp has read; raises BadHead.

    `headers` have their names in lower case and their values without white space around them.
    """
    if version not in ("1.1", "1.0"):
        raise BadHead("not a version of HTTP/1", 505)
    if not target.isascii() or method == b"CONNECT":
        raise BadHead("a target that is not one of ours")
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            if version == "1.0":
                raise BadHead("HTTP/1.0 has no transfer codings (RFC 9112, 6.1)")
            if value.lower() != b"chunked":
                raise BadHead("only `chunked` is decoded", 501)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise BadHead("exactly one Host is needed (RFC 9112, 3.2)")


def response_head(status: int, headers: Headers) -> bytes:
    """Return the head of a response: the status line, the fields and the empty line."""
    line = STATUS_LINES.get(status) or b"HTTP/1.1 %d Status %d\r\n" % (status, status)
    return b"".join((line, *[b"%b: %b\r\n" % field for field in headers], b"\r\n"))
