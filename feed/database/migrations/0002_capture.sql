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
  was    text[],
  origin oid,                                          -- the table, where it is not the feed's own `job`
  nested boolean                                       -- settle() may have to put it in order; null: it is
);
CREATE INDEX inbox_nested ON inbox (id) WHERE nested;
CREATE INDEX inbox_xid ON inbox (xid);                 -- only the xid, so that a bulk load's rows share one entry

-- A TRUNCATE in a transaction that reads by an old snapshot (REPEATABLE READ, SERIALIZABLE) removes rows that the
-- transaction does not see. Its trigger can therefore close only the others, and notes here what advance() needs in order
-- to find the rest; see close_truncated() in 0003_log.sql.
CREATE TABLE truncation (
  xid    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  origin oid,
  first  bigint NOT NULL,                              -- the trigger's own events have ids from here to `rest`
  rest   bigint NOT NULL,                              -- from here on, 2^31 ids are free for the events of the others
  head   bigint NOT NULL                               -- of the log, as the transaction's snapshot sees it
);

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

-- Skip 2^32 ids of the inbox and return one in the middle: ids from there on, 2^31 of them, are nobody else's. Of two that
-- skip at the same time, the second must not set the sequence back.
CREATE FUNCTION reserve_ids() RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  id bigint;
BEGIN
  PERFORM pg_advisory_lock(hashtext('feed reserve_ids'), hashtext(current_schema()));
  id := nextval('inbox_id_seq') + 2147483648;
  PERFORM setval('inbox_id_seq', id + 2147483648);
  PERFORM pg_advisory_unlock(hashtext('feed reserve_ids'), hashtext(current_schema()));
  RETURN id;
END $$;

-- Statements within statements. A user's trigger for each row of a table of postings may write to the table itself. Its
-- statement is captured when it ends, which is before the statement that fired the trigger ends and is captured: what the
-- inner one did would precede what it was done to. settle() puts that right, among the events of one posting in one
-- transaction; no other transaction writes to the posting between them, since its row is locked.
-- (A function that the outer statement calls itself, as in RETURNING, is no trigger and is not noticed.)
--
-- For that, `feed.nested` keeps what the transaction's nested statements left: a text of an inbox id, where one is known,
-- for each statement that goes on, with "b" between them where a statement began. While no trigger writes, it is empty:
-- a statement then costs a look at it and at the trigger depth, and no call. A text that is not empty is ours, since the
-- setting is local to the transaction, and a savepoint that is rolled back takes its part along.
CREATE FUNCTION nest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('feed.nested', current_setting('feed.nested') || 'b', true);
  RETURN NULL;
END $$;

-- Put the events of a statement that has just been captured before those of the statements within it, posting by posting,
-- and leave in `feed.nested` that the statement has ended. `mark` is an inbox id from before its events; `lasting` are the
-- ids, as the events name them, of the postings that an INSERT made and that still exist.
--
-- What an UPDATE or a DELETE did to a row came first: Postgres refuses to change a row that a statement within has changed
-- before. An INSERT came first as well, unless a statement within deleted an older row of the same id to make room for it
-- (a BEFORE trigger may). Such a deletion is one after which the posting exists although no statement within posted it;
-- of one that does not exist in the end, the last deletion came after the INSERT.
CREATE FUNCTION settle(mark bigint, operation text, source oid, lasting text[]) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_nestloop = off AS $$
DECLARE
  stack text[] := string_to_array(coalesce(current_setting('feed.nested', true), ''), 'b');
  top integer; inner_first bigint; own text := '';
  me constant text := pg_current_xact_id();            -- compared as a text: only the index by id then serves, never inbox_xid
BEGIN
  IF cardinality(stack) = 0 THEN stack := ARRAY['']; END IF;
  top := cardinality(stack);
  inner_first := nullif(stack[top], '')::bigint;
  IF inner_first IS NOT NULL AND operation <> 'TRUNCATE' THEN
    WITH written AS (
      SELECT i.id, i.kind, i.reason, i.at, i.job, i.was, i.job[1] AS posting, i.id > mark AS outermost
        FROM inbox i
       WHERE i.nested AND i.xid::text = me AND i.id >= inner_first AND i.origin IS NOT DISTINCT FROM source),
    concerned AS (
      SELECT w.*, w.posting IN (SELECT unnest(lasting)) AS lasts,
             lead(w.kind) OVER (PARTITION BY w.posting, w.outermost ORDER BY w.id) AS next,
             bool_and(w.outermost) OVER (PARTITION BY w.posting) OR NOT bool_or(w.outermost) OVER (PARTITION BY w.posting)
               AS settled
        FROM written w),
    cut AS (
      SELECT c.*, CASE WHEN NOT c.outermost THEN c.id WHEN operation = 'INSERT' THEN coalesce(max(c.id) FILTER (
               WHERE NOT c.outermost AND c.kind = 'closed' AND c.reason = 'deleted' AND c.next IS DISTINCT FROM 'posted'
                 AND (c.lasts OR c.next IS NOT NULL)) OVER (PARTITION BY c.posting), 0) ELSE 0 END AS place
        FROM concerned c WHERE NOT c.settled),
    numbered AS (
      SELECT c.*, row_number() OVER (PARTITION BY c.posting ORDER BY c.place, c.outermost, c.id) AS number,
             row_number() OVER (PARTITION BY c.posting ORDER BY c.id) AS slot
        FROM cut c)
    UPDATE inbox i SET kind = n.kind, reason = n.reason, at = n.at, job = n.job, was = n.was
      FROM numbered s JOIN numbered n ON n.posting = s.posting AND n.number = s.slot
     WHERE i.nested AND i.xid::text = me AND i.id >= inner_first AND i.id = s.id AND n.id <> s.id;
  END IF;
  IF pg_trigger_depth() > 1 THEN own := mark::text; END IF;
  IF top > 1 AND operation <> 'TRUNCATE' THEN
    stack := stack[:top - 2] || coalesce(nullif(stack[top - 1], ''), nullif(stack[top], ''), own);
  ELSE
    stack[top] := coalesce(nullif(stack[top], ''), own);
  END IF;
  PERFORM set_config('feed.nested', array_to_string(stack, 'b'), true);
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
  origin constant text := CASE WHEN target = 'job'::regclass THEN 'NULL::oid' ELSE target::oid || '::oid' END;
  code text; alias text; listed text; filters text;
BEGIN
  IF NOT columns ?& ARRAY['id', 'title', 'company', 'url'] THEN
    RAISE 'attach: % needs columns for id, title, company and url', target;
  END IF;
  code := $code$
    DECLARE
      first bigint; rest bigint; nested boolean;
    BEGIN
      IF pg_trigger_depth() > 1 OR current_setting('feed.nested', true) <> '' THEN
        nested := true; first := nextval('inbox_id_seq');
      END IF;
      IF TG_OP = 'INSERT' THEN
        INSERT INTO inbox (kind, reason, job, origin, nested)
        SELECT CASE WHEN {closed r} IS NULL THEN 'posted' ELSE 'closed' END,
               CASE WHEN {closed r} IS NOT NULL THEN coalesce(nullif(current_setting('feed.reason', true), ''), 'closed') END,
               ARRAY[{whole r}], {origin}, nested
          FROM new_rows r;
      ELSIF TG_OP = 'UPDATE' THEN
        -- Rows are paired by their ids. An id without an old row is a new posting, and one without a new row is gone.
        INSERT INTO inbox (kind, reason, job, was, origin, nested)
        SELECT c.kind,
               CASE WHEN {key n} IS NULL THEN 'deleted'
                    WHEN c.kind = 'closed' THEN coalesce(nullif(current_setting('feed.reason', true), ''), 'closed') END,
               CASE WHEN {key n} IS NULL THEN ARRAY[{whole o}] ELSE ARRAY[{whole n}] END,
               CASE WHEN {key n} = {key o} AND ({matched n}) IS DISTINCT FROM ({matched o}) THEN ARRAY[{was o}] END,
               {origin}, nested
          FROM new_rows n FULL JOIN old_rows o ON {key n} = {key o}
          CROSS JOIN LATERAL (SELECT CASE
            WHEN {key n} IS NULL THEN 'closed'
            WHEN {key o} IS NULL THEN CASE WHEN {closed n} IS NULL THEN 'posted' ELSE 'closed' END
            WHEN {closed o} IS NULL AND {closed n} IS NOT NULL THEN 'closed'
            WHEN {closed o} IS NOT NULL AND {closed n} IS NULL THEN 'posted'
            WHEN ({content n}) IS DISTINCT FROM ({content o}) THEN 'updated' END AS kind) c
         WHERE c.kind IS NOT NULL;
      ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO inbox (kind, reason, job, origin, nested)
        SELECT 'closed', 'deleted', ARRAY[{whole r}], {origin}, nested FROM old_rows r;
      ELSE
        first := nextval('inbox_id_seq');
        INSERT INTO inbox (kind, reason, job, origin, nested)
        SELECT 'closed', 'deleted', ARRAY[{whole r}], {origin}, nested FROM {target} r;
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
          rest := reserve_ids();
          INSERT INTO truncation (origin, first, rest, head) SELECT {origin}, first, rest, s.head FROM state s;
          INSERT INTO inbox (kind, job, origin) VALUES ('truncated', '{}', {origin});  -- advance() looks for new rows here
        END IF;
      END IF;
      IF FOUND THEN PERFORM ring(); END IF;
      IF nested AND TG_OP = 'INSERT' THEN
        PERFORM settle(first, TG_OP, {origin}, ARRAY(
          SELECT {name r} FROM new_rows r WHERE (SELECT count(*) FROM {target} t WHERE {key t} = {key r}) > 0));
      ELSIF nested THEN
        PERFORM settle(first, TG_OP, {origin}, NULL);
      END IF;
      RETURN NULL;
    END $code$;
  code := replace(code, '{origin}', origin);
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
    code := replace(code, format('{name %s}', alias), format('to_json(%s.%I)::text', alias, columns ->> 'id'));
  END LOOP;
  code := replace(code, '{key t}', format('t.%I', columns ->> 'id'));
  code := replace(code, '{target}', target::text);
  EXECUTE format('CREATE OR REPLACE FUNCTION %I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = %s SET TimeZone = %L SET DateStyle = %L SET extra_float_digits = 1 SET jit = off
    SET enable_nestloop = off AS %L', capture, current_setting('search_path'), 'UTC', 'ISO, YMD', code);
  -- It runs with its owner's rights: nobody else may hang it on a table of his own, whose types bring code along.
  -- Firing a trigger asks for no right to execute it.
  EXECUTE format('REVOKE ALL ON FUNCTION %I() FROM PUBLIC', capture);

  EXECUTE format('CREATE TRIGGER feed_nest BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT
    WHEN (current_setting(''feed.nested'', true) <> '''') EXECUTE FUNCTION nest()', target);
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

REVOKE ALL ON FUNCTION attach(regclass, jsonb, text[]), ring(), reserve_ids(), canary(),
  settle(bigint, text, oid, text[]) FROM PUBLIC;

SELECT attach('job', (SELECT jsonb_object_agg(attname, attname) FROM pg_attribute
  WHERE attrelid = 'job'::regclass AND attnum > 0 AND NOT attisdropped), ARRAY['version', 'updated_at']);
