-- Version 2: who works a site, what may be out unanswered, what is parked, what is wrong, and who is forgotten.

-- A site, and an account, belong to one process at a time, until a moment by this database's clock.
CREATE TABLE {schema}.lease (
  name       text PRIMARY KEY,               -- site ID, or account NAME
  site_id    int NOT NULL,
  epoch      bigint NOT NULL,                -- one more whenever another process takes it
  holder     text NOT NULL,                  -- host and pid
  taken_at   timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
);

-- Renews the leases of a site and its account for so many seconds; an error to whoever has lost one of them, and
-- with it the whole statement that asks. SQLSTATE KS001.
CREATE FUNCTION {schema}.renew(site int, mine bigint, for_s float8) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  renewed int;
BEGIN
  UPDATE {schema}.lease SET expires_at = clock_timestamp() + make_interval(secs => for_s)
  WHERE site_id = site AND epoch = mine;
  GET DIAGNOSTICS renewed = ROW_COUNT;
  IF renewed < 2 THEN
    RAISE EXCEPTION 'another process has taken site % or its account', site USING ERRCODE = 'KS001';
  END IF;
  RETURN true;
END $$;

-- The number of a commit, if the one before it was the last; an error to whoever makes one a second time, since
-- the answer to the first was lost, and with it the whole statement. SQLSTATE KS002.
CREATE FUNCTION {schema}.numbered(number bigint, last bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  IF number <> last + 1 THEN
    RAISE EXCEPTION 'commit % comes after commit %', number, last USING ERRCODE = 'KS002';
  END IF;
  RETURN number;
END $$;

ALTER TABLE {schema}.checkpoint
  ADD commits     bigint NOT NULL DEFAULT 0,       -- tells a commit whose answer was lost
  ADD out_txids   bigint[] NOT NULL DEFAULT '{}',  -- the events that may have been sent since this commit
  ADD out_ids     bigint[] NOT NULL DEFAULT '{}',
  ADD horizon     boolean NOT NULL DEFAULT true,   -- how the log is read: changed by a rewind only
  ADD forgotten_txid bigint,                       -- the ledger was kept from behind this position on
  ADD forgotten_id   bigint;

-- Entries that wait for an answer of ActiveCampaign which will come; the watermark has passed them by.
CREATE TABLE {schema}.parked (
  site_id    int NOT NULL,
  txid       bigint NOT NULL,
  log_id     bigint NOT NULL,
  contact_id bigint NOT NULL,
  parked_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, txid, log_id)
);

ALTER TABLE {schema}.dead_letter
  ADD replay_at    timestamptz,              -- asked for: whoever works the site replays it next
  ADD discarded_at timestamptz;              -- it stays dead, and nobody need look at it
CREATE INDEX dead_letter_asked ON {schema}.dead_letter (site_id, txid, log_id) WHERE replay_at IS NOT NULL;

-- A refused order whose fingerprint is empty is asked for again.
ALTER TABLE {schema}.sent_order ADD discarded_at timestamptz;
CREATE INDEX sent_order_refused ON {schema}.sent_order (site_id, order_id) WHERE refused <> '';

-- What is wrong just now, as the process that works the site sees it.
CREATE TABLE {schema}.trouble (
  site_id int NOT NULL,
  kind    text NOT NULL,                     -- activecampaign, events, key, source, horizon, state
  since   timestamptz NOT NULL,
  why     text NOT NULL,
  PRIMARY KEY (site_id, kind)
);

-- Ids that were not there when the log was read past them without a horizon: looked for again for a while.
CREATE TABLE {schema}.gap (
  site_id  int NOT NULL,
  first_id bigint NOT NULL,
  last_id  bigint NOT NULL,
  seen_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, first_id)
);

-- Who is forgotten on request: all that is left of a person, to keep them out.
CREATE TABLE {schema}.tombstone (
  site_id      int NOT NULL,
  customer_id  bigint NOT NULL,
  address_hash bytea,                        -- keyed, by site.hash_key; NULL: the address is another's too
  forgotten_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, customer_id)
);
CREATE INDEX tombstone_address ON {schema}.tombstone (site_id, address_hash);
ALTER TABLE {schema}.site ADD hash_key bytea;

-- When it was seen that the shop erased all customers of a contact that ActiveCampaign still has.
ALTER TABLE {schema}.contact ADD erased_at timestamptz;
CREATE INDEX contact_erased ON {schema}.contact (site_id) WHERE erased_at IS NOT NULL;
