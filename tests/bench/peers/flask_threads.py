"""The same feed with threads: Flask under gunicorn's gthread worker, psycopg's pool, and a queue for each subscriber.

It lists, takes and streams postings at the feed's own addresses, out of a table that its section of the bench has filled.
A stream keeps a thread for as long as it is open.
"""

import json
import os
import queue
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, jsonify, request
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

COLUMNS = (
    "id, source, external_id, title, company, url, location, country, workplace, employment_type, seniority, tags, "
    "salary_min, salary_max, currency, salary_period, latitude, longitude, posted_at, valid_through, version, updated_at, "
    "closed_at"
)
_HEARTBEAT = 15.0
"""Seconds without an event after which a stream says something: only then a thread notices that its client has gone."""
_WAITING = 1_000
"""Events that may wait for one subscriber."""

app = Flask(__name__)
app.json.sort_keys = False
pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=4, max_size=16, kwargs={"row_factory": dict_row}, open=True)
subscribers: set[queue.Queue[str]] = set()


def document(row: dict[str, Any]) -> dict[str, Any]:
    """A posting as clients read it: times in RFC 3339."""
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}


@app.get("/v1/jobs")
def jobs() -> Response:
    limit = request.args.get("limit", 50, type=int)
    with pool.connection() as connection:
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM posting WHERE closed_at IS NULL ORDER BY id DESC LIMIT %s", (limit,)
        ).fetchall()
    return jsonify(jobs=[document(row) for row in rows])


@app.post("/v1/jobs")
def post() -> tuple[Response, int]:
    given = request.get_json()
    with pool.connection() as connection:
        row = connection.execute(
            "INSERT INTO posting (source, external_id, title, company, url) "
            "VALUES (%(source)s, %(external_id)s, %(title)s, %(company)s, %(url)s) "
            f"RETURNING {COLUMNS}",
            given,
        ).fetchone()
    assert row is not None
    made = document(row)
    frame = f"id: {made['id']}\nevent: posted\ndata: {json.dumps(made, separators=(',', ':'))}\n\n"
    for each in list(subscribers):
        try:
            each.put_nowait(frame)
        except queue.Full:
            subscribers.discard(each)
    return jsonify(made), 201


@app.get("/v1/jobs/stream")
def stream() -> Response:
    mine: queue.Queue[str] = queue.Queue(_WAITING)

    def events() -> Iterator[str]:
        subscribers.add(mine)
        try:
            yield ": hi\n\n"
            while True:
                try:
                    yield mine.get(timeout=_HEARTBEAT)
                except queue.Empty:
                    yield ": still here\n\n"
        finally:
            subscribers.discard(mine)

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
