-- Access: keys, tickets, and the revocations that every process must hear of.

-- A key's secret is 190 random bits: one round of SHA-256 keeps it, since there is nothing to guess.
CREATE TABLE api_key (
  id          text PRIMARY KEY,
  digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
  scope       text NOT NULL CHECK (scope IN ('read', 'write', 'admin', 'metrics')),
  filter      text NOT NULL DEFAULT '',                -- a query string: the part of the feed that its holder sees
  max_streams integer CHECK (max_streams > 0),
  note        text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at  timestamptz,
  revoked_at  timestamptz
);

-- A ticket opens one stream; `holder` is the grant of whoever asked for it.
CREATE TABLE ticket (
  digest      bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
  holder      jsonb NOT NULL,
  filter      text NOT NULL,                           -- what it was asked for, as a query string
  expires_at  timestamptz NOT NULL,
  redeemed_at timestamptz,
  address     text,                                    -- of the first use
  position    bigint,                                  -- where its stream began: what comes back is not before it
  resume_until timestamptz
);
CREATE INDEX ticket_expiry ON ticket (coalesce(resume_until, expires_at));

-- What ended before its time. Every process reads the newest of these once a second.
CREATE TABLE revocation (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind    text NOT NULL CHECK (kind IN ('key', 'subject', 'token', 'session', 'stream')),
  subject text NOT NULL,
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  until   timestamptz NOT NULL DEFAULT 'infinity'      -- it can be forgotten: what it names has expired by itself
);
CREATE INDEX revocation_at ON revocation (at);
CREATE INDEX revocation_subject ON revocation (kind, subject);

-- What signs sessions: the same for all processes, and gone with the database.
CREATE TABLE secret (
  one     boolean PRIMARY KEY DEFAULT true CHECK (one),
  session bytea NOT NULL DEFAULT sha256(decode(
    replace(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'))
);
INSERT INTO secret DEFAULT VALUES;
