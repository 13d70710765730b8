-- The search index of the lists holds what filters look for, of every posting. It follows the log
-- (feed/database/indexer.py), so that writers do not pay for it; feed/database/listing.py unites what it finds with an exact
-- look at the postings that changed since.

-- One row a posting, as it was at `search_state.position` or later. feed/database/lexemes.py says which lexemes there are.
CREATE TABLE search (
  id        bigint PRIMARY KEY,
  open      boolean NOT NULL,
  posted_at timestamptz NOT NULL,
  pay       double precision,                          -- the upper bound of the salary, or else the lower one, a year
  latitude  double precision,
  longitude double precision,
  lexemes   tsvector NOT NULL
);
ALTER TABLE search ALTER COLUMN lexemes SET STATISTICS 0;  -- no plan depends on them, and they take seconds to gather
CREATE INDEX search_arrived ON search (open, id);
CREATE INDEX search_posted ON search (open, posted_at, id);

-- The indexes over the lexemes. A long list of what is still to be entered would hold up every reader, and a short one
-- makes the entering slow.
CREATE FUNCTION index_lexemes() RETURNS void LANGUAGE sql SET search_path FROM CURRENT AS $$
  CREATE INDEX IF NOT EXISTS search_lexemes_open ON search USING gin (lexemes) WITH (gin_pending_list_limit = 2048) WHERE open;
  CREATE INDEX IF NOT EXISTS search_lexemes_closed ON search USING gin (lexemes) WITH (gin_pending_list_limit = 2048)
    WHERE NOT open;
$$;
SELECT index_lexemes() WHERE NOT EXISTS (SELECT FROM job);  -- for many postings it is quicker to make them in the end
REVOKE ALL ON FUNCTION index_lexemes() FROM PUBLIC;

-- How far the index has come, in one row.
CREATE TABLE search_state (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint NOT NULL,                            -- of the log: changes up to here are in the index
  filled   bigint,                                     -- ids up to this one were entered; null: all of them, it can be used
  opened   bigint NOT NULL DEFAULT 0,                  -- rows of `search` that are open
  closed   bigint NOT NULL DEFAULT 0                   -- and the others
) WITH (fillfactor = 10);
-- Postings that are there at an upgrade are entered by the indexer. The others have their events to come.
INSERT INTO search_state (position, filled) SELECT s.head, CASE WHEN EXISTS (SELECT FROM job) THEN 0 END FROM state s;
