-- name: held_records
SELECT kind, id, contact_id, fingerprint, reply, attempts, suspect, sent, discarded_at IS NOT NULL AS is_discarded,
       coalesce(extract(epoch FROM next_try - now())::float8, 'Infinity') AS due_in_s
FROM {schema}.held WHERE site_id = $1 AND (NOT $2::boolean OR next_try <= now())

-- name: record_held
INSERT INTO {schema}.held (site_id, kind, id, contact_id, fingerprint, reply, attempts, suspect, next_try, sent)
SELECT $1, kind, id, contact_id, fingerprint, reply, attempts, suspect,
       CASE WHEN due_in_s < 'Infinity' THEN now() + make_interval(secs => due_in_s) END, sent
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::int[], $8::boolean[], $9::float8[],
            $10::int[])
  AS n (kind, id, contact_id, fingerprint, reply, attempts, suspect, due_in_s, sent)
ON CONFLICT (site_id, kind, id) DO UPDATE
SET contact_id = excluded.contact_id, fingerprint = excluded.fingerprint, reply = excluded.reply,
    attempts = excluded.attempts, suspect = excluded.suspect, next_try = excluded.next_try, sent = excluded.sent,
    discarded_at = NULL

-- name: move_held
UPDATE {schema}.held SET contact_id = $4 WHERE site_id = $1 AND kind = $2 AND id = $3

-- name: end_held
DELETE FROM {schema}.held h
USING unnest($2::text[], $3::bigint[]) AS e (kind, id)
WHERE h.site_id = $1 AND (h.kind, h.id) = (e.kind, e.id)

-- name: customers_of_contact
ARRAY(SELECT l.customer_id FROM {schema}.customer l WHERE l.contact_id = r.contact_id ORDER BY 1) AS customers

-- name: is_held_selected
-- A held record of these customers' contacts, of these orders, or of a contact whose entries are parked at these positions.
-- $2: all.
h.site_id = $1 AND ($2::boolean
  OR h.contact_id IN (SELECT l.contact_id FROM {schema}.customer l WHERE l.site_id = $1 AND l.customer_id = ANY($3::bigint[]))
  OR (h.kind = 'order' AND h.id = ANY($4::bigint[]))
  OR (h.kind <> 'tag' AND h.contact_id IN (
    SELECT p.contact_id FROM {schema}.parked p JOIN unnest($5::bigint[], $6::bigint[]) AS q (txid, log_id) USING (txid, log_id)
    WHERE p.site_id = $1)))

-- name: listed_held
-- The oldest first, each with the customers of its contact and the number of entries that are parked behind it.
SELECT r.kind, r.id, r.since, r.attempts, r.next_try, r.reply, {customers_of_contact},
       (SELECT count(*) FROM {schema}.parked p WHERE p.site_id = $1 AND p.contact_id = r.contact_id AND r.kind <> 'tag') AS parked
FROM {schema}.held r WHERE r.site_id = $1
ORDER BY r.since, r.kind, r.id

-- name: listed_parked
-- Parked entries of these customers' contacts, NULL for all, each with what is held longest of its contact.
SELECT r.txid, r.log_id, r.parked_at, {customers_of_contact}, h.kind, h.id, h.attempts, h.next_try, h.reply
FROM {schema}.parked r
LEFT JOIN LATERAL (
  SELECT * FROM {schema}.held w WHERE w.site_id = $1 AND w.contact_id = r.contact_id AND w.kind <> 'tag' ORDER BY w.since LIMIT 1) AS h ON true
WHERE r.site_id = $1 AND ($2::bigint[] IS NULL OR r.contact_id IN (
  SELECT l.contact_id FROM {schema}.customer l WHERE l.site_id = $1 AND l.customer_id = ANY($2)))
ORDER BY r.txid * $3::int, r.log_id * $3
LIMIT $4

-- name: largest_parked
-- The contacts that most parked entries are of, each with its customers and what is held longest of it.
SELECT r.count, {customers_of_contact}, h.kind, h.id
FROM (
  SELECT contact_id, count(*) FROM {schema}.parked WHERE site_id = $1
  GROUP BY contact_id ORDER BY count(*) DESC, contact_id LIMIT $2) AS r
LEFT JOIN LATERAL (
  SELECT * FROM {schema}.held w WHERE w.site_id = $1 AND w.contact_id = r.contact_id AND w.kind <> 'tag'
  ORDER BY w.since LIMIT 1) AS h ON true
ORDER BY r.count DESC, r.contact_id

-- name: count_parked
SELECT count(*) FROM {schema}.parked r
WHERE r.site_id = $1 AND ($2::bigint[] IS NULL OR r.contact_id IN (
  SELECT l.contact_id FROM {schema}.customer l WHERE l.site_id = $1 AND l.customer_id = ANY($2)))

-- name: held_places
SELECT p.txid, p.log_id
FROM {schema}.parked p JOIN unnest($2::bigint[], $3::bigint[]) AS q (txid, log_id) USING (txid, log_id)
WHERE p.site_id = $1
UNION ALL
SELECT NULL, h.id FROM {schema}.held h WHERE h.site_id = $1 AND h.kind = 'order' AND h.id = ANY($4::bigint[])

-- name: try_held
WITH asked AS (
  UPDATE {schema}.held h SET next_try = now(), discarded_at = NULL WHERE {is_held_selected} RETURNING 1
)
SELECT count(*) FROM asked

-- name: count_undiscarded_held
SELECT count(*) FROM {schema}.held h WHERE {is_held_selected} AND h.discarded_at IS NULL

-- name: discard_held
WITH discarded AS (
  UPDATE {schema}.held h SET next_try = now(), discarded_at = now()
  WHERE {is_held_selected} AND h.discarded_at IS NULL RETURNING 1
)
SELECT count(*) FROM discarded
