-- name: take_leases
-- Returns the rows of the leases that were taken: those that had expired, and those of $9 with the fencing token of
-- $10 still, whose holder has ended.
INSERT INTO {schema}.lease
  (name, site_id, epoch, holder, boot_id, namespaces, pid, started_at, taken_at, expires_at)
SELECT n.name, $1, (SELECT coalesce(max(epoch), 0) + 1 FROM {schema}.lease WHERE name = ANY($2::text[])),
       $3, $5, $6, $7, $8, clock_timestamp(), clock_timestamp() + make_interval(secs => $4)
FROM unnest($2::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE
SET site_id = excluded.site_id, epoch = excluded.epoch, holder = excluded.holder,
    boot_id = excluded.boot_id, namespaces = excluded.namespaces, pid = excluded.pid,
    started_at = excluded.started_at, taken_at = excluded.taken_at, expires_at = excluded.expires_at
WHERE (lease.expires_at <= clock_timestamp()
       OR (lease.name, lease.epoch) IN (SELECT * FROM unnest($9::text[], $10::bigint[])))
  AND lease.epoch < excluded.epoch  -- of two processes, the first
RETURNING epoch

-- name: unexpired_leases
SELECT name, site_id, epoch, holder, boot_id, namespaces, pid, started_at,
       extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_s
FROM {schema}.lease
WHERE name = ANY($1::text[]) AND expires_at > clock_timestamp()
ORDER BY name DESC

-- name: renew_lease
SELECT {schema}.renew($1, $2, $3)

-- name: release_leases
UPDATE {schema}.lease SET expires_at = clock_timestamp() WHERE site_id = $1 AND epoch = $2
