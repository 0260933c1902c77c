-- Version 1 of the state schema. Narrow on purpose: of people it holds the address of each contact, no more.

CREATE TABLE {schema}.site (
  site_id        int PRIMARY KEY,
  account        text NOT NULL UNIQUE,       -- the one ActiveCampaign account that this state speaks of
  since          text NOT NULL,              -- as given: day1, a date, or a position
  events_since   timestamptz,                -- events of older entries are skipped
  counted_txid   bigint NOT NULL,            -- the position after which the counts begin
  counted_id     bigint NOT NULL,
  watermark_txid bigint NOT NULL,            -- at or below it every entry has its outcome
  watermark_id   bigint NOT NULL,
  pending        bigint NOT NULL DEFAULT 0,  -- entries read, without an outcome yet, at the last commit
  ahead          jsonb NOT NULL DEFAULT '[]', -- counts, [kind, name, count] each, of entries above the watermark
  high_txid      bigint,                     -- the high-water mark of the newest backfill
  high_id        bigint,
  entries        bigint,                     -- entries up to it when that backfill began
  phase          text NOT NULL DEFAULT 'contacts' CHECK (phase IN ('contacts', 'events', 'done')),
  created_at     timestamptz NOT NULL DEFAULT now(),
  committed_at   timestamptz NOT NULL DEFAULT now()
);

-- Counts of the entries at or below the watermark: by outcome, by event (the catalog's line), by oddity;
-- and of the contacts by status.
CREATE TABLE {schema}.tally (
  site_id int NOT NULL REFERENCES {schema}.site,
  kind    text NOT NULL CHECK (kind IN ('outcome', 'event', 'note', 'contact')),
  name    text NOT NULL,
  count   bigint NOT NULL,
  PRIMARY KEY (site_id, kind, name)
);

CREATE TABLE {schema}.contact (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  site_id      int NOT NULL,
  email        text NOT NULL,                -- last confirmed at ActiveCampaign; while new, the one wanted
  status       text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'linked', 'rejected')),
  why          text NOT NULL DEFAULT '',     -- of a rejected one: what its entries die of
  fingerprint  bytea,                        -- of what ActiveCampaign last confirmed
  confirmed_at timestamptz,
  UNIQUE (site_id, email)
);

CREATE TABLE {schema}.customer (
  site_id     int NOT NULL,
  customer_id bigint NOT NULL,
  contact_id  bigint NOT NULL REFERENCES {schema}.contact,
  PRIMARY KEY (site_id, customer_id)
);
CREATE INDEX customer_contact ON {schema}.customer (contact_id);

-- Imports that ActiveCampaign accepted and whose end is not known yet.
CREATE TABLE {schema}.import (
  site_id      int NOT NULL,
  id           text NOT NULL,
  contact_ids  bigint[] NOT NULL,
  fingerprints bytea[] NOT NULL,
  is_short     boolean NOT NULL,             -- fewer contacts were queued than were sent, nobody says which
  accepted_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, id)
);

-- One row a delivered event: what a restart must not send again.
CREATE TABLE {schema}.ledger (
  site_id      int NOT NULL,
  txid         bigint NOT NULL,
  log_id       bigint NOT NULL,
  contact_id   bigint NOT NULL,
  event        smallint NOT NULL,            -- the catalog's line
  attempts     smallint NOT NULL,
  delivered_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, txid, log_id)
);
CREATE INDEX ledger_age ON {schema}.ledger USING brin (delivered_at);

CREATE TABLE {schema}.dead_letter (
  site_id     int NOT NULL,
  txid        bigint NOT NULL,
  log_id      bigint NOT NULL,
  reason      text NOT NULL,
  customer_id bigint,
  attempts    smallint NOT NULL,             -- 0: nothing was sent
  reply       text NOT NULL DEFAULT '',      -- what ActiveCampaign said, without secrets and addresses
  died_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, txid, log_id)
);
CREATE INDEX dead_letter_reason ON {schema}.dead_letter (site_id, reason);
