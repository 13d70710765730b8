-- Attached tables: tables of somebody else's whose rows are postings, without a change of the code that writes them.
--
-- A trigger on the table leaves each changed row in the inbox, mapped to a posting's fields (feed/database/attachment_ddl.py
-- generates it). advance() mirrors it into `job` and makes the event, in the inbox's order. So attached postings have ids and
-- versions, and are listed, filtered, read, streamed and replayed as the feed's own are. What the trigger did not see, and
-- what was in the table before, is found by comparing the table with its mirror: reconcile() below.

CREATE TABLE attachment (
  id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  relation    regclass NOT NULL UNIQUE,
  source      text NOT NULL UNIQUE CHECK (length(source) BETWEEN 1 AND 200),
  spec        jsonb NOT NULL,                          -- as it was asked for: feed/model/attachment.py
  columns     jsonb NOT NULL,                          -- those that the map and the key read, by number: {"3": ["headline", "text"]}
  backfill    boolean NOT NULL,                        -- whether rows that nobody wrote since are postings, too
  attached_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  pass        jsonb,                                   -- how far a comparison with the table has come; null: none goes on
  rows        bigint NOT NULL DEFAULT 0,               -- of the table, when it was compared last
  compared_at timestamptz,                             -- when a comparison ended last; null: the first has not
  broken      text,                                    -- why it cannot be compared; null: it can
  relations   oid[] NOT NULL,                          -- the table, its partitions and children, as they were found last
  ending      boolean NOT NULL DEFAULT false           -- it is being detached
);

-- What makes a comparison necessary: a row that could not be captured, a TRUNCATE of a part, partitions that came or went.
-- Writers only append here, so that they wait for nobody.
CREATE TABLE attachment_doubt (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  attachment integer NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  why        text NOT NULL,
  looked_into boolean NOT NULL DEFAULT false           -- it was there when the comparison that goes on began
);

-- Rows that make no posting, such as those without a title: a thousand of each table at most.
CREATE TABLE attachment_bad (
  attachment integer NOT NULL REFERENCES attachment ON DELETE CASCADE,
  key        text NOT NULL,
  why        text NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (attachment, key)
);

-- A row of an attached table lies in the inbox with the kind 'mirror' and the attachment's id as its `origin`. Its `job` is the
-- key as a text and then, in the order of the log's fields (0009_capture.sql) and with `description` and `description_html`
-- at the end, what the map made of the row; `closed_at` is a time, or 'true' where none is known. The key alone means that
-- there is no posting any more, and an empty array that the table was emptied.
COMMENT ON COLUMN inbox.origin IS 'the attachment whose table it is; null: the feed''s own job';

-- What the mirrored row was when it was mirrored, as a hash: a comparison passes over rows that are still the same.
ALTER TABLE job ADD COLUMN mirror_hash bigint;
CREATE FUNCTION mirror_hash(attached integer, p text[]) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT hashtextextended(p::text, attached)
$$;

-- The functions from here to unfold() are called with the feed's schema as search_path, and with times in UTC and ISO format.

-- A posting as the log holds it, and what of it filters read.
CREATE FUNCTION texts(j job) RETURNS text[] LANGUAGE sql STABLE AS $$
  SELECT ARRAY[to_json(j.id)::text, j.source, j.external_id, j.title, j.company, j.url, j.location, j.country, j.workplace,
    j.employment_type, j.seniority, to_json(j.tags)::text, j.salary_min::text, j.salary_max::text, j.currency,
    j.salary_period, j.latitude::text, j.longitude::text, j.posted_at::text, j.valid_through::text, j.version::text,
    j.updated_at::text, j.closed_at::text]
$$;
CREATE FUNCTION filtered_texts(j job) RETURNS text[] LANGUAGE sql STABLE AS $$
  SELECT ARRAY[j.title, j.company, j.location, j.country, j.workplace, j.employment_type, j.seniority, to_json(j.tags)::text,
    j.salary_min::text, j.salary_max::text, j.currency, j.salary_period, j.latitude::text, j.longitude::text]
$$;

-- Make a posting of a mapped row, as far as `job` allows: texts that are too long are cut, values that no posting may have are
-- left out. Without a title, a company or a link there is no posting; `why` says so then.
CREATE FUNCTION fitted(a attachment, old job, p text[], at timestamptz, OUT j job, OUT why text) LANGUAGE plpgsql AS $$
BEGIN
  why := CASE
    WHEN length(p[1]) NOT BETWEEN 1 AND 500 THEN 'its key has more than 500 characters'
    WHEN btrim(coalesce(p[4], '')) = '' THEN 'it has no title'
    WHEN btrim(coalesce(p[5], '')) = '' THEN 'it has no company'
    WHEN coalesce(p[6], '') !~* '^https?://[^\s]+$' THEN 'its url is no http or https URL'
    WHEN length(p[6]) > 4000 THEN 'its url has more than 4,000 characters' END;
  IF why IS NOT NULL THEN RETURN; END IF;
  j.source := a.source; j.external_id := p[1];
  j.title := left(p[4], 1000); j.company := left(p[5], 500); j.url := p[6];
  j.location := left(nullif(p[7], ''), 4000); j.country := left(nullif(p[8], ''), 200);
  j.workplace := CASE WHEN lower(p[9]) IN ('onsite', 'hybrid', 'remote') THEN lower(p[9]) END;
  j.employment_type := left(nullif(p[10], ''), 200); j.seniority := left(nullif(p[11], ''), 200);
  j.tags := CASE WHEN p[12] IS NULL THEN '{}' ELSE ARRAY(
    SELECT left(t.tag, 200) FROM json_array_elements_text(p[12]::json) WITH ORDINALITY t(tag, n)
     WHERE btrim(t.tag) <> '' ORDER BY t.n LIMIT 100) END;
  j.salary_min := CASE WHEN p[13]::numeric BETWEEN 0 AND 999999999999 THEN p[13]::numeric END;
  j.salary_max := CASE WHEN p[14]::numeric BETWEEN 0 AND 999999999999 THEN p[14]::numeric END;
  IF j.salary_min > j.salary_max THEN j.salary_min := NULL; END IF;
  j.currency := CASE WHEN upper(btrim(p[15])) ~ '^[A-Z]{3}$' THEN upper(btrim(p[15])) END;
  j.salary_period := CASE WHEN lower(p[16]) IN ('year', 'month', 'week', 'day', 'hour') THEN lower(p[16]) END;
  IF p[17]::float8 BETWEEN -90 AND 90 AND p[18]::float8 BETWEEN -180 AND 180 THEN
    j.latitude := p[17]::float8; j.longitude := p[18]::float8;
  END IF;
  j.posted_at := coalesce(CASE WHEN isfinite(p[19]::timestamptz) THEN p[19]::timestamptz END, old.posted_at, at);
  j.valid_through := CASE WHEN isfinite(p[20]::timestamptz) THEN p[20]::timestamptz END;
  j.closed_at := CASE
    WHEN p[23] = 'true' OR NOT isfinite(p[23]::timestamptz) OR p[23] IS NULL AND j.valid_through < at
    THEN coalesce(old.closed_at, at) ELSE p[23]::timestamptz END;
  j.description := CASE WHEN octet_length(p[24]) <= 1048576 THEN p[24] ELSE left(p[24], 262144) END;
  j.description_html := CASE WHEN octet_length(p[25]) <= 1048576 THEN p[25] END;
END $$;

-- Bring the mirror of one row up to date, and return the event that this makes; `kind` is null where nothing changed. Only the
-- holder of the lock on `state` may call it, with feed.mirror = on, by which job's own trigger leaves these writes alone.
CREATE FUNCTION mirror(a attachment, p text[], at timestamptz, first_time boolean, OUT kind text, OUT reason text, OUT job text[],
                       OUT was text[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  old job; made job; why text; f record;
BEGIN
  SELECT j.* INTO old FROM job j WHERE j.source = a.source AND j.external_id = p[1];
  IF cardinality(p) > 1 THEN
    f := fitted(a, old, p, at);
    made := f.j; why := f.why;
  END IF;
  IF why IS NOT NULL THEN
    INSERT INTO attachment_bad AS b (attachment, key, why) SELECT a.id, left(p[1], 500), why
     WHERE (SELECT count(*) FROM attachment_bad c WHERE c.attachment = a.id) < 1000
    ON CONFLICT (attachment, key) DO UPDATE SET why = excluded.why, at = excluded.at;
  ELSIF EXISTS (SELECT FROM attachment_bad b WHERE b.attachment = a.id AND b.key = p[1]) THEN
    DELETE FROM attachment_bad b WHERE b.attachment = a.id AND b.key = p[1];
  END IF;
  IF made.title IS NULL THEN
    IF old.id IS NULL THEN RETURN; END IF;
    DELETE FROM job j WHERE j.id = old.id;
    kind := 'closed'; reason := 'deleted'; job := texts(old);
    RETURN;
  END IF;
  IF old.id IS NULL THEN
    INSERT INTO job AS j (source, external_id, title, company, url, location, country, workplace, employment_type, seniority,
      tags, salary_min, salary_max, currency, salary_period, latitude, longitude, posted_at, valid_through, closed_at,
      description, description_html, mirror_hash)
    VALUES (made.source, made.external_id, made.title, made.company, made.url, made.location, made.country, made.workplace,
      made.employment_type, made.seniority, made.tags, made.salary_min, made.salary_max, made.currency, made.salary_period,
      made.latitude, made.longitude, made.posted_at, made.valid_through, made.closed_at, made.description,
      made.description_html, mirror_hash(a.id, p))
    RETURNING j.* INTO made;
    kind := CASE WHEN made.closed_at IS NULL THEN 'posted' ELSE 'closed' END;
    reason := CASE WHEN first_time THEN 'backfill' WHEN made.closed_at IS NOT NULL THEN 'closed' END;
    job := texts(made);
    RETURN;
  END IF;
  IF (old.title, old.company, old.url, old.location, old.country, old.workplace, old.employment_type, old.seniority, old.tags,
      old.salary_min, old.salary_max, old.currency, old.salary_period, old.latitude, old.longitude, old.posted_at,
      old.valid_through, old.closed_at, old.description, old.description_html)
     IS NOT DISTINCT FROM
     (made.title, made.company, made.url, made.location, made.country, made.workplace, made.employment_type, made.seniority,
      made.tags, made.salary_min, made.salary_max, made.currency, made.salary_period, made.latitude, made.longitude,
      made.posted_at, made.valid_through, made.closed_at, made.description, made.description_html) THEN
    RETURN;
  END IF;
  UPDATE job j SET title = made.title, company = made.company, url = made.url, location = made.location,
      country = made.country, workplace = made.workplace, employment_type = made.employment_type,
      seniority = made.seniority, tags = made.tags, salary_min = made.salary_min, salary_max = made.salary_max,
      currency = made.currency, salary_period = made.salary_period, latitude = made.latitude, longitude = made.longitude,
      posted_at = made.posted_at, valid_through = made.valid_through, closed_at = made.closed_at,
      description = made.description, description_html = made.description_html, mirror_hash = mirror_hash(a.id, p)
   WHERE j.id = old.id RETURNING j.* INTO made;
  kind := CASE WHEN old.closed_at IS NULL AND made.closed_at IS NOT NULL THEN 'closed'
               WHEN old.closed_at IS NOT NULL AND made.closed_at IS NULL THEN 'posted' ELSE 'updated' END;
  reason := CASE WHEN kind = 'closed' THEN CASE WHEN made.valid_through < at AND p[23] IS NULL THEN 'expired' ELSE 'closed' END END;
  job := texts(made); was := filtered_texts(old);
  IF was = filtered_texts(made) THEN was := NULL; END IF;
END $$;

-- Turn rows of the inbox, in their order, into events. A table that was emptied has up to `most` of its postings closed; if
-- there are more, that row and all behind it go back into the inbox.
CREATE FUNCTION unfold(taken inbox[], most integer DEFAULT 5000)
RETURNS TABLE (kind text, reason text, at timestamptz, job text[], was text[])
LANGUAGE plpgsql SET search_path FROM CURRENT SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET extra_float_digits = 1 AS $$
#variable_conflict use_column
DECLARE
  i inbox; a attachment; number integer := 0; closed integer; old job;
BEGIN
  IF taken IS NULL THEN RETURN; END IF;
  PERFORM set_config('feed.mirror', 'on', true);
  FOREACH i IN ARRAY taken LOOP
    number := number + 1;
    at := i.at;
    IF i.origin IS NULL THEN
      kind := i.kind; reason := i.reason; job := i.job; was := i.was;
      RETURN NEXT;
      CONTINUE;
    END IF;
    IF a.id IS DISTINCT FROM i.origin::integer THEN
      SELECT t.* INTO a FROM attachment t WHERE t.id = i.origin::integer;
    END IF;
    CONTINUE WHEN a.id IS NULL;                        -- it was detached meanwhile
    IF cardinality(i.job) > 0 THEN
      SELECT m.* INTO kind, reason, job, was FROM mirror(a, i.job, i.at, false) m;
      IF kind IS NOT NULL THEN RETURN NEXT; END IF;
      CONTINUE;
    END IF;
    kind := 'closed'; reason := 'deleted'; was := NULL; closed := 0;
    FOR old IN DELETE FROM job j WHERE j.id IN (SELECT o.id FROM job o WHERE o.source = a.source LIMIT most) RETURNING j.* LOOP
      job := texts(old); closed := closed + 1;
      RETURN NEXT;
    END LOOP;
    IF closed = most THEN
      INSERT INTO inbox OVERRIDING SYSTEM VALUE SELECT t.* FROM unnest(taken[number:]) t;
      EXIT;
    END IF;
  END LOOP;
  PERFORM set_config('feed.mirror', 'off', true);
END $$;

CREATE OR REPLACE FUNCTION advance(batch integer, OUT epoch bigint, OUT head bigint, OUT moved integer, OUT more boolean,
                        OUT xmax xid8, OUT oldest timestamptz)
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
  st state; xm xid8; xi xid8[]; me text := ident(); now timestamptz; seen pg_snapshot; taken inbox[];
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
  IF NOT EXISTS (SELECT FROM attachment) THEN
    WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS snap, greatest(clock_timestamp(), st.at) AS at),
    bound AS MATERIALIZED (
      SELECT min(b.id) AS id FROM (
        (SELECT i.id FROM inbox i WHERE i.xid >= xm OR i.xid = ANY (xi) ORDER BY i.id OFFSET batch LIMIT 1)
        UNION ALL SELECT min(t.first) FROM truncation t) b),
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
             EXISTS (SELECT FROM bound b WHERE b.id IS NOT NULL) AS more, (SELECT min(d.at) FROM d) AS oldest),
    u AS (
      UPDATE state t SET head = c.head, at = s.at, epoch = st.epoch, ident = me, rescue = st.rescue AND c.more,
                         snap = CASE WHEN c.more THEN st.snap ELSE s.snap END
        FROM c, s)
    SELECT st.epoch, c.head, c.moved, c.more, pg_snapshot_xmax(s.snap), c.oldest
      INTO epoch, head, moved, more, xmax, oldest FROM c, s;
  ELSE
    -- Likewise, but what attached tables left becomes events only here: unfold() writes the mirror as well.
    WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS snap, greatest(clock_timestamp(), st.at) AS at),
    bound AS MATERIALIZED (
      SELECT min(b.id) AS id FROM (
        (SELECT i.id FROM inbox i WHERE i.xid >= xm OR i.xid = ANY (xi) ORDER BY i.id OFFSET batch LIMIT 1)
        UNION ALL SELECT min(t.first) FROM truncation t) b),
    d AS (
      DELETE FROM inbox i WHERE (i.xid >= xm OR i.xid = ANY (xi))
        AND i.id < coalesce((SELECT b.id FROM bound b), 9223372036854775807)
      RETURNING i AS row)
    SELECT s.snap, s.at, (SELECT b.id IS NOT NULL FROM bound b), (SELECT min((d.row).at) FROM d),
           (SELECT array_agg(d.row ORDER BY (d.row).id) FROM d)
      INTO seen, now, more, oldest, taken FROM s;
    INSERT INTO log (position, kind, reason, at, captured_at, job, was)
    SELECT st.head + e.number, e.kind, e.reason, now, e.at, e.job, e.was
      FROM unfold(taken) WITH ORDINALITY e(kind, reason, at, job, was, number);
    GET DIAGNOSTICS moved = ROW_COUNT;
    -- What unfold() could not do at once lies in the inbox again.
    more := more OR EXISTS (SELECT FROM inbox i WHERE i.id = taken[cardinality(taken)].id);
    epoch := st.epoch; head := st.head + moved; xmax := pg_snapshot_xmax(seen);
    UPDATE state t SET head = advance.head, at = now, epoch = st.epoch, ident = me, rescue = st.rescue AND advance.more,
                       snap = CASE WHEN advance.more THEN st.snap ELSE seen END;
  END IF;
  IF moved > 0 THEN
    PERFORM pg_notify(current_schema(), epoch || '.' || head);
  END IF;
END $$;

-- Compare rows of an attached table with their mirror, and append the events that this makes to the log. `query` returns, in the
-- order of `place`, for each row what the inbox would hold of it (null: leave it alone) and its place in the table, from
-- which the next call goes on; $1 in it is the place to go on from, and $2 the most rows. The caller commits.
--
-- The lock on `state` keeps advance() out. So of every row, what its writer left is either mirrored or in the inbox, as far as
-- the snapshot sees the writer; a row with something in the inbox is left to that. Whoever commits after the snapshot leaves
-- something in the inbox that comes later. Call it in READ COMMITTED. (Plans are kept for a session, and are made while `job` has
-- few rows: without enable_seqscan = off they would stay quadratic.) `waits` says that nothing can be compared right now.
CREATE FUNCTION reconcile(attached integer, query text, INOUT place text[], most integer, OUT read integer, OUT made integer,
                          OUT waits boolean)
LANGUAGE plpgsql SET search_path FROM CURRENT SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET extra_float_digits = 1
SET enable_seqscan = off SET jit = off AS $$
DECLARE
  st state; a attachment; r record; e record; now timestamptz; fresh inbox[] := '{}'; inserted integer;
BEGIN
  read := 0; made := 0; waits := false;
  SELECT * INTO STRICT st FROM state FOR UPDATE;
  SELECT t.* INTO STRICT a FROM attachment t WHERE t.id = attached;
  IF st.ident <> ident() OR st.rescue THEN waits := true; RETURN; END IF;
  now := greatest(clock_timestamp(), st.at);
  PERFORM set_config('feed.mirror', 'on', true);
  FOR r IN EXECUTE format(
    'SELECT CASE WHEN j.mirror_hash IS DISTINCT FROM mirror_hash(%2$s, q.posting) THEN q.posting END AS posting, q.place,
       j.id IS NOT NULL AS known, i.keys, i.emptied
       FROM (SELECT q.*, row_number() OVER () AS n FROM (%1$s) q) q LEFT JOIN job j ON j.source = %3$L AND j.external_id = q.posting[1]
       CROSS JOIN (SELECT array_agg(i.job[1]) AS keys, coalesce(bool_or(cardinality(i.job) = 0), false) AS emptied
                     FROM inbox i WHERE i.origin = %2$s) i
      ORDER BY q.n', query, attached, a.source)
    USING place, most
  LOOP
    IF r.emptied THEN waits := true; EXIT; END IF;
    read := read + 1; place := r.place;
    CONTINUE WHEN r.posting IS NULL OR r.posting[1] = ANY (r.keys);
    IF r.known THEN
      SELECT m.* INTO e FROM mirror(a, r.posting, now, a.compared_at IS NULL) m;
      CONTINUE WHEN e.kind IS NULL;
      made := made + 1;
      INSERT INTO log (position, kind, reason, at, captured_at, job, was)
      VALUES (st.head + made, e.kind, e.reason, now, now, e.job, e.was);
    ELSIF a.backfill AND cardinality(r.posting) > 1 THEN
      fresh := fresh || ROW(NULL, NULL, 'mirror', NULL, now, r.posting, NULL, NULL, NULL)::inbox;
    END IF;
  END LOOP;
  -- What is not mirrored yet, in one statement: mirror() by mirror() would take four times as long.
  WITH f AS MATERIALIZED (
    SELECT t.n, t.job AS posting, fitted(a, NULL, t.job, now) AS made
      FROM unnest(fresh) WITH ORDINALITY t(xid, id, kind, reason, at, job, was, origin, nested, n)),
  bad AS (
    INSERT INTO attachment_bad AS b (attachment, key, why) SELECT a.id, left(f.posting[1], 500), (f.made).why FROM f
     WHERE (f.made).why IS NOT NULL AND (SELECT count(*) FROM attachment_bad c WHERE c.attachment = a.id) < 1000
    ON CONFLICT (attachment, key) DO UPDATE SET why = excluded.why, at = excluded.at),
  m AS (
    INSERT INTO job AS j (source, external_id, title, company, url, location, country, workplace, employment_type, seniority,
      tags, salary_min, salary_max, currency, salary_period, latitude, longitude, posted_at, valid_through, closed_at,
      description, description_html, mirror_hash)
    SELECT x.source, x.external_id, x.title, x.company, x.url, x.location, x.country, x.workplace, x.employment_type,
      x.seniority, x.tags, x.salary_min, x.salary_max, x.currency, x.salary_period, x.latitude, x.longitude, x.posted_at,
      x.valid_through, x.closed_at, x.description, x.description_html, mirror_hash(a.id, f.posting)
      FROM f CROSS JOIN LATERAL (SELECT (f.made).j.*) x WHERE (f.made).why IS NULL ORDER BY f.n
    ON CONFLICT (source, external_id) DO NOTHING RETURNING j.id, j.closed_at IS NULL AS open, texts(j) AS job)
  INSERT INTO log (position, kind, reason, at, captured_at, job)
  SELECT st.head + made + row_number() OVER (ORDER BY m.id), CASE WHEN m.open THEN 'posted' ELSE 'closed' END,
         CASE WHEN a.compared_at IS NULL THEN 'backfill' WHEN NOT m.open THEN 'closed' END, now, now, m.job
    FROM m;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  made := made + inserted;
  PERFORM set_config('feed.mirror', 'off', true);
  IF made > 0 THEN
    UPDATE state t SET head = st.head + made, at = now;
    PERFORM pg_notify(current_schema(), st.epoch || '.' || (st.head + made));
  END IF;
END $$;

-- Close mirrored postings that are past their `valid_through`, `most` at once; return how many. This is done as reconcile()
-- does it: a posting's versions follow one another in the log because the mirror has one writer, the holder of the lock on
-- `state`. A row with something in the inbox is left to that. Call it in READ COMMITTED.
CREATE FUNCTION expire_mirrored(most integer) RETURNS integer LANGUAGE plpgsql SET search_path FROM CURRENT
SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET extra_float_digits = 1 SET jit = off AS $$
DECLARE
  st state; made job; now timestamptz; closed integer := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM job j WHERE j.closed_at IS NULL AND j.valid_through < clock_timestamp()
                 AND j.source IN (SELECT a.source FROM attachment a)) THEN
    RETURN 0;
  END IF;
  SELECT * INTO STRICT st FROM state FOR UPDATE;
  IF st.ident <> ident() OR st.rescue THEN RETURN 0; END IF;
  now := greatest(clock_timestamp(), st.at);
  PERFORM set_config('feed.mirror', 'on', true);
  FOR made IN
    UPDATE job j SET closed_at = now WHERE j.id IN (
      SELECT o.id FROM job o JOIN attachment a ON a.source = o.source
       WHERE o.closed_at IS NULL AND o.valid_through < now
         AND NOT EXISTS (SELECT FROM inbox i WHERE i.origin = a.id AND i.job[1] = o.external_id)
       ORDER BY o.valid_through LIMIT most)
    RETURNING j.*
  LOOP
    closed := closed + 1;
    INSERT INTO log (position, kind, reason, at, captured_at, job)
    VALUES (st.head + closed, 'closed', 'expired', now, now, texts(made));
  END LOOP;
  PERFORM set_config('feed.mirror', 'off', true);
  IF closed > 0 THEN
    UPDATE state t SET head = st.head + closed, at = now;
    PERFORM pg_notify(current_schema(), st.epoch || '.' || (st.head + closed));
  END IF;
  RETURN closed;
END $$;

-- The postings of an attached table are changed there, and nowhere else: make the triggers by which `job` refuses it. A feed
-- without attached tables has none of them. (What is being detached may be closed.)
CREATE FUNCTION refuse_mirrored() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  named text := CASE WHEN TG_OP = 'INSERT' THEN NEW.source ELSE OLD.source END;
BEGIN
  RAISE EXCEPTION 'postings of the source % are those of the attached table %: write there', named,
    (SELECT a.relation::text FROM attachment a WHERE a.source = named) USING ERRCODE = 'FD001';
END $$;
CREATE FUNCTION guard_mirrored() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  sources text[] := (SELECT array_agg(a.source ORDER BY a.source) FROM attachment a);
  others constant text := 'current_setting(''feed.mirror'', true) IS DISTINCT FROM ''on'''
    ' AND current_setting(''feed.detach'', true) IS DISTINCT FROM ''on''';
BEGIN
  DROP TRIGGER IF EXISTS feed_mirrored_new ON job;
  DROP TRIGGER IF EXISTS feed_mirrored ON job;
  IF sources IS NOT NULL THEN
    EXECUTE format('CREATE TRIGGER feed_mirrored_new BEFORE INSERT ON job FOR EACH ROW
      WHEN (NEW.source = ANY (%L::text[]) AND %s) EXECUTE FUNCTION refuse_mirrored()', sources, others);
    EXECUTE format('CREATE TRIGGER feed_mirrored BEFORE UPDATE OR DELETE ON job FOR EACH ROW
      WHEN (OLD.source = ANY (%L::text[]) AND %s) EXECUTE FUNCTION refuse_mirrored()', sources, others);
  END IF;
END $$;

-- TRUNCATE of `job` takes the mirrors along; they are made anew.
CREATE FUNCTION doubt_all() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO attachment_doubt (attachment, why) SELECT a.id, 'job was truncated' FROM attachment a;
  RETURN NULL;
END $$;
CREATE TRIGGER feed_truncated AFTER TRUNCATE ON job FOR EACH STATEMENT EXECUTE FUNCTION doubt_all();

REVOKE ALL ON FUNCTION texts(job), filtered_texts(job), fitted(attachment, job, text[], timestamptz),
  mirror(attachment, text[], timestamptz, boolean), unfold(inbox[], integer), reconcile(integer, text, text[], integer),
  expire_mirrored(integer), mirror_hash(integer, text[]), guard_mirrored(), doubt_all() FROM PUBLIC;
