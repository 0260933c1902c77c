-- Version 3: which process holds a site, how many orders go in one request, whether a URL was ever answered.

-- The process of a lease, so that another one on the same host can find that it has ended. NULL where that is not known.
ALTER TABLE {schema}.lease
  ADD COLUMN boot_id    text,                 -- of the kernel that it ran on
  ADD COLUMN namespaces text,                 -- those of its pid and of its clocks
  ADD COLUMN pid        int,
  ADD COLUMN started_at bigint;               -- in clock ticks after the boot

-- The size of order batches. NULL: none was accepted or refused yet.
ALTER TABLE {schema}.site
  ADD COLUMN order_batch            int,
  ADD COLUMN order_batch_ceiling    int,          -- the batches do not grow above it for a day
  ADD COLUMN order_batch_refused_at timestamptz;  -- when a batch was last refused for its size

-- What ActiveCampaign refused of a contact. It is tried again when the fingerprint is another or NULL.
ALTER TABLE {schema}.contact
  ADD COLUMN refused_fingerprint bytea,                 -- of the change that was refused last
  ADD COLUMN refused text NOT NULL DEFAULT '',          -- what ActiveCampaign said against it; '': nothing is refused
  ADD COLUMN left_out jsonb NOT NULL DEFAULT '{}';      -- by optional field: [hash of the value that was refused, reply]

-- Whether kiva_stream took a contact off the list and did not put it back since, though it may be back in another way.
ALTER TABLE {schema}.contact ADD COLUMN taken_off boolean NOT NULL DEFAULT false;
UPDATE {schema}.contact SET taken_off = true WHERE unsubscribed;

-- When the watermark was last moved. An entry at or below it that was inserted later has an id that began anew.
ALTER TABLE {schema}.checkpoint ADD COLUMN moved_at timestamptz NOT NULL DEFAULT now();
UPDATE {schema}.checkpoint SET moved_at = committed_at;

-- When the site was last rewound; NULL: never. Entries that were inserted before may be read again.
ALTER TABLE {schema}.checkpoint ADD COLUMN rewound_at timestamptz;

-- An account is named by its host as URLs are compared: in small letters, without the usual port.
UPDATE {schema}.site SET account =
  regexp_replace(lower(split_part(account, ' ', 1)), ':443$', '') || ' ' || split_part(account, ' ', 2);

-- The URLs of ActiveCampaign's API at which it ever answered: none of them is a wrong one. A site that is bound to its
-- account was answered, most likely at the usual form of its URL.
CREATE TABLE {schema}.answered_url (
  url         text PRIMARY KEY,
  answered_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {schema}.answered_url (url)
SELECT 'https://' || split_part(account, ' ', 1) || '/api/3' FROM {schema}.site;

-- ActiveCampaign's ids of connection, list, fields and tags that the rows of the site are about, by kind and name.
-- NULL: they were not recorded yet.
ALTER TABLE {schema}.site ADD COLUMN account_ids jsonb;

-- The orders that a request may have brought to ActiveCampaign as REAL_TIME, and of which no acceptance is recorded.
CREATE TABLE {schema}.carried_order (
  site_id  int NOT NULL,
  order_id bigint NOT NULL,
  PRIMARY KEY (site_id, order_id)
);

-- Why a linked contact may not be on the list. NULL: it was subscribed, or it left the list.
ALTER TABLE {schema}.contact ADD COLUMN not_on_list text
  CHECK (not_on_list IN (
    'other list',     -- it was linked before the account had the list that it has now
    'came alone'      -- a request of its own brought it, which subscribes nobody; an import is to follow
  ));
CREATE INDEX contact_not_on_list ON {schema}.contact (site_id) WHERE not_on_list IS NOT NULL;

-- The contacts, orders, places on the list, events and week tags that are held: ActiveCampaign does not take these, though it takes others.
-- A row ends when the record is accepted or refused for good.
CREATE TABLE {schema}.held (
  site_id      int NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('contact', 'order', 'list', 'event', 'tag')),
  id           bigint NOT NULL,              -- of the order at the shop, else of the contact here, or minus that of an event's entry
  contact_id   bigint NOT NULL,              -- whose entries wait for it, unless it is a tag
  fingerprint  bytea NOT NULL,               -- of what was sent last; of an event: where its entry is
  since        timestamptz NOT NULL DEFAULT now(),
  attempts     int NOT NULL,
  next_try     timestamptz,                  -- NULL: when it is asked for
  reply        text NOT NULL,                -- the last one, or why there was none
  suspect      boolean NOT NULL,             -- it got no answer; else it was refused, and the account may be the cause
  sent         int NOT NULL,                 -- how often, of an event
  discarded_at timestamptz,                  -- the next try counts it as refused, if it is still the same
  PRIMARY KEY (site_id, kind, id)
);
CREATE INDEX held_contact ON {schema}.held (site_id, contact_id);
CREATE INDEX parked_contact ON {schema}.parked (site_id, contact_id);

-- The contacts of imports that were sent and whose answer is not known: ActiveCampaign may still write what they carried.
CREATE TABLE {schema}.carried_contact (
  site_id     int NOT NULL,
  contact_id  bigint NOT NULL,
  fingerprint bytea NOT NULL,                -- of what was sent last
  sent_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (site_id, contact_id)
);
