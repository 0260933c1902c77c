-- name: take_leases
-- Returns the rows of the leases that were free: of one that has not expired, none.
INSERT INTO {schema}.lease (name, site_id, epoch, holder, taken_at, expires_at)
SELECT n.name, $1, (SELECT coalesce(max(epoch), 0) + 1 FROM {schema}.lease WHERE name = ANY($2::text[])),
       $3, clock_timestamp(), clock_timestamp() + make_interval(secs => $4)
FROM unnest($2::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE
SET site_id = excluded.site_id, epoch = excluded.epoch, holder = excluded.holder,
    taken_at = excluded.taken_at, expires_at = excluded.expires_at
WHERE lease.expires_at <= clock_timestamp() AND lease.epoch < excluded.epoch  -- of two processes, the first
RETURNING epoch

-- name: lease_holder
SELECT site_id, holder, extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_s
FROM {schema}.lease
WHERE name = ANY($1::text[]) AND expires_at > clock_timestamp()
ORDER BY name DESC
LIMIT 1

-- name: renew_lease
SELECT {schema}.renew($1, $2, $3)

-- name: release_leases
UPDATE {schema}.lease SET expires_at = clock_timestamp() WHERE site_id = $1 AND epoch = $2
