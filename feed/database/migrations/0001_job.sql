-- The files of this folder follow an event on its way: a posting is written (0001), captured into the inbox (0002), and
-- sequenced into the log (0003). Each file runs once, in a transaction of its own, with `search_path` set to the feed's
-- schema; functions pin that path with SET search_path FROM CURRENT.

-- The postings. Any client may write here with plain SQL; the triggers of 0002_capture.sql make the events.
CREATE TABLE job (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source          text NOT NULL DEFAULT 'sql' CHECK (length(source) BETWEEN 1 AND 200),
  external_id     text CHECK (length(external_id) BETWEEN 1 AND 500),
  title           text NOT NULL CHECK (length(title) BETWEEN 1 AND 1000),
  company         text NOT NULL CHECK (length(company) BETWEEN 1 AND 500),
  url             text NOT NULL CHECK (length(url) BETWEEN 1 AND 4000),
  location        text CHECK (length(location) <= 4000),
  country         text CHECK (length(country) <= 200),
  workplace       text CHECK (workplace IN ('onsite', 'hybrid', 'remote')),
  employment_type text CHECK (length(employment_type) <= 200),
  seniority       text CHECK (length(seniority) <= 200),
  tags            text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 100 AND array_position(tags, NULL) IS NULL),
  salary_min      numeric(14, 2) CHECK (salary_min BETWEEN 0 AND 999999999999),
  salary_max      numeric(14, 2) CHECK (salary_max BETWEEN 0 AND 999999999999),
  currency        text CHECK (currency ~ '^[A-Z]{3}$'),
  salary_period   text CHECK (salary_period IN ('year', 'month', 'week', 'day', 'hour')),
  description     text CHECK (octet_length(description) <= 1048576),
  latitude        double precision CHECK (latitude BETWEEN -90 AND 90),
  longitude       double precision CHECK (longitude BETWEEN -180 AND 180),
  posted_at       timestamptz NOT NULL DEFAULT now() CHECK (isfinite(posted_at)),
  valid_through   timestamptz CHECK (isfinite(valid_through)),
  version         integer NOT NULL DEFAULT 1,
  updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed_at       timestamptz CHECK (isfinite(closed_at)),
  UNIQUE (source, external_id),
  CHECK ((latitude IS NULL) = (longitude IS NULL)),
  CHECK (salary_min <= salary_max)
);
CREATE INDEX job_open ON job (id) WHERE closed_at IS NULL;
CREATE INDEX job_expiry ON job (valid_through) WHERE closed_at IS NULL AND valid_through IS NOT NULL;

-- A change of content makes the next version; a write that changes nothing leaves version and time alone. Triggers fire in
-- the order of their names' bytes, and this one has to see what the others made of the row, so its name is one that sorts
-- behind any other in ASCII.
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := OLD.version;
  NEW.updated_at := OLD.updated_at;
  IF NEW IS DISTINCT FROM OLD THEN
    NEW.version := OLD.version + 1;
    NEW.updated_at := clock_timestamp();
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER "~feed_stamp" BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION stamp();
