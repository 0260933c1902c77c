-- name: held_records
SELECT kind, id, contact_id, fingerprint, reply, attempts, suspect, discarded_at IS NOT NULL AS is_discarded,
       coalesce(extract(epoch FROM next_try - now())::float8, 'Infinity') AS due_in_s
FROM {schema}.held WHERE site_id = $1

-- name: record_held
INSERT INTO {schema}.held (site_id, kind, id, contact_id, fingerprint, reply, attempts, suspect, next_try)
SELECT $1, kind, id, contact_id, fingerprint, reply, attempts, suspect,
       CASE WHEN due_in_s < 'Infinity' THEN now() + make_interval(secs => due_in_s) END
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::int[], $8::boolean[], $9::float8[])
  AS n (kind, id, contact_id, fingerprint, reply, attempts, suspect, due_in_s)
ON CONFLICT (site_id, kind, id) DO UPDATE
SET contact_id = excluded.contact_id, fingerprint = excluded.fingerprint, reply = excluded.reply,
    attempts = excluded.attempts, suspect = excluded.suspect, next_try = excluded.next_try, discarded_at = NULL

-- name: end_held
DELETE FROM {schema}.held h
USING unnest($2::text[], $3::bigint[]) AS e (kind, id)
WHERE h.site_id = $1 AND (h.kind, h.id) = (e.kind, e.id)
