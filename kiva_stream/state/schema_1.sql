-- Version 1 of the state schema. Narrow on purpose: of people it holds the address of each contact, no more.

-- What a site is bound to, from the first write on.
CREATE TABLE {schema}.site (
  site_id     int PRIMARY KEY,
  account     text NOT NULL UNIQUE,          -- the one ActiveCampaign account that this state speaks of
  contact_url text,                          -- where people look at a contact there, its id to be added
  week_start  date,                          -- of the delivery week that the week tags speak of
  known_to    bigint NOT NULL DEFAULT 0,     -- ActiveCampaign's contacts up to this id have been looked at
  created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE {schema}.checkpoint (
  site_id        int PRIMARY KEY REFERENCES {schema}.site,
  since          text NOT NULL,              -- as given: day1, a date, or a position
  events_since   timestamptz,                -- events of older entries are skipped
  counted_txid   bigint NOT NULL,            -- the position after which the counts begin
  counted_id     bigint NOT NULL,
  watermark_txid bigint NOT NULL,            -- at or below it every entry has its outcome
  watermark_id   bigint NOT NULL,
  pending        bigint NOT NULL DEFAULT 0,  -- entries read, without an outcome yet, at the last commit
  ahead          jsonb NOT NULL DEFAULT '[]', -- counts, [kind, name, count] each, of what is above it
  high_txid      bigint,                     -- the high-water mark of the newest backfill
  high_id        bigint,
  entries        bigint,                     -- entries up to it when that backfill began
  phase          text NOT NULL DEFAULT 'contacts'
                 CHECK (phase IN ('contacts', 'orders', 'events', 'tags', 'done', 'sweep', 'follow')),
  created_at     timestamptz NOT NULL DEFAULT now(),
  committed_at   timestamptz NOT NULL DEFAULT now(),
  caught_up_at   timestamptz                 -- what following could read at this moment has its outcome
);

-- Counts of the entries at or below the watermark: by outcome, by event (the catalog's line), by oddity;
-- and of the contacts and orders by how far they have come.
CREATE TABLE {schema}.tally (
  site_id int NOT NULL REFERENCES {schema}.site,
  kind    text NOT NULL CHECK (kind IN ('outcome', 'event', 'note', 'contact', 'order')),
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
  ac_id        bigint,                       -- ActiveCampaign's id; NULL: not known, or not there
  tag          text,                         -- the week tag it has, or is just being given; NULL: not known
  tag_link     bigint,                       -- ActiveCampaign's id of that tag on it; NULL: not known
  unsubscribed boolean NOT NULL DEFAULT false, -- from the list, by us
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
  unsubscribed boolean[] NOT NULL,           -- whom it takes off the list
  is_short     boolean NOT NULL,             -- fewer contacts were queued than were sent, nobody says which
  accepted_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, id)
);

-- What ActiveCampaign last accepted, or refused, of each order.
CREATE TABLE {schema}.sent_order (
  site_id     int NOT NULL,
  order_id    bigint NOT NULL,
  source      text NOT NULL CHECK (source IN ('HISTORICAL', 'REAL_TIME')),
  fingerprint bytea NOT NULL,
  refused     text NOT NULL DEFAULT '',      -- what ActiveCampaign said against it; '': it was accepted
  accepted_at timestamptz NOT NULL,
  PRIMARY KEY (site_id, order_id)
);

-- The linked contacts whose week tag may differ from what it should be.
CREATE TABLE {schema}.tag_due (
  site_id    int NOT NULL,
  contact_id bigint NOT NULL REFERENCES {schema}.contact,
  mark       bigint NOT NULL GENERATED ALWAYS AS IDENTITY, -- another whenever it becomes due again
  PRIMARY KEY (site_id, contact_id)
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
CREATE INDEX dead_letter_customer ON {schema}.dead_letter (site_id, customer_id);

-- For the shop's admin page: each customer's contact at ActiveCampaign. Who may read it needs no table.
CREATE VIEW {schema}.contacts AS
SELECT l.site_id, l.customer_id, c.email, c.ac_id AS ac_contact_id,
       s.contact_url || c.ac_id AS ac_contact_url, c.confirmed_at AS last_synced_at
FROM {schema}.customer l
JOIN {schema}.contact c ON c.id = l.contact_id
LEFT JOIN {schema}.site s ON s.site_id = l.site_id
WHERE c.status = 'linked';
