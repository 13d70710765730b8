-- The log keeps when each row was written, besides when it was sequenced: what an event took on its whole way is then the
-- database's own clock at both ends. Rows from before have none.
ALTER TABLE log ADD COLUMN captured_at timestamptz;

-- advance() as in 0001, and `captured_at`.
-- Move what became visible since the last call from the inbox to the log, at most `batch` rows, and say so on the
-- channel named like the schema. Call it in autocommit, READ COMMITTED, with synchronous_commit on. Safe against a
-- rival: the row lock on `state` fences it. The xid-range predicate keeps the cost independent of dead rows.
CREATE OR REPLACE FUNCTION advance(batch integer, OUT epoch bigint, OUT head bigint, OUT moved integer, OUT more boolean,
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
  IF st.rescue THEN xm := '0'; END IF;                 -- every row, and the plan stays one that only knows ranges

  -- One statement, one snapshot. Over the bound, the old snapshot stays in force and the rest comes with the next call.
  WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS snap, greatest(clock_timestamp(), st.at) AS at),
  bound AS MATERIALIZED (
    SELECT i.id FROM inbox i WHERE i.xid >= xm OR i.xid = ANY (xi) ORDER BY i.id OFFSET batch LIMIT 1),
  d AS (
    DELETE FROM inbox i WHERE (i.xid >= xm OR i.xid = ANY (xi))
      AND i.id < coalesce((SELECT b.id FROM bound b), 9223372036854775807)
    RETURNING i.id, i.kind, i.reason, i.at, i.job, i.was),
  l AS (
    INSERT INTO log (position, kind, reason, at, captured_at, job, was)
    SELECT st.head + row_number() OVER (ORDER BY d.id), d.kind, d.reason, s.at, d.at, d.job, d.was
      FROM d, s ORDER BY d.id
    RETURNING position),
  c AS (
    SELECT (SELECT count(*)::integer FROM l) AS moved, st.head + (SELECT count(*) FROM l) AS head,
           EXISTS (SELECT FROM bound) AS more, (SELECT min(d.at) FROM d) AS oldest),
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
