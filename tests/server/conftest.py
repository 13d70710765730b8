"""What holds for streams holds on both ways to a socket: by the wire, and through sse-starlette's generator."""

import pytest

BOTH = ("test_stream", "test_stream_outage", "test_stream_replay", "test_stream_reset")
"""Modules whose tests run once for each."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH:
        metafunc.fixturenames.insert(0, "path")
        metafunc.parametrize("path", ["wire", "generator"], indirect=True)


@pytest.fixture
def path(request: pytest.FixtureRequest, _no_settings_from_outside: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way of a stream's bytes in this test: every service it starts goes it."""
    chosen: str = request.param
    monkeypatch.setenv("FEED_WIRE", "true" if chosen == "wire" else "false")
    return chosen
