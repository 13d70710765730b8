"""A response's head over HTTP/2 is what h2 and hpack read of it, whatever the client has said of its table."""

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from h2.settings import SettingCodes
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from feed.hypercorn_adapter.http2_head import encoded_head, send_head
from tests.fuzz import tries

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=200).map(str.encode)
values = st.binary(max_size=40_000)


@tries(100)
@given(st.integers(100, 599), st.lists(st.tuples(names, values), max_size=8))
def test_hpack_reads_every_head(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder(max_header_list_size=2**24)
    read = [(bytes(name), bytes(value)) for name, value in decoder.decode(encoded_head(status, headers), raw=True)]
    assert read == [(b":status", b"%d" % status), *headers]


@pytest.mark.parametrize("size", [None, 0, 64, 65_536])
@pytest.mark.parametrize("value", [b"short", b"x" * 20_000], ids=["short", "longer than a frame"])
def test_a_client_reads_one_head_after_another(size: int | None, value: bytes) -> None:
    client = H2Connection()
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    client.initiate_connection()
    server.initiate_connection()
    if size is not None:
        client.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
    for stream_id in (1, 3):
        request = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "feed")]
        client.send_headers(stream_id, request, end_stream=True)
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    for stream_id in (1, 3):
        frame = send_head(server, stream_id, 404, [(b"x", value)])
        events = client.receive_data(server.data_to_send() + frame)
        heads = [event.headers for event in events if isinstance(event, ResponseReceived)]
        assert [[(bytes(n), bytes(v)) for n, v in head] for head in heads] == [[(b":status", b"404"), (b"x", value)]]
