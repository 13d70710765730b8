"""The OpenAPI description of the stream, by hand: no framework stands between its requests and its route (stream.py)."""

from typing import Any

from feed.http.problems import documented
from feed.model.posting import Posting
from feed.model.query import StreamQuery


def stream_operation() -> dict[str, Any]:
    """Return the operation object of `GET /v1/jobs/stream` (OpenAPI 3.1, 4.8.10)."""
    parameters: list[dict[str, Any]] = []
    for name, schema in StreamQuery.model_json_schema(by_alias=True)["properties"].items():
        if schema.get("default", 0) is None:
            del schema["default"]
        described = {"description": schema["description"]} if "description" in schema else {}
        parameters.append({"name": name, "in": "query", "required": False, "schema": schema, **described})
    says = "Sent by browsers when they reconnect."
    header = {"anyOf": [{"type": "string"}, {"type": "null"}], "description": says, "title": "Last-Event-Id"}
    parameters.append(
        {"name": "last-event-id", "in": "header", "required": False, "schema": header, "description": says}
    )
    return {
        "tags": ["stream"],
        "summary": "Stream",
        "description": "Stream postings the moment they are committed: first those that were missed, then live ones.\n\n"
        "`curl -N 'http://127.0.0.1:8000/v1/jobs/stream?location=berlin&since=1h'`",
        "operationId": "stream_v1_jobs_stream_get",
        "parameters": parameters,
        "responses": {str(status): response for status, response in _responses().items()},
    }


def _responses() -> dict[int | str, dict[str, Any]]:
    posting = Posting.model_json_schema()

    def event(name: str, data: dict[str, Any], says: str, *, has_id: bool = True) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "event": {"const": name},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        }
        if has_id:
            properties["id"] = {
                "type": "string",
                "description": "`<epoch>.<position>`",
                "examples": ["217387001042.42"],
            }
        return {"type": "object", "description": says, "properties": properties, "required": list(properties)}

    def shape(**properties: str) -> dict[str, Any]:
        return {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}}

    backfill = {
        "const": True,
        "description": "The posting was there before feed knew of it. Other events lack the key.",
    }
    posted = {**posting, "properties": {**posting["properties"], "backfill": backfill}}
    closed = {**posted, "properties": {**posted["properties"], "reason": {
        "enum": ["closed", "deleted", "expired", "removed", "left_filter"]}}}  # fmt: skip
    frames = [
        {"type": "object", "description": "How long to wait before coming back; then the cursor, pinned. No event fires.",
         "properties": {"retry": {"type": "integer", "minimum": 1}, "id": {"type": "string"}}},
        event("posted", posted, "A posting is new, or open again."),
        event("updated", posting, "A posting changed. It may be new to this filter: insert or replace by `id`."),
        event("closed", closed, "A posting is closed, or left this filter (`reason`)."),
        event("synced", shape(position="integer", replayed="integer"), "Replay has met the head.", has_id=False),
        event("heartbeat", shape(position="integer", at="string"), "Nothing happened up to `position`."),
        event("reset", shape(reason="string", snapshot="string"),
              "The cursor is of no use (malformed, ahead, epoch, pruned): read `snapshot`, go on from the head."),
        event("goodbye", shape(reason="string", retry_ms="integer"),
              "The stream ends (drain, full, rate, unavailable, max_age, expired, revoked, kicked): come back after "
              "`retry_ms`, with the last id.", has_id=False),
    ]  # fmt: skip
    example = (
        "retry: 2731\n\nid: 217387001042.41\n\n"
        'id: 217387001042.42\nevent: posted\ndata: {"id":7,"title":"Site Reliability Engineer","company":"Acme", ...}\n\n'
        'event: synced\ndata: {"position":42,"replayed":1}\n\n'
    )
    return {
        200: {
            "description": "Server-sent events, without end.",
            "content": {
                "text/event-stream": {"schema": {"type": "string"}, "itemSchema": {"oneOf": frames}, "example": example}
            },
        },
    } | documented(401, 403, 422)
