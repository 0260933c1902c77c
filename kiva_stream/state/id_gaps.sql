-- name: id_gaps
SELECT first_id, last_id, seen_at FROM {schema}.gap
WHERE site_id = $1 AND first_id > $2 AND last_id <= $3
ORDER BY first_id
LIMIT $4

-- name: delete_id_gaps
DELETE FROM {schema}.gap WHERE site_id = $1 AND first_id > $2 AND first_id <= $3

-- name: end_id_gap
-- A gap that contains the id ends there.
UPDATE {schema}.gap SET last_id = $2 WHERE site_id = $1 AND first_id <= $2 AND last_id > $2

-- name: insert_id_gaps
INSERT INTO {schema}.gap (site_id, first_id, last_id, seen_at)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::timestamptz[])

-- name: delete_id_gaps_by_first
DELETE FROM {schema}.gap WHERE site_id = $1 AND first_id = ANY($2::bigint[])

-- name: park_late_entries
-- Late entries are parked without a contact.
INSERT INTO {schema}.parked (site_id, txid, log_id, contact_id)
SELECT $1, l.txid, l.log_id, 0 FROM unnest($2::bigint[], $3::bigint[]) AS l (txid, log_id)
ON CONFLICT DO NOTHING

-- name: expire_id_gaps
DELETE FROM {schema}.gap WHERE site_id = $1 AND seen_at < now() - make_interval(secs => $2)
