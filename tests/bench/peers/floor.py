"""The floor: a loop of write(2), which is all that a server of HTTP/1.1 cannot do without. Nothing is checked or bounded.

`python -m tests.bench.peers.floor PORT`: `GET /stream` joins, the body of `POST /publish` is written to all who joined.
"""

import os
import re
import select
import socket
import sys

import orjson

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def chunk(body: bytes) -> bytes:
    """A chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def publish(body: bytes, subscribers: list[int]) -> None:
    """One write(2) a subscriber."""
    event = orjson.loads(body)
    frame = chunk(f"id: {event['id']}\nevent: {event['event']}\ndata: {event['data']}\n\n".encode())
    write = os.write
    for subscriber in subscribers:
        write(subscriber, frame)


def main(port: int) -> None:
    """Serve for ever."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_: dict[int, socket.socket] = {}
    pending: dict[int, bytes] = {}
    subscribers: list[int] = []
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_[accepted.fileno()] = accepted
                pending[accepted.fileno()] = b""
                poll.register(accepted, select.EPOLLIN)
                continue
            try:
                read = os.read(number, 65536)
            except ConnectionError:
                read = b""
            if not read:
                open_.pop(number).close()
                if number in subscribers:
                    subscribers.remove(number)
                continue
            pending[number] += read
            head, found, body = pending[number].partition(b"\r\n\r\n")
            if not found:
                continue
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if length is None:
                os.write(number, HEAD + chunk(b": hi\n\n"))
                subscribers.append(number)
                pending[number] = b""
            elif len(body) >= int(length[1]):
                publish(body, subscribers)
                os.write(number, DONE)
                pending[number] = b""


if __name__ == "__main__":
    main(int(sys.argv[1]))
