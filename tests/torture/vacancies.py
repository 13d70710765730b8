"""A table of somebody else's beside `feed.job`, and what the writers do with it: other names, partitions, keys that change.

The ledger's trigger maps its rows by itself. What only the feed knows of a posting, its id and version, `Lives` fills in.
"""

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import asyncpg

from feed.database.attach import attach
from feed.database.table_shape import describe
from feed.model.attachment import AttachmentSpec
from tests.torture.ledger import OWN, Change
from tests.torture.subscriber import Record

_SPLIT = "w5"
"""Keys below it lie in the first partition."""
_COLUMNS = (
    "kennung, bezeichnung, firma, verweis, land, ort_der_arbeit, stufe, stichworte, gehalt_bis, waehrung, aufgaben"
)
_INSERT = f"INSERT INTO {{}} ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"

SCHEMA = f"""
CREATE SCHEMA werk;
CREATE TABLE {OWN} (
  kennung text PRIMARY KEY, bezeichnung text NOT NULL, firma text NOT NULL, verweis text NOT NULL, land text,
  ort_der_arbeit text, stufe text, stichworte text[] NOT NULL DEFAULT '{{}}', gehalt_bis integer, waehrung text,
  aufgaben text, aufrufe integer NOT NULL DEFAULT 0, erstellt_am timestamptz NOT NULL DEFAULT clock_timestamp(),
  geschlossen_am timestamptz) PARTITION BY RANGE (kennung);
CREATE TABLE werk.stellen_a PARTITION OF {OWN} FOR VALUES FROM (MINVALUE) TO ('{_SPLIT}');
CREATE TABLE werk.stellen_b (                    -- its columns in another order
  aufgaben text, geschlossen_am timestamptz, alt integer, bezeichnung text NOT NULL, firma text NOT NULL,
  verweis text NOT NULL, land text, erstellt_am timestamptz NOT NULL DEFAULT clock_timestamp(), ort_der_arbeit text,
  stufe text, stichworte text[] NOT NULL DEFAULT '{{}}', gehalt_bis integer, waehrung text,
  aufrufe integer NOT NULL DEFAULT 0, kennung text PRIMARY KEY);
ALTER TABLE werk.stellen_b DROP alt;
ALTER TABLE {OWN} ATTACH PARTITION werk.stellen_b FOR VALUES FROM ('{_SPLIT}') TO (MAXVALUE);

CREATE FUNCTION torture.told(r jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object(
    'source', '{OWN}', 'external_id', r -> 'kennung', 'title', r -> 'bezeichnung', 'company', r -> 'firma',
    'url', r -> 'verweis', 'location', NULL, 'country', r -> 'land', 'workplace', r -> 'ort_der_arbeit',
    'employment_type', NULL, 'seniority', r -> 'stufe', 'tags', r -> 'stichworte', 'salary_min', NULL,
    'salary_max', (r ->> 'gehalt_bis')::numeric(14, 2), 'currency', r -> 'waehrung', 'salary_period', NULL,
    'latitude', NULL, 'longitude', NULL, 'posted_at', r -> 'erstellt_am', 'valid_through', NULL,
    'closed_at', r -> 'geschlossen_am', 'description', r -> 'aufgaben')
$$;
-- A row that is given another key is one posting that is gone, and another that is new.
CREATE FUNCTION torture.note_own() RETURNS trigger LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
DECLARE
  now_ jsonb; was_ jsonb;
BEGIN
  IF TG_OP <> 'DELETE' THEN now_ := torture.told(to_jsonb(NEW)); END IF;
  IF TG_OP <> 'INSERT' THEN was_ := torture.told(to_jsonb(OLD)); END IF;
  IF now_ = was_ THEN RETURN NULL; END IF;
  IF was_ IS NOT NULL AND (now_ ->> 'external_id') IS DISTINCT FROM (was_ ->> 'external_id') THEN
    INSERT INTO torture.change (token, kind, reason, body)
    VALUES (current_setting('torture.token', true), 'closed', 'deleted', was_ - 'description');
    was_ := NULL;
  END IF;
  IF now_ IS NOT NULL THEN
    INSERT INTO torture.change (token, kind, reason, body, was)
    SELECT current_setting('torture.token', true), k.kind, CASE k.kind WHEN 'closed' THEN 'closed' END,
           now_ - 'description', was_ - 'description'
      FROM (SELECT CASE
        WHEN was_ IS NOT NULL AND (was_ ->> 'closed_at' IS NULL) = (now_ ->> 'closed_at' IS NULL) THEN 'updated'
        WHEN now_ ->> 'closed_at' IS NULL THEN 'posted' ELSE 'closed' END AS kind) k;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER torture AFTER INSERT OR UPDATE OR DELETE ON {OWN} FOR EACH ROW EXECUTE FUNCTION torture.note_own();
"""

SPEC = AttachmentSpec(
    table=OWN, source=OWN, key=("kennung",), closed="geschlossen_am", closed_is_time=True,
    fields={
        "title": "bezeichnung", "company": "firma", "url": "verweis", "country": "land", "workplace": "ort_der_arbeit",
        "seniority": "stufe", "tags": "stichworte", "salary_max": "gehalt_bis", "currency": "waehrung",
        "posted_at": "erstellt_am", "description": "aufgaben",
    },
)  # fmt: skip


async def attach_own(dsn: str) -> None:
    """Create the table, and attach it."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
    try:
        await connection.execute(SCHEMA)
        await attach(connection, "feed", SPEC, await describe(connection, OWN))
    finally:
        connection.terminate()


class OwnTable:
    """The operations of one writer on the table."""

    def __init__(self, name: str, rng: random.Random, shared: int) -> None:
        self._name = name
        self._rng = rng
        self._shared = shared
        self._made = 0

    async def operate(self, connection: Any, operation: str, values: list[Any]) -> None:
        """Carry out one of the writers' operations; `values` are those of a random posting."""
        rng, execute = self._rng, connection.execute
        mine = f"{self._name}.{rng.randint(max(0, self._made - 40), self._made)}"
        shared = f"shared.{rng.randrange(self._shared)}"
        key = mine if rng.random() < 0.7 else shared
        table = self._table(key)
        title = values[0]
        match operation:
            case "insert" | "expiring":
                await execute(_INSERT.format(self._table(new := self._new())), new, *values)
            case "several":
                rows = [(self._new(), *values) for _ in range(rng.randint(2, 11))]
                await connection.executemany(_INSERT.format(OWN), rows)
            case "upsert":
                changed = (
                    "bezeichnung = excluded.bezeichnung, land = excluded.land, geschlossen_am = NULL, "
                    "aufrufe = excluded.aufrufe + 1"
                )
                insert = _INSERT.format(self._table(shared))
                await execute(f"{insert} ON CONFLICT (kennung) DO UPDATE SET {changed}", shared, *values)
            case "update":
                await execute(
                    f"UPDATE {table} SET bezeichnung = $2, land = $3, ort_der_arbeit = $4, gehalt_bis = $5 "
                    "WHERE kennung = $1",
                    key, title, values[3], values[4], values[7],
                )  # fmt: skip
            case "shared":
                some = [f"shared.{number}" for number in rng.sample(range(self._shared), 4)]
                await execute(
                    f"UPDATE {OWN} SET bezeichnung = $1, stichworte = stichworte || 'x'::text "
                    "WHERE kennung = ANY ($2) AND cardinality(stichworte) < 9", title, some,
                )  # fmt: skip
            case "nothing":
                await execute(
                    f"UPDATE {table} SET aufrufe = aufrufe + 1, bezeichnung = bezeichnung WHERE kennung = $1", key
                )
            case "close":
                await execute(f"UPDATE {table} SET geschlossen_am = clock_timestamp() WHERE kennung = $1", key)
            case "reopen":
                await execute(
                    f"UPDATE {table} SET geschlossen_am = NULL, bezeichnung = $2 WHERE kennung = $1", key, title
                )
            case "delete":
                await execute(f"DELETE FROM {table} WHERE kennung = $1", key)
            case "rename":  # often into the other partition
                other = rng.choice((self._new(), f"shared.{rng.randrange(self._shared)}", f"w{rng.randrange(10)}.x"))
                await execute(f"UPDATE {OWN} SET kennung = $2 WHERE kennung = $1", key, other)
            case "bulk":
                size = rng.choice((300, 1500))
                if rng.random() < 0.5:
                    await connection.copy_records_to_table(
                        "stellen", schema_name="werk", columns=["kennung", "bezeichnung", "firma", "verweis", "land"],
                        records=[(f"{self._name} {self._new()}", title, "Bulk", "https://b.example", "Germany")
                                 for _ in range(size)],
                    )  # fmt: skip
                else:
                    await execute(
                        f"INSERT INTO {OWN} (kennung, bezeichnung, firma, verweis) "
                        "SELECT $1 || n, $2, 'Bulk', 'https://b.example' FROM generate_series(1, $3::int) n",
                        f"{self._name} {self._new()} ", title, size,
                    )  # fmt: skip
            case "sweep":
                how = rng.choice((f"UPDATE {OWN} SET land = 'France'", f"DELETE FROM {OWN}"))
                await execute(f"{how} WHERE starts_with(kennung, $1)", f"{self._name} ")
            case _:
                raise ValueError(operation)

    def _new(self) -> str:
        self._made += 1
        return f"{self._name}.{self._made}"

    def _table(self, key: str) -> str:
        """The table, or now and then the partition that the key belongs to."""
        if self._rng.random() < 0.6:
            return OWN
        return "werk.stellen_a" if key < _SPLIT else "werk.stellen_b"


class Lives:
    """Fills in what the feed makes of a change of the table: each life of a row is a posting, with versions from 1 on."""

    def __init__(self, record: Record) -> None:
        self._ids: dict[str, list[int]] = defaultdict(list)
        """The postings of a key, in the order in which they arrived."""
        for position in sorted(record.events):
            seen = record.events[position]
            if seen.key is not None and seen.job not in self._ids[seen.key]:
                self._ids[seen.key].append(seen.job)
        self._lives: dict[str, int] = defaultdict(int)
        self._versions: dict[str, int] = {}

    def named(self, change: Change) -> Change:
        """The change with its posting's id, which is a negative number where nothing arrived of it, and version."""
        if change.body["source"] != OWN:
            return change
        key = change.body["external_id"]
        deleted = change.reason == "deleted"
        if key not in self._versions:
            self._lives[key] += 1
        version = self._versions.get(key, 0) + (not deleted)
        arrived = self._ids[key]
        job = arrived[self._lives[key] - 1] if self._lives[key] <= len(arrived) else -change.id
        if deleted:
            del self._versions[key]
        else:
            self._versions[key] = version
        return replace(change, body=change.body | {"id": job, "version": version})


async def compare_mirror(connection: "asyncpg.Connection[asyncpg.Record]", record: Record) -> None:
    """The postings are the rows of the table, to the last field, and no comparison ever had anything to put right."""
    for what, sql in (
        ("is missing", "SELECT torture.told(to_jsonb(t)) FROM {own} t EXCEPT SELECT {job}"),
        ("is too many", "SELECT {job} EXCEPT SELECT torture.told(to_jsonb(t)) FROM {own} t"),
    ):
        unlike = "{id,version,updated_at,description_html,mirror_hash}"
        job = f"to_jsonb(j) - '{unlike}'::text[] FROM feed.job j WHERE source = '{OWN}'"
        rows = await connection.fetch(sql.format(own=OWN, job=job) + " LIMIT 5")
        for row in rows:
            record.fault("mirror", f"{row[0]} {what}")
    for row in await connection.fetch(
        "SELECT why FROM feed.attachment_bad UNION ALL SELECT why FROM feed.attachment_doubt"
    ):
        record.fault("mirror", f"a row was not captured: {row['why']}")
    if attachments := await connection.fetchval("SELECT count(*) FROM feed.log WHERE reason = 'backfill'"):
        record.fault("mirror", f"{attachments} events were made by a comparison")
