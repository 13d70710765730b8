-- Capture, made anew. The feed's own table `job` alone has this trigger: a table of somebody else's is mirrored into `job`
-- (0010_attach.sql). New are a description in HTML; postings that are told as backfill; and writes of the mirror, which
-- makes its events itself.

-- The description as HTML, beside the plain text. Plain SQL may write anything here: who reads it gets it sanitised.
ALTER TABLE job ADD COLUMN description_html text CHECK (octet_length(description_html) <= 1048576);

DROP FUNCTION attach(regclass, jsonb, text[]);

-- Write the code of the capture trigger for the columns that `job` has now. It is generated, so that it costs what
-- hand-written code would; statement level, so that a bulk load pays once (and without nested loops: the plan for one row is
-- kept for a session, and would be quadratic for many). A posting travels as an array of texts in the order of `fields`
-- (feed/database/log.py reads it back), which costs the writer a quarter of what JSON does; `was` holds the `filtered` ones.
-- New fields go to the end of either list, never between: old log rows stay readable. Call it again after a change of `job`.
CREATE FUNCTION make_capture() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $outer$
DECLARE
  fields constant text[] := ARRAY['id', 'source', 'external_id', 'title', 'company', 'url', 'location', 'country',
    'workplace', 'employment_type', 'seniority', 'tags', 'salary_min', 'salary_max', 'currency', 'salary_period',
    'latitude', 'longitude', 'posted_at', 'valid_through', 'version', 'updated_at', 'closed_at'];
  filtered constant text[] := ARRAY['title', 'company', 'location', 'country', 'workplace', 'employment_type', 'seniority',
    'tags', 'salary_min', 'salary_max', 'currency', 'salary_period', 'latitude', 'longitude'];
  code text; alias text; listed text;
BEGIN
  code := $code$
    DECLARE
      first bigint; rest bigint; nested boolean;
      why text := nullif(current_setting('feed.reason', true), '');
      backfill text := CASE WHEN current_setting('feed.backfill', true) = 'on' THEN 'backfill' END;
    BEGIN
      IF pg_trigger_depth() > 1 OR current_setting('feed.nested', true) <> '' THEN
        nested := true; first := nextval('inbox_id_seq');
      END IF;
      IF TG_OP = 'INSERT' THEN
        INSERT INTO inbox (kind, reason, job, nested)
        SELECT CASE WHEN r.closed_at IS NULL THEN 'posted' ELSE 'closed' END,
               CASE WHEN r.closed_at IS NULL THEN backfill ELSE coalesce(backfill, why, 'closed') END, ARRAY[{whole r}], nested
          FROM new_rows r;
      ELSIF TG_OP = 'UPDATE' THEN
        -- Rows are paired by their ids. An id without an old row is a new posting, and one without a new row is gone.
        INSERT INTO inbox (kind, reason, job, was, nested)
        SELECT c.kind,
               CASE WHEN n.id IS NULL THEN 'deleted' WHEN c.kind = 'closed' THEN coalesce(why, 'closed') END,
               CASE WHEN n.id IS NULL THEN ARRAY[{whole o}] ELSE ARRAY[{whole n}] END,
               CASE WHEN n.id = o.id AND ({matched n}) IS DISTINCT FROM ({matched o}) THEN ARRAY[{was o}] END, nested
          FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
          CROSS JOIN LATERAL (SELECT CASE
            WHEN n.id IS NULL THEN 'closed'
            WHEN o.id IS NULL THEN CASE WHEN n.closed_at IS NULL THEN 'posted' ELSE 'closed' END
            WHEN o.closed_at IS NULL AND n.closed_at IS NOT NULL THEN 'closed'
            WHEN o.closed_at IS NOT NULL AND n.closed_at IS NULL THEN 'posted'
            WHEN ({content n}) IS DISTINCT FROM ({content o}) THEN 'updated' END AS kind) c
         WHERE c.kind IS NOT NULL;
      ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO inbox (kind, reason, job, nested)
        SELECT 'closed', 'deleted', ARRAY[{whole r}], nested FROM old_rows r;
      ELSE
        first := nextval('inbox_id_seq');
        INSERT INTO inbox (kind, reason, job, nested)
        SELECT 'closed', 'deleted', ARRAY[{whole r}], nested FROM job r;
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
          rest := reserve_ids();
          INSERT INTO truncation (first, rest, head) SELECT first, rest, s.head FROM state s;
          INSERT INTO inbox (kind, job) VALUES ('truncated', '{}');  -- advance() looks for new rows here
        END IF;
      END IF;
      IF FOUND THEN PERFORM ring(); END IF;
      IF nested AND TG_OP = 'INSERT' THEN
        PERFORM settle(first, TG_OP, NULL, ARRAY(
          SELECT to_json(r.id)::text FROM new_rows r WHERE (SELECT count(*) FROM job t WHERE t.id = r.id) > 0));
      ELSIF nested THEN
        PERFORM settle(first, TG_OP, NULL, NULL);
      END IF;
      RETURN NULL;
    END $code$;
  FOREACH alias IN ARRAY ARRAY['r', 'n', 'o'] LOOP
    SELECT string_agg(CASE WHEN f IN ('id', 'tags') THEN format('to_json(%s.%I)::text', alias, f)
                      ELSE format('%s.%I::text', alias, f) END, ', ' ORDER BY n) INTO listed
      FROM unnest(fields) WITH ORDINALITY AS u(f, n);
    code := replace(code, format('{whole %s}', alias), listed);
    SELECT string_agg(CASE WHEN f = 'tags' THEN format('to_json(%s.%I)::text', alias, f)
                      ELSE format('%s.%I::text', alias, f) END, ', ' ORDER BY n) INTO listed
      FROM unnest(filtered) WITH ORDINALITY AS u(f, n);
    code := replace(code, format('{was %s}', alias), listed);
    SELECT string_agg(format('%s.%I', alias, f), ', ' ORDER BY n) INTO listed
      FROM unnest(filtered) WITH ORDINALITY AS u(f, n);
    code := replace(code, format('{matched %s}', alias), listed);
    SELECT string_agg(format('%s.%I', alias, a.attname), ', ' ORDER BY a.attnum) INTO listed FROM pg_attribute a
     WHERE a.attrelid = 'job'::regclass AND a.attnum > 0 AND NOT a.attisdropped
       AND a.attname NOT IN ('version', 'updated_at', 'mirror_hash');    -- whose change alone is no news
    code := replace(code, format('{content %s}', alias), listed);
  END LOOP;
  EXECUTE format('CREATE OR REPLACE FUNCTION capture_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = %s SET TimeZone = %L SET DateStyle = %L SET extra_float_digits = 1 SET jit = off
    SET enable_nestloop = off AS %L', current_setting('search_path'), 'UTC', 'ISO, YMD', code);
END $outer$;

-- The code runs with its owner's rights: nobody else may hang it on a table of his own, whose types bring code along. Firing
-- a trigger asks for no right to execute it.
REVOKE ALL ON FUNCTION make_capture() FROM PUBLIC;
SELECT make_capture();

-- The mirror's own writes are left out (see mirror() in 0010_attach.sql).
DROP TRIGGER feed_insert ON job;
DROP TRIGGER feed_update ON job;
DROP TRIGGER feed_delete ON job;
CREATE TRIGGER feed_insert AFTER INSERT ON job REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
  WHEN (current_setting('feed.mirror', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION capture_job();
CREATE TRIGGER feed_update AFTER UPDATE ON job REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows FOR EACH STATEMENT
  WHEN (current_setting('feed.mirror', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION capture_job();
CREATE TRIGGER feed_delete AFTER DELETE ON job REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
  WHEN (current_setting('feed.mirror', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION capture_job();
