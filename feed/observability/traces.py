"""Traces: spans of writes and replays for OpenTelemetry, where the extra `jobfeed[otel]` is installed and asked for.

Asked for by OpenTelemetry's own environment (`OTEL_EXPORTER_OTLP_ENDPOINT`, or the same for traces alone). Otherwise
nothing is imported, and a span costs one call.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_ASKED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Traces:
    """Records nothing."""

    def record(self, name: str, began: int, ended: int, attributes: Mapping[str, str | int]) -> None:
        """A span from `began` to `ended`, in Unix nanoseconds; an attribute `error` says that it failed."""

    def close(self) -> None:
        """Send what has not been sent yet; may take seconds."""


class Recorded(Traces):
    """Hands spans to a tracer provider of OpenTelemetry's SDK."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("feed")
        self._status: Any = importlib.import_module("opentelemetry.trace").StatusCode

    def record(self, name: str, began: int, ended: int, attributes: Mapping[str, str | int]) -> None:
        """Begin and end it in one go: a span that is open in between would have to be closed by somebody."""
        named = {f"feed.{key}": value for key, value in attributes.items()}
        span = self._tracer.start_span(name, start_time=began, attributes=named)
        if "error" in attributes:
            span.set_status(self._status.ERROR, str(attributes["error"]))
        span.end(end_time=ended)

    def close(self) -> None:
        """Send what is left; waits for the collector as long as the SDK's own settings say."""
        self._provider.shutdown()


NO_TRACES = Traces()


def traces_of(version: str) -> Traces:
    """Those that the environment asks for. Call it in the process that serves: the SDK sends from a thread."""
    if not any(os.environ.get(name) for name in _ASKED) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NO_TRACES
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        sending = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        log.warning("traces are asked for and cannot be sent: install jobfeed[otel]", missing=error.name)
        return NO_TRACES
    resource = resources.Resource.create(
        {"service.name": os.environ.get("OTEL_SERVICE_NAME", "feed"), "service.version": version}
    )
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(sending.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return Recorded(provider)
