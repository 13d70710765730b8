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
DECLARE
  first constant timestamptz := '0001-01-01 00:00:00Z';
  last constant timestamptz := '9999-12-31 23:59:59Z';   -- what RFC 3339 can write
  ends timestamptz;
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
  j.posted_at := coalesce(CASE WHEN p[19]::timestamptz BETWEEN first AND last THEN p[19]::timestamptz END, old.posted_at, at);
  j.valid_through := CASE WHEN p[20]::timestamptz BETWEEN first AND last THEN p[20]::timestamptz END;
  IF p[23] <> 'true' THEN
    ends := p[23]::timestamptz;
    IF ends > at THEN                                  -- it is open until then
      j.valid_through := least(j.valid_through, CASE WHEN ends <= last THEN ends END);
    END IF;
  END IF;
  IF p[23] = 'true' OR ends <= at OR j.valid_through < at THEN
    j.closed_at := coalesce(CASE WHEN ends BETWEEN first AND at THEN ends END, old.closed_at, at);
  END IF;
  j.description := CASE WHEN octet_length(p[24]) <= 1048576 THEN p[24] ELSE left(p[24], 262144) END;
  j.description_html := CASE WHEN octet_length(p[25]) <= 1048576 THEN p[25] END;
END $$;

-- Bring the mirror of some rows of an attached table up to date, and return the events that this makes, with the number of the
-- row in `changed`; of rows with the same key, the last counts. All of them are written by one statement, since the checks of
-- `job` are what a single one costs. Only the holder of the lock on `state` may call it, with feed.mirror = on, by which
-- job's own trigger leaves these writes alone.
CREATE FUNCTION mirror(a attachment, changed inbox[], first_time boolean)
RETURNS TABLE (number integer, kind text, reason text, at timestamptz, job text[], was text[]) LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  keys text[] := ARRAY(SELECT c.job[1] FROM unnest(changed) WITH ORDINALITY c ORDER BY c.ordinality);
  ids bigint[] := ARRAY(SELECT (SELECT o.id FROM job o WHERE o.source = a.source AND o.external_id = k) FROM unnest(keys) k);
BEGIN
  -- Planned once, when `job` may be small: whatever its size becomes, it is read by these keys and ids alone.
  RETURN QUERY WITH r AS MATERIALIZED (
    SELECT u.number, u.at, u.job AS p, o.old, f.j AS made, f.why
      FROM (SELECT DISTINCT ON (c.job[1]) c.ordinality::integer AS number, c.at, c.job
              FROM unnest(changed) WITH ORDINALITY c ORDER BY c.job[1], c.ordinality DESC) u
      LEFT JOIN LATERAL (
        SELECT j AS old FROM job j WHERE j.source = a.source AND j.external_id = u.job[1] LIMIT 1) o ON true
      LEFT JOIN LATERAL fitted(a, o.old, u.job, u.at) f ON cardinality(u.job) > 1),
  worse AS (
    INSERT INTO attachment_bad AS b (attachment, key, why)
    SELECT DISTINCT ON (2) a.id, left(r.p[1], 500), r.why FROM r WHERE r.why IS NOT NULL
     LIMIT greatest(0, 1000 - (SELECT count(*) FROM attachment_bad c WHERE c.attachment = a.id))
    ON CONFLICT (attachment, key) DO UPDATE SET why = excluded.why, at = excluded.at),
  better AS (
    DELETE FROM attachment_bad b USING r WHERE r.why IS NULL AND b.attachment = a.id AND b.key = r.p[1]),
  gone AS (
    DELETE FROM job j USING r WHERE j.id = ANY (ids) AND j.id = (r.old).id AND (r.made).title IS NULL
    RETURNING r.number, j AS old),
  new AS (
    INSERT INTO job AS j (source, external_id, title, company, url, location, country, workplace, employment_type, seniority,
      tags, salary_min, salary_max, currency, salary_period, latitude, longitude, posted_at, valid_through, closed_at,
      description, description_html, mirror_hash)
    SELECT (r.made).source, (r.made).external_id, (r.made).title, (r.made).company, (r.made).url, (r.made).location,
      (r.made).country, (r.made).workplace, (r.made).employment_type, (r.made).seniority, (r.made).tags, (r.made).salary_min,
      (r.made).salary_max, (r.made).currency, (r.made).salary_period, (r.made).latitude, (r.made).longitude,
      (r.made).posted_at, (r.made).valid_through, (r.made).closed_at, (r.made).description, (r.made).description_html,
      mirror_hash(a.id, r.p)
      FROM r WHERE (r.old).id IS NULL AND (r.made).title IS NOT NULL ORDER BY r.number
    RETURNING j AS made, array_position(keys, j.external_id) AS number),
  other AS (
    UPDATE job j SET title = (r.made).title, company = (r.made).company, url = (r.made).url, location = (r.made).location,
        country = (r.made).country, workplace = (r.made).workplace, employment_type = (r.made).employment_type,
        seniority = (r.made).seniority, tags = (r.made).tags, salary_min = (r.made).salary_min,
        salary_max = (r.made).salary_max, currency = (r.made).currency, salary_period = (r.made).salary_period,
        latitude = (r.made).latitude, longitude = (r.made).longitude, posted_at = (r.made).posted_at,
        valid_through = (r.made).valid_through, closed_at = (r.made).closed_at, description = (r.made).description,
        description_html = (r.made).description_html, mirror_hash = mirror_hash(a.id, r.p)
      FROM r
     WHERE j.id = ANY (ids) AND j.id = (r.old).id AND (r.made).title IS NOT NULL
       AND (j.title, j.company, j.url, j.location, j.country, j.workplace, j.employment_type, j.seniority, j.tags,
            j.salary_min, j.salary_max, j.currency, j.salary_period, j.latitude, j.longitude, j.posted_at, j.valid_through,
            j.closed_at, j.description, j.description_html)
           IS DISTINCT FROM
           ((r.made).title, (r.made).company, (r.made).url, (r.made).location, (r.made).country, (r.made).workplace,
            (r.made).employment_type, (r.made).seniority, (r.made).tags, (r.made).salary_min, (r.made).salary_max,
            (r.made).currency, (r.made).salary_period, (r.made).latitude, (r.made).longitude, (r.made).posted_at,
            (r.made).valid_through, (r.made).closed_at, (r.made).description, (r.made).description_html)
    RETURNING r.number, r.old, j AS made, r.p[23] IS NULL AND j.valid_through < r.at AS expired)
  SELECT e.number, e.kind, e.reason, changed[e.number].at, e.job, CASE WHEN e.was IS DISTINCT FROM e.matched THEN e.was END
    FROM (
      SELECT g.number, 'closed' AS kind, 'deleted' AS reason, texts(g.old) AS job, NULL::text[] AS was,
             NULL::text[] AS matched
        FROM gone g
      UNION ALL
      SELECT n.number, CASE WHEN (n.made).closed_at IS NULL THEN 'posted' ELSE 'closed' END,
             CASE WHEN first_time THEN 'backfill' WHEN (n.made).closed_at IS NOT NULL THEN 'closed' END, texts(n.made),
             NULL, NULL
        FROM new n
      UNION ALL
      SELECT o.number,
             CASE WHEN (o.old).closed_at IS NULL AND (o.made).closed_at IS NOT NULL THEN 'closed'
                  WHEN (o.old).closed_at IS NOT NULL AND (o.made).closed_at IS NULL THEN 'posted' ELSE 'updated' END,
             CASE WHEN (o.old).closed_at IS NULL AND (o.made).closed_at IS NOT NULL THEN
               CASE WHEN o.expired THEN 'expired' ELSE 'closed' END END,
             texts(o.made), filtered_texts(o.old), filtered_texts(o.made)
        FROM other o) e
   ORDER BY e.number;
END $$;

-- Turn rows of the inbox, in their order, into events. A table that was emptied has up to `most` of its postings closed; if
-- there are more, that row and all behind it go back into the inbox.
CREATE FUNCTION unfold(taken inbox[], most integer DEFAULT 5000)
RETURNS TABLE (kind text, reason text, at timestamptz, job text[], was text[])
LANGUAGE plpgsql SET search_path FROM CURRENT SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET extra_float_digits = 1 AS $$
#variable_conflict use_column
DECLARE
  i inbox; a attachment; number integer := 0; since integer; keys text[] := '{}'; closed integer; old job;
BEGIN
  IF taken IS NULL THEN RETURN; END IF;
  PERFORM set_config('feed.mirror', 'on', true);
  FOREACH i IN ARRAY taken LOOP
    number := number + 1;
    -- Rows of one table that follow one another, each key once, are mirrored together; 200 at most, as each is
    -- compared with each.
    IF since IS NOT NULL AND (i.origin IS DISTINCT FROM a.id::oid OR cardinality(i.job) = 0 OR i.job[1] = ANY (keys)
                              OR number - since = 200) THEN
      RETURN QUERY SELECT m.kind, m.reason, m.at, m.job, m.was FROM mirror(a, taken[since:number - 1], false) m;
      since := NULL; keys := '{}';
    END IF;
    IF i.origin IS NULL THEN
      kind := i.kind; reason := i.reason; at := i.at; job := i.job; was := i.was;
      RETURN NEXT;
      CONTINUE;
    END IF;
    IF a.id IS DISTINCT FROM i.origin::integer THEN
      SELECT t.* INTO a FROM attachment t WHERE t.id = i.origin::integer;
    END IF;
    CONTINUE WHEN a.id IS NULL;                        -- it was detached meanwhile
    IF cardinality(i.job) > 0 THEN
      since := coalesce(since, number); keys := array_append(keys, i.job[1]);
      CONTINUE;
    END IF;
    at := i.at;
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
  IF since IS NOT NULL THEN
    RETURN QUERY SELECT m.kind, m.reason, m.at, m.job, m.was FROM mirror(a, taken[since:], false) m;
  END IF;
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
  st state; a attachment; r record; e record; now timestamptz; i inbox; found inbox[] := '{}';
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
    CONTINUE WHEN NOT r.known AND (NOT a.backfill OR cardinality(r.posting) = 1);
    i.job := r.posting; i.at := now;
    found := array_append(found, i);
  END LOOP;
  FOR e IN SELECT m.* FROM generate_series(1, cardinality(found), 200) n
      CROSS JOIN LATERAL mirror(a, found[n:n + 199], a.compared_at IS NULL) m LOOP
    made := made + 1;
    INSERT INTO log (position, kind, reason, at, captured_at, job, was)
    VALUES (st.head + made, e.kind, e.reason, now, now, e.job, e.was);
  END LOOP;
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
  mirror(attachment, inbox[], boolean), unfold(inbox[], integer), reconcile(integer, text, text[], integer),
  expire_mirrored(integer), mirror_hash(integer, text[]), guard_mirrored(), doubt_all() FROM PUBLIC;
