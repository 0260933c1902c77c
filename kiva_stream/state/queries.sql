-- name: version
SELECT max(version) FROM {schema}.version

-- name: begin_site
INSERT INTO {schema}.site (site_id, account, since, events_since, counted_txid, counted_id,
                           watermark_txid, watermark_id)
VALUES ($1, $2, $3, $4, $5, $6, $5, $6)

-- name: site
SELECT * FROM {schema}.site WHERE site_id = $1

-- name: site_of_account
SELECT site_id FROM {schema}.site WHERE account = $1

-- name: set_phase
UPDATE {schema}.site SET phase = $2, committed_at = now() WHERE site_id = $1

-- name: begin_backfill
UPDATE {schema}.site
SET high_txid = $2, high_id = $3, entries = $4, phase = 'contacts', pending = 0, ahead = '[]', committed_at = now()
WHERE site_id = $1

-- name: commit
-- The ledger, the dead letters, the counts and the watermark move together, or not at all.
WITH delivered AS (
  INSERT INTO {schema}.ledger (site_id, txid, log_id, contact_id, event, attempts)
  SELECT $1, * FROM unnest($5::bigint[], $6::bigint[], $7::bigint[], $8::smallint[], $9::smallint[])
), died AS (
  INSERT INTO {schema}.dead_letter (site_id, txid, log_id, reason, customer_id, attempts, reply)
  SELECT $1, * FROM unnest($10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::smallint[], $15::text[])
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, * FROM unnest($16::text[], $17::text[], $18::bigint[])
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
)
UPDATE {schema}.site
SET watermark_txid = $2, watermark_id = $3, pending = $4, ahead = $19, committed_at = now()
WHERE site_id = $1

-- name: delivered_above
SELECT txid, log_id FROM {schema}.ledger WHERE site_id = $1 AND (txid, log_id) > ($2, $3)

-- name: dead_above
SELECT txid, log_id, reason FROM {schema}.dead_letter WHERE site_id = $1 AND (txid, log_id) > ($2, $3)

-- name: forget_old_deliveries
DELETE FROM {schema}.ledger
WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM {schema}.ledger
  WHERE site_id = $1 AND delivered_at < now() - make_interval(days => $2) AND (txid, log_id) <= ($3, $4)
  LIMIT $5))

-- name: tallies
SELECT kind, name, count FROM {schema}.tally WHERE site_id = $1 ORDER BY kind, name

-- name: count_contacts
INSERT INTO {schema}.tally (site_id, kind, name, count)
SELECT $1, 'contact', s.status, count(c.id)
FROM unnest(ARRAY['new', 'linked', 'rejected']) AS s (status)
LEFT JOIN {schema}.contact c ON c.site_id = $1 AND c.status = s.status
GROUP BY s.status
ON CONFLICT (site_id, kind, name) DO UPDATE SET count = excluded.count

-- name: contacts_of_customers
SELECT l.customer_id, c.id, c.email, c.status, c.why
FROM {schema}.customer l JOIN {schema}.contact c ON c.id = l.contact_id
WHERE l.site_id = $1 AND l.customer_id = ANY($2::bigint[])

-- name: add_contacts
INSERT INTO {schema}.contact (site_id, email)
SELECT $1, e FROM unnest($2::text[]) e
ON CONFLICT (site_id, email) DO NOTHING

-- name: add_customers
INSERT INTO {schema}.customer (site_id, customer_id, contact_id)
SELECT $1, n.customer_id, c.id
FROM unnest($2::bigint[], $3::text[]) AS n (customer_id, email)
JOIN {schema}.contact c ON c.site_id = $1 AND c.email = n.email
ON CONFLICT (site_id, customer_id) DO UPDATE SET contact_id = excluded.contact_id

-- name: contacts_after
SELECT c.id, c.email, c.status, c.why, c.fingerprint,
       ARRAY(SELECT l.customer_id FROM {schema}.customer l WHERE l.contact_id = c.id ORDER BY 1) AS customers
FROM {schema}.contact c
WHERE c.site_id = $1 AND c.id > $2
ORDER BY c.id
LIMIT $3

-- name: contacts
SELECT c.id, c.email, c.status, c.why, c.fingerprint,
       ARRAY(SELECT l.customer_id FROM {schema}.customer l WHERE l.contact_id = c.id ORDER BY 1) AS customers
FROM {schema}.contact c
WHERE c.site_id = $1 AND c.id = ANY($2::bigint[])

-- name: confirm
UPDATE {schema}.contact c
SET status = 'linked', why = '', fingerprint = n.fingerprint, confirmed_at = now()
FROM unnest($1::bigint[], $2::bytea[]) AS n (id, fingerprint)
WHERE c.id = n.id

-- name: reject
UPDATE {schema}.contact SET status = 'rejected', why = $2 WHERE id = $1

-- name: open_imports
SELECT id, contact_ids, fingerprints, is_short FROM {schema}.import WHERE site_id = $1 ORDER BY accepted_at

-- name: keep_import
INSERT INTO {schema}.import (site_id, id, contact_ids, fingerprints, is_short) VALUES ($1, $2, $3, $4, $5)

-- name: close_import
DELETE FROM {schema}.import WHERE site_id = $1 AND id = $2
