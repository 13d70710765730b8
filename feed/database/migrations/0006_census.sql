-- Who subscribes, over all processes: those that live, the questions put to them, and their answers. Nothing here is worth
-- a byte of WAL: a crash empties the tables, and processes write themselves in again within seconds.

CREATE UNLOGGED TABLE process (
  id         text PRIMARY KEY,                         -- the first part of its streams' ids
  host       text NOT NULL,
  pid        integer NOT NULL,
  worker     integer,                                  -- its place among the workers; null: there is only one
  version    text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A question. Its id goes out on the channel `<schema>_census`.
CREATE UNLOGGED TABLE census (
  id       uuid PRIMARY KEY,
  sort     text NOT NULL,
  most     integer NOT NULL,                           -- rows of one process
  stream   text,                                       -- only about this one
  asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE UNLOGGED TABLE census_answer (
  census      uuid NOT NULL,
  process     text NOT NULL,
  answer      json NOT NULL,                           -- not jsonb, which refuses \u0000
  answered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (census, process)
);
