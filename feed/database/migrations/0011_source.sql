-- Sources: the boards from which feed fetches postings, and what it remembers of each posting that it fetched.

-- One board. What a person said of it comes first, then what the last runs found. A run is one fetch of the board's list and
-- the writing of what changed.
CREATE TABLE source (
  name         text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 200),  -- "greenhouse:acme", the `source` of its postings
  adapter      text NOT NULL,
  board        text NOT NULL,
  url          text,                                   -- fetched instead of the adapter's own address
  host         text NOT NULL,                          -- of what is fetched: one source a host at a time
  mapping      text,                                   -- TOML, for sources of JSON that no adapter knows
  switched_on  boolean NOT NULL DEFAULT false,         -- although its adapter is off because of the source's terms
  attribution  text,                                   -- the terms of the source: whom to name
  min_interval double precision NOT NULL DEFAULT 0,    -- seconds between two runs at the least
  syndicate    boolean NOT NULL DEFAULT true,          -- whether its postings may be passed on to other boards
  added_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  paused_at    timestamptz,
  accepted     boolean NOT NULL DEFAULT false,         -- the next complete list is believed, whatever is suspect about it

  claim        uuid,                                   -- of the run that is under way
  claimed_until timestamptz,                           -- a run that has not ended by then has died
  next_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  wait         double precision,                       -- seconds between runs at present; doubles while nothing changes
  tried_at     timestamptz,
  succeeded_at timestamptz,                            -- null: no run has gone through, so the first one is not over
  changed_at   timestamptz,
  failures     integer NOT NULL DEFAULT 0,             -- runs in a row that failed
  error        text,
  suspect      text,                                   -- why the newest list is not believed
  suspect_at   timestamptz,
  company      text,                                   -- as the board told it
  counts       integer[] NOT NULL DEFAULT '{}',        -- of the last five complete lists that were believed, oldest first
  empty_runs   integer NOT NULL DEFAULT 0,             -- empty lists in a row that are not believed yet
  empty_at     timestamptz,                            -- the first of these
  found        integer,                                -- in the newest list
  open         integer NOT NULL DEFAULT 0,             -- postings in source_posting when the last run ended
  bad          integer NOT NULL DEFAULT 0,             -- postings of the newest list that could not be read
  faults       json NOT NULL DEFAULT '[]',             -- of the first of these
  posted       bigint NOT NULL DEFAULT 0,              -- since the source was added
  updated      bigint NOT NULL DEFAULT 0,
  closed       bigint NOT NULL DEFAULT 0,
  last_change  integer[] NOT NULL DEFAULT '{0,0,0}',   -- posted, updated and closed by the run of changed_at

  -- What lets the server say that nothing has changed. It is kept only of a list that was applied in whole.
  validated_url text,
  etag         text,
  last_modified text,
  digest       bytea,                                  -- SHA-256 of the answer, for servers that know no ETag
  validated_by text                                    -- the version of feed, since another one may read the list otherwise
);
CREATE INDEX source_due ON source (next_at) WHERE paused_at IS NULL;

-- One posting of a board that is open as far as we know. It is written in the transaction that writes the posting, and
-- deleted in the one that closes it.
CREATE TABLE source_posting (
  source      text NOT NULL REFERENCES source ON DELETE CASCADE,
  external_id text NOT NULL,
  digest      bytea NOT NULL,                          -- of its content
  expires_at  timestamptz,                             -- its valid_through
  -- 0: in the newest complete list. 1: not in it. -1: not in the newest list, which is suspect.
  missed      smallint NOT NULL DEFAULT 0,
  missed_at   timestamptz,                             -- when it was first not listed
  gone        smallint NOT NULL DEFAULT 0,             -- answers 404 or 410 of its own page, in a row
  looked_at   timestamptz,                             -- when its own page was last asked for
  PRIMARY KEY (source, external_id)
);
CREATE INDEX source_posting_missed ON source_posting (source) WHERE missed <> 0;
