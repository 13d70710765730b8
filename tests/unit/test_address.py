"""Where a request came from: the socket's word, and that of trusted proxies as far as they can know it."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feed.http.address import Origin, bucket_of, is_within, origin_of

PROXIES = tuple(ip_network(text) for text in ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1/32"))
PROXY = "10.0.0.1"


def scope(peer: str | None, *headers: tuple[str, str], scheme: str = "http") -> dict[str, Any]:
    """An ASGI scope with what is looked at."""
    return {
        "type": "http",
        "scheme": scheme,
        "client": None if peer is None else (peer, 4711),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }


def origin(peer: str | None, *headers: tuple[str, str], scheme: str = "http") -> Origin:
    believed = "forwarded" if any(name == "Forwarded" for name, _ in headers) else "x-forwarded-for"
    return origin_of(scope(peer, *headers, scheme=scheme), PROXIES, believed)


def forwarded(*values: str) -> Origin:
    """Behind a trusted proxy that sent these lines."""
    return origin(PROXY, *(("Forwarded", value) for value in values))


def test_without_a_proxy_the_socket_is_believed() -> None:
    assert origin("192.0.2.7") == Origin("192.0.2.7", secure=False, forwarded=False)
    assert origin("192.0.2.7", scheme="https") == Origin("192.0.2.7", secure=True, forwarded=False)
    assert origin(None) == Origin("", secure=False, forwarded=False)


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_a_stranger_is_not_believed_and_seen_to_have_said_something(name: str) -> None:
    value = "for=198.51.100.1;proto=https" if name == "Forwarded" else "198.51.100.1"
    found = origin("192.0.2.7", (name, value), ("X-Forwarded-Proto", "https"))
    assert found == Origin("192.0.2.7", secure=False, forwarded=True)


def test_with_no_trusted_proxies_nothing_is_believed() -> None:
    found = origin_of(scope(PROXY, ("X-Forwarded-For", "198.51.100.1")), ())
    assert found == Origin(PROXY, secure=False, forwarded=True)


@pytest.mark.parametrize(
    ("value", "address", "secure"),
    [
        # The examples of RFC 7239, sections 4, 6 and 7.
        ('for="_gazonk"', PROXY, False),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17", False),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60", False),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17", False),
        ("for=_hidden, for=_SEVKISEK", PROXY, False),
        ('for="192.0.2.43:47011"', "192.0.2.43", False),
        ('for="198.51.100.17:_port";proto=https', "198.51.100.17", True),
        ("for=unknown;proto=https", PROXY, True),
        ("PROTO=HTTPS ; FOR=192.0.2.60", "192.0.2.60", True),
        ('for="[2001:db8:cafe::17]"', "2001:db8:cafe::17", False),
        ('for=192.0.2.43,for="[2001:db8:cafe::17]";proto=https', "2001:db8:cafe::17", True),
        ("by=203.0.113.43;proto=https", PROXY, True),
        ('for="::ffff:192.0.2.1"', "192.0.2.1", False),
        # Not as it should be: the last hop that is known.
        ("for=192.0.2.60;for=192.0.2.61", PROXY, False),
        ("for=[2001:db8::1", PROXY, False),
        ('for="192.0.2.60', PROXY, False),
        ('for="a\\"b"', PROXY, False),
        ("192.0.2.60", PROXY, False),
        ("for=192.0.2.60;", PROXY, False),
        ("for=192.0.2.60,", PROXY, False),
        ("for=1.2.3", PROXY, False),
        ("for=fe80::1%eth0", PROXY, False),
        ("", PROXY, False),
    ],
)
def test_the_word_of_a_trusted_proxy_counts_as_far_as_it_is_understood(value: str, address: str, secure: bool) -> None:
    assert forwarded(value) == Origin(address, secure, forwarded=True)


def test_elements_are_read_from_the_right_as_long_as_their_writer_is_trusted() -> None:
    assert forwarded("for=1.1.1.1, for=198.51.100.1, for=10.2.3.4").address == "198.51.100.1"
    assert forwarded("for=1.1.1.1", "for=198.51.100.1", "for=10.2.3.4").address == "198.51.100.1"
    assert forwarded("for=1.1.1.1, for=_hidden, for=10.2.3.4").address == "10.2.3.4"
    assert forwarded('for="[2001:db8:1::5]:80", for=10.2.3.4').address == "2001:db8:1::5"  # all are trusted: the first


def test_what_a_client_left_open_swallows_nothing_that_the_proxy_wrote() -> None:
    assert forwarded('for="1.1.1.1', "for=198.51.100.1;proto=https") == Origin("198.51.100.1", True, True)
    assert forwarded('for="1.1.1.1, for=198.51.100.1').address == "198.51.100.1"


def test_what_a_proxy_quotes_of_a_client_is_no_element_of_its_own() -> None:
    # The client's Host was `a", for=1.1.1.1;x="`.
    assert forwarded('for=198.51.100.1;host="a\\", for=1.1.1.1;x=\\""').address == PROXY
    assert forwarded('for=198.51.100.1;host="a, for=1.1.1.1"').address == "198.51.100.1"


def test_the_scheme_is_that_of_the_outermost_proxy_that_tells_it() -> None:
    assert forwarded("for=198.51.100.1;proto=https, for=10.2.3.4;proto=http").secure
    assert not forwarded("for=198.51.100.1;proto=http, for=10.2.3.4;proto=https").secure
    assert forwarded("for=198.51.100.1, for=10.2.3.4;proto=https").secure
    assert not forwarded("for=1.1.1.1;proto=https, for=198.51.100.1;proto=http").secure
    assert origin(PROXY, ("Forwarded", "for=198.51.100.1"), scheme="https").secure


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("1.1.1.1 , 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("198.51.100.1:8080", "198.51.100.1"),
        ("[2001:db8::1]:8080", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("unknown", PROXY),
        ("nonsense, 10.9.9.9", "10.9.9.9"),
        ("", PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right_too(value: str, address: str) -> None:
    assert origin(PROXY, ("X-Forwarded-For", value)).address == address


def test_the_scheme_comes_from_x_forwarded_proto() -> None:
    assert origin(PROXY, ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Proto", "https")).secure
    assert origin(PROXY, ("X-Forwarded-Proto", "https")) == Origin(PROXY, secure=True, forwarded=True)
    two = ("X-Forwarded-For", "198.51.100.1, 10.9.9.9")
    assert origin(PROXY, two, ("X-Forwarded-Proto", "https, http")).secure
    assert origin(PROXY, two, ("X-Forwarded-Proto", "https")).secure
    assert not origin(PROXY, two, ("X-Forwarded-Proto", "http, https")).secure
    assert not origin(PROXY, two, ("X-Forwarded-Proto", "gopher")).secure


def test_forwarded_alone_counts_where_both_are_there() -> None:
    both = ("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-Proto", "https")
    assert origin(PROXY, ("Forwarded", "for=198.51.100.1"), *both) == Origin("198.51.100.1", False, True)
    assert origin(PROXY, ("Forwarded", "for=unknown"), *both) == Origin(PROXY, False, True)


def test_ipv4_in_ipv6_is_ipv4() -> None:
    assert origin("::ffff:10.0.0.1", ("X-Forwarded-For", "198.51.100.1")).address == "198.51.100.1"
    assert origin("::ffff:192.0.2.7").address == "192.0.2.7"
    assert is_within("::ffff:10.0.0.1", PROXIES)


def test_an_ipv6_client_counts_by_its_64() -> None:
    assert bucket_of("2001:db8:1:2:3:4:5:6") == bucket_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert bucket_of("2001:db8:1:3::1") != bucket_of("2001:db8:1:2::1")
    assert bucket_of("192.0.2.7") == bucket_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert bucket_of("fe80::1%eth0") == "fe80::/64"
    assert bucket_of("") == ""


ANYTHING = st.text(st.characters(max_codepoint=255), max_size=80)
NEARLY = st.lists(
    st.sampled_from([
        "for=", "For=", '"', "[", "]", "2001:db8::1", "192.0.2.60", ":80", ";", ",", "proto=", "https", "unknown", "_a",
        "\\", " ", "10.0.0.1", "%", "=", "by=", "::",
    ]),
    max_size=20,
).map("".join)  # fmt: skip
LISTS = ANYTHING | NEARLY
NAMES = st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via", "Host"])
HEADERS = st.lists(st.tuples(NAMES, LISTS), max_size=6)


@given(HEADERS, ANYTHING | st.just(PROXY) | st.none())
@example([("Forwarded", 'for="')], PROXY)
def test_nothing_raises(headers: list[tuple[str, str]], peer: str | None) -> None:
    found = origin(peer, *headers)
    assert isinstance(bucket_of(found.address), str)
    is_within(found.address, PROXIES)


@given(HEADERS)
def test_a_hop_that_is_not_trusted_is_never_believed(headers: list[tuple[str, str]]) -> None:
    found = origin("192.0.2.7", *headers)
    assert (found.address, found.secure) == ("192.0.2.7", False)


@given(st.lists(LISTS, max_size=3), st.sampled_from(["http", "https"]))
def test_whatever_a_client_sends_the_proxy_behind_it_is_believed(sent: list[str], proto: str) -> None:
    for name, written in (("Forwarded", f'for="198.51.100.1:9";proto={proto}'), ("X-Forwarded-For", "198.51.100.1")):
        apart = [*((name, one) for one in sent), (name, written)]
        joined = [(name, ", ".join([*sent, written]))]
        for headers in (apart, joined):
            found = origin(PROXY, *headers)
            assert found.address == "198.51.100.1"
            if name == "Forwarded":
                assert found.secure == (proto == "https")


def test_of_two_headers_the_one_that_proxies_do_not_set_is_not_believed() -> None:
    """A proxy that sets X-Forwarded-For alone passes on whatever Forwarded its client made up; and the other way round."""
    both = scope(PROXY, ("Forwarded", "for=127.0.0.1;proto=https"), ("X-Forwarded-For", "198.51.100.1"))
    assert origin_of(both, PROXIES) == Origin("198.51.100.1", secure=False, forwarded=True)
    assert origin_of(both, PROXIES, "forwarded") == Origin("127.0.0.1", secure=True, forwarded=True)
