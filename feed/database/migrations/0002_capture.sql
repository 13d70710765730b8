-- Capture: every write to a table of postings leaves rows in the inbox, in the writer's own transaction.

-- The inbox holds the events that are captured and not sequenced yet. The ids of one posting's events ascend in the order
-- of its writes, because a writer takes an id while it holds the row's lock; the identity therefore keeps CACHE 1. The
-- xid tells whether a snapshot sees the row's transaction.
CREATE TABLE inbox (
  xid    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  id     bigint GENERATED ALWAYS AS IDENTITY,
  kind   text NOT NULL,
  reason text,
  at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  job    text[] NOT NULL,                              -- the posting, as attach() below lays it out
  was    text[]
);
CREATE INDEX inbox_xid ON inbox (xid);                 -- only the xid, so that a bulk load's rows share one entry

-- A flag in a sequence, because a sequence is outside MVCC and a writer sees it change at once: 1 means that the sequencer
-- sleeps and wants to be woken.
CREATE SEQUENCE armed MINVALUE 0 START 0;

-- Ring the bell if the sequencer sleeps. Call it after the inbox insert: the transaction then already holds its xid,
-- so a writer that reads 0 here is in progress in the snapshot that arms the bell, and is waited for. A transaction that
-- will be PREPAREd cannot NOTIFY: it sets feed.doorbell = off for itself and is found by the poll.
CREATE FUNCTION ring() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF (SELECT last_value FROM armed) = 1 AND coalesce(current_setting('feed.doorbell', true), '') <> 'off' THEN
    PERFORM pg_notify(current_schema() || '_wake', '');
  END IF;
END $$;

-- Write and attach the capture trigger for one table: `columns` maps the posting's fields to its columns, `unwatched`
-- names columns whose change alone is no news. The trigger's code is generated, so that it costs what hand-written
-- code would; statement level, so that a bulk load pays once (and without nested loops: the plan for one row is kept for
-- a session, and would be quadratic for many). A posting travels as an array of texts in the order of
-- `fields` (feed/database/log.py reads it back), which costs the writer a quarter of what JSON does; `was` holds the
-- `filtered` ones. New fields go to the end of either list, never between: old log rows stay readable.
CREATE FUNCTION attach(target regclass, columns jsonb, unwatched text[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $outer$
DECLARE
  fields constant text[] := ARRAY['id', 'source', 'external_id', 'title', 'company', 'url', 'location', 'country',
    'workplace', 'employment_type', 'seniority', 'tags', 'salary_min', 'salary_max', 'currency', 'salary_period',
    'latitude', 'longitude', 'posted_at', 'valid_through', 'version', 'updated_at', 'closed_at'];
  filtered constant text[] := ARRAY['title', 'company', 'location', 'country', 'workplace', 'employment_type', 'seniority',
    'tags', 'salary_min', 'salary_max', 'currency', 'salary_period', 'latitude', 'longitude'];
  capture constant text := 'capture_' || target::text;  -- with its schema, where that is not ours
  -- Where an UPDATE may change the id: the old posting closes, the new one is posted.
  renamed constant text := $code$
        UNION ALL
        SELECT 'closed', 'deleted', ARRAY[{whole o}], NULL FROM old_rows o
         WHERE NOT EXISTS (SELECT FROM new_rows n WHERE {key n} = {key o})
        UNION ALL
        SELECT CASE WHEN {closed n} IS NULL THEN 'posted' ELSE 'closed' END,
               CASE WHEN {closed n} IS NOT NULL THEN 'closed' END, ARRAY[{whole n}], NULL FROM new_rows n
         WHERE NOT EXISTS (SELECT FROM old_rows o WHERE {key n} = {key o})$code$;
  code text; alias text; listed text; filters text;
BEGIN
  IF NOT columns ?& ARRAY['id', 'title', 'company', 'url'] THEN
    RAISE 'attach: % needs columns for id, title, company and url', target;
  END IF;
  code := $code$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO inbox (kind, reason, job)
        SELECT CASE WHEN {closed r} IS NULL THEN 'posted' ELSE 'closed' END,
               CASE WHEN {closed r} IS NOT NULL THEN coalesce(nullif(current_setting('feed.reason', true), ''), 'closed') END,
               ARRAY[{whole r}]
          FROM new_rows r;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO inbox (kind, reason, job, was)
        SELECT c.kind,
               CASE c.kind WHEN 'closed' THEN coalesce(nullif(current_setting('feed.reason', true), ''), 'closed') END,
               ARRAY[{whole n}],
               CASE WHEN ({matched n}) IS DISTINCT FROM ({matched o}) THEN ARRAY[{was o}] END
          FROM new_rows n JOIN old_rows o ON {key n} = {key o}
          CROSS JOIN LATERAL (SELECT CASE
            WHEN {closed o} IS NULL AND {closed n} IS NOT NULL THEN 'closed'
            WHEN {closed o} IS NOT NULL AND {closed n} IS NULL THEN 'posted'
            WHEN ({content n}) IS DISTINCT FROM ({content o}) THEN 'updated' END AS kind) c
         WHERE c.kind IS NOT NULL{renamed};
      ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO inbox (kind, reason, job)
        SELECT 'closed', 'deleted', ARRAY[{whole r}] FROM old_rows r;
      ELSE
        INSERT INTO inbox (kind, reason, job)
        SELECT 'closed', 'deleted', ARRAY[{whole r}] FROM {target} r;
      END IF;
      IF FOUND THEN PERFORM ring(); END IF;
      RETURN NULL;
    END $code$;
  code := replace(code, '{renamed}', (SELECT CASE WHEN a.attidentity = 'a' THEN '' ELSE renamed END
    FROM pg_attribute a WHERE a.attrelid = target AND a.attname = columns ->> 'id'));
  FOREACH alias IN ARRAY ARRAY['r', 'n', 'o'] LOOP
    SELECT string_agg(t.piece, ', ' ORDER BY n), string_agg(t.piece, ', ' ORDER BY array_position(filtered, f))
             FILTER (WHERE f = ANY (filtered)) INTO listed, filters
      FROM unnest(fields) WITH ORDINALITY AS u(f, n) CROSS JOIN LATERAL (SELECT CASE
        WHEN NOT columns ? f THEN 'NULL::text'
        WHEN f IN ('id', 'tags') THEN format('to_json(%s.%I)::text', alias, columns ->> f)
        ELSE format('%s.%I::text', alias, columns ->> f) END AS piece) t;
    code := replace(code, format('{whole %s}', alias), listed);
    code := replace(code, format('{was %s}', alias), filters);
    SELECT string_agg(format('%s.%I', alias, columns ->> f), ', ' ORDER BY n) INTO listed
      FROM unnest(filtered) WITH ORDINALITY AS u(f, n) WHERE columns ? f;
    code := replace(code, format('{matched %s}', alias), listed);
    SELECT string_agg(format('%s.%I', alias, a.attname), ', ' ORDER BY a.attnum) INTO listed FROM pg_attribute a
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (unwatched);
    code := replace(code, format('{content %s}', alias), listed);
    code := replace(code, format('{closed %s}', alias),
                    CASE WHEN columns ? 'closed_at' THEN format('%s.%I', alias, columns ->> 'closed_at')
                    ELSE 'NULL::timestamptz' END);
    code := replace(code, format('{key %s}', alias), format('%s.%I', alias, columns ->> 'id'));
  END LOOP;
  code := replace(code, '{target}', target::text);
  EXECUTE format('CREATE OR REPLACE FUNCTION %I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = %s SET TimeZone = %L SET DateStyle = %L SET extra_float_digits = 1 SET jit = off
    SET enable_nestloop = off AS %L', capture, current_setting('search_path'), 'UTC', 'ISO, YMD', code);
  -- It runs with its owner's rights: nobody else may hang it on a table of his own, whose types bring code along.
  -- Firing a trigger asks for no right to execute it.
  EXECUTE format('REVOKE ALL ON FUNCTION %I() FROM PUBLIC', capture);

  EXECUTE format('CREATE TRIGGER feed_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, capture);
  EXECUTE format('CREATE TRIGGER feed_update AFTER UPDATE ON %s REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, capture);
  EXECUTE format('CREATE TRIGGER feed_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, capture);
  EXECUTE format('CREATE TRIGGER feed_truncate BEFORE TRUNCATE ON %s
    FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, capture);
END $outer$;

-- Write a canary: an event that takes the whole way and is sent to no subscriber. It shows how long the way takes.
CREATE FUNCTION canary() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO inbox (kind, job) VALUES ('canary', '{}');
  PERFORM ring();
END $$;

REVOKE ALL ON FUNCTION attach(regclass, jsonb, text[]), ring(), canary() FROM PUBLIC;

SELECT attach('job', (SELECT jsonb_object_agg(attname, attname) FROM pg_attribute
  WHERE attrelid = 'job'::regclass AND attnum > 0 AND NOT attisdropped), ARRAY['version', 'updated_at']);
