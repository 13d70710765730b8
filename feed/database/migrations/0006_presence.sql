-- Who serves streams, and to whom: every process keeps one row up to date. Nothing here is worth a byte of WAL: a crash
-- empties the table, and the processes write themselves in again within seconds.

CREATE UNLOGGED TABLE process (
  id         text PRIMARY KEY,                         -- the first part of its streams' ids
  host       text NOT NULL,
  pid        integer NOT NULL,
  worker     integer,                                  -- its number among the workers of its service; null: it has none
  version    text NOT NULL,
  started_at timestamptz NOT NULL,
  seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),  -- when the row was last written
  report     json NOT NULL DEFAULT '{}'                -- its streams; not jsonb, which refuses \u0000
);
