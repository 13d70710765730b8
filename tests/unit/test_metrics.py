"""The instruments: their names, their zeros, and that two sets of them in one process know nothing of each other."""

from prometheus_client.parser import text_string_to_metric_families

from feed.observability.metrics import LogGauges, Metrics

NAMES = {
    "feed_info": "gauge", "feed_fanout_writer": "gauge",
    "feed_streams": "gauge", "feed_streams_opened": "counter", "feed_streams_ended": "counter",
    "feed_deliveries": "counter", "feed_delivered_bytes": "counter", "feed_events": "counter", "feed_overruns": "counter",
    "feed_capture_to_log_seconds": "histogram", "feed_log_to_hub_seconds": "histogram",
    "feed_hub_to_socket_seconds": "histogram", "feed_delivery_seconds": "histogram", "feed_canary_seconds": "histogram",
    "feed_canary_age_seconds": "gauge", "feed_lag_events": "gauge", "feed_subscribers_behind": "gauge",
    "feed_subscriber_lag_events_max": "gauge", "feed_replays": "counter", "feed_replayed_events": "counter",
    "feed_history_pages": "counter", "feed_history_cache_bytes": "gauge", "feed_sequencer_leading": "gauge",
    "feed_inbox_age_seconds": "gauge", "feed_log_head": "gauge", "feed_log_floor": "gauge", "feed_log_age_seconds": "gauge",
    "feed_database_reconnects": "counter", "feed_notification_queue_usage": "gauge", "feed_search_backlog": "gauge",
    "feed_requests": "counter",
    "feed_sources": "gauge", "feed_source_open_postings": "gauge", "feed_source_suspect": "gauge",
    "feed_source_success_age_seconds": "gauge", "feed_source_overdue_seconds": "gauge",
    "feed_source_runs": "counter", "feed_source_postings": "counter",
    "feed_limited": "counter", "feed_credentials_refused": "counter", "feed_connections": "gauge", "feed_draining": "gauge",
}  # fmt: skip
"""What dashboards and alerts are written against (the parser takes `_total` off)."""


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """What one series reads as text; None where it is not there."""
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_every_name_is_there_with_its_type() -> None:
    families = {
        family.name: family.type for family in text_string_to_metric_families(Metrics("1.2").render()[0].decode())
    }
    ours = {name: kind for name, kind in families.items() if name.startswith("feed_")}
    assert ours == NAMES


def test_a_single_process_tells_of_itself_and_not_when_each_counter_began() -> None:
    text = Metrics("1.2").render()[0].decode()
    assert "process_resident_memory_bytes " in text
    assert "_created" not in text


def test_series_with_known_labels_begin_at_zero() -> None:
    metrics = Metrics("1.2")
    assert value(metrics, "feed_info", version="1.2") == 1
    assert value(metrics, "feed_streams", protocol="HTTP/2") == 0
    assert value(metrics, "feed_deliveries_total", way="push") == 0
    assert value(metrics, "feed_subscribers_behind", at_most="+Inf") == 0
    assert value(metrics, "feed_database_reconnects_total", part="retention") == 0


def test_what_others_report_is_counted_by_name() -> None:
    metrics, other = Metrics("1"), Metrics("1")
    metrics.limited("stream")
    metrics.limited("stream")
    metrics.refused("expired")
    metrics.request("GET", "/v1/jobs/{job_id}", 404)
    metrics.request("BREW", "none", 405)
    assert value(metrics, "feed_limited_total", limit="stream") == 2
    assert value(metrics, "feed_credentials_refused_total", reason="expired") == 1
    assert value(metrics, "feed_requests_total", method="GET", route="/v1/jobs/{job_id}", status="404") == 1
    assert value(metrics, "feed_requests_total", method="other", route="none", status="405") == 1
    assert value(other, "feed_limited_total", limit="stream") is None


def test_the_log_gauges_are_what_the_database_said() -> None:
    metrics = Metrics("1")
    metrics.set_log(LogGauges(head=9, floor=4, log_age=60.5, inbox_age=0.25, queue_usage=0.125, search_backlog=7))
    names = ("feed_log_head", "feed_log_floor", "feed_log_age_seconds", "feed_inbox_age_seconds")
    assert [value(metrics, name) for name in names] == [9, 4, 60.5, 0.25]
    assert value(metrics, "feed_notification_queue_usage") == 0.125
    assert value(metrics, "feed_search_backlog") == 7
