"""Traces: off costs nothing and imports nothing; on, each write and each replay is a span."""

import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from feed.observability.traces import NO_TRACES, Recorded, traces_of
from tests.traces import recorded


def test_a_span_has_its_times_and_its_attributes_under_our_name() -> None:
    traces, kept = recorded()
    traces.record("feed.write", 1_000, 3_000, {"count": 2, "outcome": "written"})
    (span,) = kept.get_finished_spans()
    assert (span.name, span.start_time, span.end_time) == ("feed.write", 1_000, 3_000)
    assert dict(span.attributes or {}) == {"feed.count": 2, "feed.outcome": "written"}
    assert span.status.status_code is StatusCode.UNSET


def test_an_error_is_the_status_of_its_span() -> None:
    traces, kept = recorded()
    traces.record("feed.write", 1, 2, {"error": "DatabaseUnavailable"})
    (span,) = kept.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "DatabaseUnavailable"


def test_nobody_asked_so_nothing_is_imported() -> None:
    # Others may import OpenTelemetry's names for themselves (FastAPI's dependencies do); what records and sends is the SDK.
    program = (
        "import sys, json, feed.app; from feed.observability.traces import traces_of, NO_TRACES; "
        "assert traces_of('1') is NO_TRACES; "
        "theirs = 'opentelemetry.sdk', 'opentelemetry.exporter'; "
        "print(json.dumps([name for name in sys.modules if name.startswith(theirs)]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_an_endpoint_asks_for_them_and_a_missing_extra_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert traces_of("1") is NO_TRACES


def test_an_endpoint_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exporter(InMemorySpanExporter):
        """In the place of the one that sends."""

    module: Any = type(sys)("exporter")
    module.OTLPSpanExporter = Exporter
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", module)
    traces = traces_of("1.2")
    try:
        assert isinstance(traces, Recorded)
        attributes = traces._provider.resource.attributes
        assert (attributes["service.name"], attributes["service.version"]) == ("feed", "1.2")
    finally:
        traces.close()


def test_the_sdk_may_be_switched_off_by_its_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert traces_of("1") is NO_TRACES
