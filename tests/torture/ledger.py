"""The ledger: what was committed, written down by a trigger of the test's own in the very transactions that changed it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

OWN = "werk.stellen"
"""The table of somebody else's that is attached, and the source of its postings."""

# A row trigger, and of another make than the feed's: whole rows are compared as JSON, one ledger row a change.
SCHEMA = f"""
CREATE SCHEMA torture;
CREATE TABLE torture.tx (token text PRIMARY KEY);
CREATE TABLE torture.change (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token text, at timestamptz NOT NULL DEFAULT statement_timestamp(),
  kind text NOT NULL, reason text, body jsonb NOT NULL, was jsonb);
CREATE FUNCTION torture.note() RETURNS trigger LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
DECLARE
  now_ jsonb; was_ jsonb; kind_ text; reason_ text := coalesce(nullif(current_setting('feed.reason', true), ''), 'closed');
BEGIN
  IF OLD.source = '{OWN}' OR NEW.source = '{OWN}' THEN RETURN NULL; END IF;  -- a mirror: its table has a trigger
  IF TG_OP <> 'DELETE' THEN now_ := to_jsonb(NEW) - '{{description,description_html,mirror_hash}}'::text[]; END IF;
  IF TG_OP <> 'INSERT' THEN was_ := to_jsonb(OLD) - '{{description,description_html,mirror_hash}}'::text[]; END IF;
  IF TG_OP = 'DELETE' THEN
    kind_ := 'closed'; reason_ := 'deleted'; now_ := was_; was_ := NULL;
  ELSIF TG_OP = 'INSERT' THEN
    kind_ := CASE WHEN NEW.closed_at IS NULL THEN 'posted' ELSE 'closed' END;
  ELSIF to_jsonb(NEW) - '{{version,updated_at}}'::text[] = to_jsonb(OLD) - '{{version,updated_at}}'::text[] THEN
    RETURN NULL;
  ELSE
    kind_ := CASE WHEN (NEW.closed_at IS NULL) = (OLD.closed_at IS NULL) THEN 'updated'
                  WHEN NEW.closed_at IS NULL THEN 'posted' ELSE 'closed' END;
  END IF;
  INSERT INTO torture.change (token, kind, reason, body, was)
  VALUES (current_setting('torture.token', true), kind_, CASE kind_ WHEN 'closed' THEN reason_ END, now_, was_);
  RETURN NULL;
END $$;
CREATE TRIGGER torture AFTER INSERT OR UPDATE OR DELETE ON feed.job FOR EACH ROW EXECUTE FUNCTION torture.note();
CREATE ROLE torture_a SUPERUSER LOGIN;
CREATE ROLE torture_b SUPERUSER LOGIN;
"""


def digest(body: dict[str, Any]) -> int:
    """Stand for a posting's whole content, in the event and in the ledger alike.

    When the posting of an attached table was updated is known to the feed alone.
    """
    if body["source"] == OWN:
        body = {name: value for name, value in body.items() if name != "updated_at"}
    return hash(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change; `at` tells the statements of a transaction apart."""

    id: int
    token: str | None
    at: float
    kind: str
    reason: str | None
    body: dict[str, Any]
    was: dict[str, Any] | None


async def changes(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[Change]:
    """Every committed change, in the order of writing (which for one posting is the order of its states)."""
    async with connection.transaction():
        async for row in connection.cursor(
            "SELECT id, token, extract(epoch FROM at)::float8, kind, reason, body, was FROM torture.change ORDER BY id",
            prefetch=1000,
        ):
            number, token, at, kind, reason, body, was = row
            yield Change(number, token, at, kind, reason, orjson.loads(body), was and orjson.loads(was))
