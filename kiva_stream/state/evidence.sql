-- name: site_progress
-- Read in one statement, since the process that works the site writes all of it together.
SELECT s.account, c.*,
       (SELECT coalesce(sum(count), 0) FROM {schema}.tally t WHERE t.site_id = $1 AND t.kind = 'outcome')
         AS outcomes,
       (SELECT count(*) FROM {schema}.parked p
        WHERE p.site_id = $1 AND (p.txid, p.log_id) > (c.counted_txid, c.counted_id)) AS parked,
       EXISTS (SELECT FROM {schema}.lease l WHERE l.site_id = $1 AND l.expires_at > clock_timestamp()) AS is_held
FROM {schema}.checkpoint c JOIN {schema}.site s USING (site_id)
WHERE site_id = $1

-- name: has_customer
-- Of a contact.
EXISTS (SELECT FROM {schema}.customer l WHERE l.contact_id = c.id)

-- name: sample_contacts
{contact_records}
WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer}
ORDER BY random()
LIMIT $2

-- name: count_contacts_with_customer
SELECT count(*) FROM {schema}.contact c WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer}

-- name: contacts_without_customer
{contact_records}
WHERE c.site_id = $1 AND c.status = 'linked' AND NOT {has_customer}
ORDER BY c.id

-- name: contacts_without_id
{contact_records}
WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer} AND c.ac_id IS NULL
ORDER BY c.id

-- name: contacts_not_on_list
{contact_records}
WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer} AND c.not_on_list = $2
ORDER BY c.id

-- name: count_other_list
SELECT count(*) FROM {schema}.contact c
WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer} AND c.not_on_list = $2

-- name: due_among
SELECT contact_id FROM {schema}.tag_due WHERE site_id = $1 AND contact_id = ANY($2::bigint[])

-- name: events_of_contacts
SELECT contact_id, txid, log_id, event, delivered_at
FROM {schema}.ledger WHERE site_id = $1 AND contact_id = ANY($2::bigint[])
ORDER BY txid, log_id

-- name: accounted_for
-- Which of these entries were delivered, to any contact, or are dead or parked.
SELECT p.txid, p.log_id
FROM unnest($2::bigint[], $3::bigint[]) AS p (txid, log_id)
WHERE EXISTS (SELECT FROM {schema}.ledger l WHERE (l.site_id, l.txid, l.log_id) = ($1, p.txid, p.log_id))
   OR EXISTS (SELECT FROM {schema}.dead_letter d WHERE (d.site_id, d.txid, d.log_id) = ($1, p.txid, p.log_id))
   OR EXISTS (SELECT FROM {schema}.parked k WHERE (k.site_id, k.txid, k.log_id) = ($1, p.txid, p.log_id))

-- name: forgotten_among
SELECT customer_id FROM {schema}.tombstone WHERE site_id = $1 AND customer_id = ANY($2::bigint[])

-- name: unconfirm_contacts
UPDATE {schema}.contact SET fingerprint = NULL, refused_fingerprint = NULL, refused = '', left_out = '{}', unsubscribed = false, tag = NULL, tag_link = NULL
WHERE site_id = $1 AND id = ANY($2::bigint[])

-- name: unconfirm_orders
UPDATE {schema}.sent_order SET fingerprint = '' WHERE site_id = $1 AND order_id = ANY($2::bigint[])

-- name: record_resent
INSERT INTO {schema}.ledger (site_id, txid, log_id, contact_id, event, attempts) VALUES ($1, $2, $3, $4, $5, 1)
ON CONFLICT (site_id, txid, log_id) DO UPDATE
SET contact_id = excluded.contact_id, attempts = ledger.attempts + 1, delivered_at = now()
