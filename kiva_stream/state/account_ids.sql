-- name: account_ids
SELECT account_ids::text FROM {schema}.site WHERE site_id = $1 FOR UPDATE

-- name: record_account_ids
UPDATE {schema}.site SET account_ids = $2::jsonb WHERE site_id = $1

-- name: carried_as_history
-- Of an order that another connection may have, automations were started.
INSERT INTO {schema}.sent_order (site_id, order_id, source, fingerprint, accepted_at)
SELECT site_id, order_id, 'HISTORICAL', '', to_timestamp(0) FROM {schema}.carried_order WHERE site_id = $1
ON CONFLICT (site_id, order_id) DO UPDATE SET source = 'HISTORICAL'

-- name: forget_refused_orders
DELETE FROM {schema}.sent_order WHERE site_id = $1 AND source = 'REAL_TIME' AND accepted_at = to_timestamp(0)

-- name: sent_as_history
UPDATE {schema}.sent_order
SET source = 'HISTORICAL', fingerprint = '', refused = '', accepted_at = to_timestamp(0), discarded_at = NULL
WHERE site_id = $1

-- name: forget_carried_orders
DELETE FROM {schema}.carried_order WHERE site_id = $1

-- name: forget_order_tallies
DELETE FROM {schema}.tally WHERE site_id = $1 AND kind = 'order'

-- name: another_fingerprint
-- The last byte stays: it says which names ActiveCampaign shows.
overlay(fingerprint PLACING decode(repeat('00', 16), 'hex') FROM 1 FOR 16)

-- name: contacts_differ
UPDATE {schema}.contact
SET fingerprint = {another_fingerprint}, refused_fingerprint = NULL
WHERE site_id = $1 AND (fingerprint IS NOT NULL OR refused_fingerprint IS NOT NULL)

-- name: contacts_on_no_list
UPDATE {schema}.contact
SET fingerprint = CASE WHEN unsubscribed THEN {another_fingerprint} ELSE fingerprint END,
    refused_fingerprint = NULL, unsubscribed = false, taken_off = false,
    not_on_list = CASE WHEN status = 'linked' AND NOT unsubscribed THEN 'other list' END
WHERE site_id = $1

-- name: forget_imports
-- Contacts that are not linked are imported once more. The others differ by their fingerprint, if they do.
DELETE FROM {schema}.import WHERE site_id = $1

-- name: list_places_due
UPDATE {schema}.held SET next_try = now(), discarded_at = NULL WHERE site_id = $1 AND kind = 'list'

-- name: held_tags_due
UPDATE {schema}.held SET next_try = now(), discarded_at = NULL WHERE site_id = $1 AND kind = 'tag'

-- name: forget_tags
UPDATE {schema}.contact SET tag = NULL, tag_link = NULL WHERE site_id = $1 AND tag IS NOT NULL
