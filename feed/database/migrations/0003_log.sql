-- Sequencing: advance() moves committed events from the inbox to the log and gives them dense positions.

-- The state of the log, in one row. `snap` is the snapshot that the last advance() read the inbox with: rows that it did
-- not see are new.
CREATE TABLE state (
  one    boolean PRIMARY KEY DEFAULT true CHECK (one),
  epoch  bigint NOT NULL,
  ident  text NOT NULL,
  head   bigint NOT NULL DEFAULT 0,                    -- newest position
  floor  bigint NOT NULL DEFAULT 0,                    -- positions up to this one are pruned
  at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  rescue boolean NOT NULL DEFAULT false,               -- ident changed: take every inbox row, whatever its xid
  snap   pg_snapshot NOT NULL
) WITH (fillfactor = 10);

-- The epochs of this history, oldest first. An id names an epoch and a position; it is good up to the position at which
-- the epoch's successor starts, since up to there both tell of the same events. Start positions ascend with the epochs.
-- What lies wholly below the floor is forgotten (feed/database/retention.py).
CREATE TABLE epoch (
  epoch          bigint PRIMARY KEY,
  start_position bigint NOT NULL,
  started_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The log: dense positions from 1. There is no default partition, so that old partitions can be detached CONCURRENTLY.
CREATE TABLE log (
  position bigint PRIMARY KEY,
  kind     text NOT NULL,
  reason   text,
  at       timestamptz NOT NULL,                       -- when it was sequenced; ascends with the position
  job      text[] NOT NULL,
  was      text[],
  captured_at timestamptz NOT NULL,                    -- when its row was written
  origin   oid                                         -- the table, where it is not the feed's own `job`
) PARTITION BY RANGE (position);

-- Identifies this history and this run of the server; when it changes, advance() begins an epoch. A restored dump, a clone
-- and a promoted standby each differ in one of the first four parts. A base backup or a copy of the files does not: it looks
-- exactly like the original after a restart. Therefore every start of the server counts as a change. In the
-- original the new epoch starts at the head, so that every id handed out stays good. In the copy it starts at the copy's
-- head, so that ids which the original handed out later are found to lie beyond the old epoch's end. (Only a virtual
-- machine that is cloned while Postgres runs, with its memory, escapes this.) The timeline comes from the WAL file's name,
-- since pg_control_checkpoint() is stale right after a promotion.
CREATE FUNCTION ident() RETURNS text LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT concat_ws('/',
    (SELECT system_identifier FROM pg_control_system()),
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    'state'::regclass::oid,                            -- a dump restored over its own database makes its tables anew
    extract(epoch FROM pg_postmaster_start_time()))
$$;

-- The number of the epoch that follows `after`: the milliseconds since 2020, or `after` where the clock is behind it, and
-- a random step of up to a million. Numbers ascend within one history, and a feed that is built anew does not reuse an old
-- one's. The random step separates two histories with the same `after` and clock, such as an original and its copy started
-- at the same moment: they choose the same number one time in a million. cursor.py reads up to 15 digits, which last for
-- over 30,000 years and fit into a double exactly.
CREATE FUNCTION next_epoch(after bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT greatest(after, (extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01 00:00:00+00') * 1000)::bigint)
         + 1 + floor(random() * 1000000)::bigint
$$;

INSERT INTO state (epoch, ident, snap) SELECT next_epoch(0), ident(), pg_current_snapshot();
INSERT INTO epoch (epoch, start_position) SELECT epoch, 0 FROM state;

-- Make partitions until `ahead` empty ones follow the head's. ATTACH locks less than PARTITION OF would.
CREATE FUNCTION extend_log(size bigint, ahead integer) RETURNS integer LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  wanted bigint; upper bigint; made integer := 0; part text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('extend_log'), hashtext(current_schema()));
  SELECT head + 1 + size * ahead INTO wanted FROM state;
  SELECT coalesce(max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)'))[1]::bigint), 1) INTO upper
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'log'::regclass;
  WHILE upper <= wanted LOOP
    part := 'log_' || upper;
    EXECUTE format('CREATE TABLE %I (LIKE log INCLUDING ALL)', part);
    EXECUTE format('ALTER TABLE log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, upper, upper + size);
    upper := upper + size; made := made + 1;
  END LOOP;
  RETURN made;
END $$;

-- Close the postings that a TRUNCATE removed although its snapshot did not see them, for every visible row of `truncation`.
--
-- TRUNCATE waits for every transaction that wrote to the table, and keeps others out until it ends. So whatever was
-- written to the table before is committed and captured by now, and has a lower id in the inbox or is in the log already.
-- Rows that the truncating snapshot did not see as they were are those of transactions that committed after it was taken.
-- The advance() that moved their events committed later still, so these lie in the log above the head that the snapshot
-- saw, or in the inbox. The last event of each such posting tells whether TRUNCATE removed it, and its last contents. Rows
-- that the truncating transaction wrote are left out: it saw them, and nobody else could change them afterwards. A posting
-- is missed only if retention pruned a part of the log that is younger than a running transaction.
--
-- Call it with the row of `state` locked: nothing else moves rows from the inbox then.
CREATE FUNCTION close_truncated() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_nestloop = off AS $$
DECLARE
  t truncation;
BEGIN
  FOR t IN SELECT * FROM truncation ORDER BY first LOOP
    WITH others AS (
      SELECT 0 AS place, l.position AS number, l.kind, l.reason, l.job FROM log l
       WHERE l.position > t.head AND l.origin IS NOT DISTINCT FROM t.origin AND cardinality(l.job) > 0
      UNION ALL
      SELECT 1, i.id, i.kind, i.reason, i.job FROM inbox i
       WHERE i.id < t.first AND i.xid <> t.xid AND i.origin IS NOT DISTINCT FROM t.origin AND cardinality(i.job) > 0),
    latest AS (
      SELECT DISTINCT ON (o.job[1]) o.job[1] AS posting, o.place, o.number, o.job,
             o.kind = 'closed' AND o.reason = 'deleted' AS gone
        FROM others o
       WHERE NOT EXISTS (SELECT FROM inbox i WHERE i.xid = t.xid AND i.id < t.first AND i.job[1] = o.job[1]
                                               AND i.origin IS NOT DISTINCT FROM t.origin)
       ORDER BY o.job[1], o.place DESC, o.number DESC),
    stale AS (
      DELETE FROM inbox i USING latest p
       WHERE i.xid = t.xid AND i.id >= t.first AND i.id < t.rest AND i.job[1] = p.posting
         AND i.origin IS NOT DISTINCT FROM t.origin)
    INSERT INTO inbox (xid, id, kind, reason, job, origin) OVERRIDING SYSTEM VALUE
    SELECT t.xid, t.rest + row_number() OVER (ORDER BY p.place, p.number), 'closed', 'deleted', p.job, t.origin
      FROM latest p WHERE NOT coalesce(p.gone, false);
    DELETE FROM inbox i WHERE i.xid = t.xid AND i.kind = 'truncated' AND i.id > t.rest
                          AND i.origin IS NOT DISTINCT FROM t.origin;
    DELETE FROM truncation d WHERE d.xid = t.xid AND d.first = t.first;
  END LOOP;
END $$;

-- Move what became visible since the last call from the inbox to the log, at most `batch` rows, and say so on the
-- channel named like the schema. Call it in autocommit, READ COMMITTED, with synchronous_commit on. A second caller is
-- safe: it waits for the row lock on `state`. The xid-range predicate keeps the cost independent of dead rows.
CREATE FUNCTION advance(batch integer, OUT epoch bigint, OUT head bigint, OUT moved integer, OUT more boolean,
                        OUT xmax xid8, OUT oldest timestamptz)
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
  st state; xm xid8; xi xid8[]; me text := ident();
BEGIN
  SELECT * INTO STRICT st FROM state;
  xm := pg_snapshot_xmax(st.snap); xi := ARRAY(SELECT pg_snapshot_xip(st.snap));
  IF st.ident = me AND NOT st.rescue AND NOT EXISTS (SELECT FROM inbox i WHERE i.xid >= xm)
     AND NOT EXISTS (SELECT FROM inbox i WHERE i.xid = ANY (xi)) THEN
    epoch := st.epoch; head := st.head; moved := 0; more := false;
    xmax := pg_snapshot_xmax(pg_current_snapshot());
    RETURN;
  END IF;

  SELECT * INTO STRICT st FROM state FOR UPDATE;
  xm := pg_snapshot_xmax(st.snap); xi := ARRAY(SELECT pg_snapshot_xip(st.snap));
  IF st.ident <> me THEN
    st.epoch := next_epoch(st.epoch); st.rescue := true;
    INSERT INTO epoch AS e (epoch, start_position) VALUES (st.epoch, st.head);
    PERFORM pg_notify(current_schema(), st.epoch || '.' || st.head);
  END IF;
  IF st.rescue THEN xm := '0'; END IF;                 -- every row, through the same index range as always

  IF EXISTS (SELECT FROM truncation) THEN PERFORM close_truncated(); END IF;

  -- One statement, one snapshot. If more than `batch` rows wait, the old snapshot is kept and the next call takes the rest.
  -- A TRUNCATE that became visible only now is such a bound as well: the next call completes it first.
  WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS snap, greatest(clock_timestamp(), st.at) AS at),
  bound AS MATERIALIZED (
    SELECT min(b.id) AS id FROM (
      (SELECT i.id FROM inbox i WHERE i.xid >= xm OR i.xid = ANY (xi) ORDER BY i.id OFFSET batch LIMIT 1)
      UNION ALL SELECT min(t.first) FROM truncation t) b),
  d AS (
    DELETE FROM inbox i WHERE (i.xid >= xm OR i.xid = ANY (xi))
      AND i.id < coalesce((SELECT b.id FROM bound b), 9223372036854775807)
    RETURNING i.id, i.kind, i.reason, i.at, i.job, i.was, i.origin),
  l AS (
    INSERT INTO log (position, kind, reason, at, captured_at, job, was, origin)
    SELECT st.head + row_number() OVER (ORDER BY d.id), d.kind, d.reason, s.at, d.at, d.job, d.was, d.origin
      FROM d, s ORDER BY d.id
    RETURNING position),
  c AS (
    SELECT (SELECT count(*)::integer FROM l) AS moved, st.head + (SELECT count(*) FROM l) AS head,
           EXISTS (SELECT FROM bound b WHERE b.id IS NOT NULL) AS more, (SELECT min(d.at) FROM d) AS oldest),
  u AS (
    UPDATE state t SET head = c.head, at = s.at, epoch = st.epoch, ident = me, rescue = st.rescue AND c.more,
                       snap = CASE WHEN c.more THEN st.snap ELSE s.snap END
      FROM c, s)
  SELECT st.epoch, c.head, c.moved, c.more, pg_snapshot_xmax(s.snap), c.oldest
    INTO epoch, head, moved, more, xmax, oldest FROM c, s;
  IF moved > 0 THEN
    PERFORM pg_notify(current_schema(), epoch || '.' || head);
  END IF;
END $$;

-- The last position sequenced before `instant` (the floor where all are younger): a binary search, since `at` ascends.
CREATE FUNCTION position_before(instant timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT AS $$
DECLARE
  low bigint; high bigint; middle bigint; seen timestamptz;
BEGIN
  SELECT s.floor, s.head INTO low, high FROM state s;
  WHILE low < high LOOP
    middle := (low + high + 1) / 2;
    SELECT l.at INTO seen FROM log l WHERE l.position = middle;
    IF seen IS NULL OR seen < instant THEN low := middle; ELSE high := middle - 1; END IF;
  END LOOP;
  RETURN low;
END $$;

REVOKE ALL ON FUNCTION advance(integer), close_truncated(), extend_log(bigint, integer), position_before(timestamptz), next_epoch(bigint),
  ident() FROM PUBLIC;
