-- name: site
SELECT s.id, s.name, s.timezone, upper(btrim(s.currency)) AS currency, s.admin_base_url,
       s.launched_on::timestamp AT TIME ZONE s.timezone AS launched_at
FROM {schema}.sites s
WHERE s.id = $1

-- name: mark
-- The newest position below the horizon, and the moment at which the delay cuts.
SELECT l.txid, l.id, clock_timestamp() - make_interval(secs => $2) AS inserted_before
FROM {schema}.system_log l
WHERE l.site_id = $1 AND l.txid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY l.txid DESC, l.id DESC
LIMIT 1

-- name: inserted_at
-- A view may not know when an entry was inserted: when it happened must do then, or else it is old. And a clock
-- gone wild may write moments that no datetime holds: years after 9999, infinity.
greatest(least(coalesce(l.inserted_at, l.occurred_at, '0002-01-01Z'), '9998-12-31Z'), '0002-01-01Z')

-- name: occurred_at
-- The same for when it happened.
greatest(least(coalesce(l.occurred_at, l.inserted_at, '0002-01-01Z'), '9998-12-31Z'), '0002-01-01Z')

-- name: next
-- The first entry above a position, and what may keep it from being read.
SELECT l.txid, l.id, {inserted_at} AS inserted_at, {inserted_at} > clock_timestamp() AS is_in_future,
       l.txid >= pg_snapshot_xmin(pg_current_snapshot())
         AND {inserted_at} < clock_timestamp() - make_interval(secs => $4) AS is_held_up
FROM {schema}.system_log l
WHERE l.site_id = $1 AND (l.txid, l.id) > ($2, $3)
ORDER BY l.txid, l.id
LIMIT 1

-- name: clock
SELECT clock_timestamp()

-- name: first_since
-- The lowest position whose inserted_at is at or after a moment.
SELECT l.txid, l.id
FROM {schema}.system_log l
WHERE l.site_id = $1 AND (l.inserted_at >= $2 OR l.inserted_at IS NULL AND l.occurred_at >= $2)
  AND l.txid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY l.txid, l.id
LIMIT 1

-- name: midnight
SELECT $2::date::timestamp AT TIME ZONE s.timezone FROM {schema}.sites s WHERE s.id = $1

-- name: entry
-- An entry's columns.
l.txid, l.id, {occurred_at}, {inserted_at}, l.action, l.actor_type, l.admin_user,
       left(coalesce(l.message, ''), 2000), left(l.data::text, 65537), l.customer_id

-- name: read
-- Nothing a running transaction could still precede is read: txid < the horizon.
SELECT {entry}
FROM {schema}.system_log l
WHERE l.site_id = $1
  AND (l.txid, l.id) > ($2, $3) AND (l.txid, l.id) <= ($4, $5)
  AND l.txid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY l.txid, l.id
LIMIT $6

-- name: before
-- The position after which so many entries lie, up to another one.
SELECT l.txid, l.id
FROM {schema}.system_log l
WHERE l.site_id = $1 AND (l.txid, l.id) <= ($2, $3)
ORDER BY l.txid DESC, l.id DESC
LIMIT 1 OFFSET $4

-- name: count
SELECT count(*)
FROM {schema}.system_log l
WHERE l.site_id = $1 AND (l.txid, l.id) > ($2, $3) AND (l.txid, l.id) <= ($4, $5)

-- name: sample
-- A few rows at each of evenly spaced ids.
SELECT r.*
FROM generate_series($2::bigint + 1, $3::bigint, greatest(($3 - $2) / $4, 1)) AS g (id)
CROSS JOIN LATERAL (
  SELECT {entry}
  FROM {schema}.system_log l
  WHERE l.site_id = $1 AND l.id >= g.id
  ORDER BY l.id
  LIMIT $5
) r

-- name: count_reachable
SELECT count(*)
FROM {schema}.customers c
WHERE c.site_id = $1 AND c.email LIKE '%@%' AND NOT c.is_test AND c.deleted_at IS NULL

-- name: customers_by_id
SELECT c.id, c.site_id, c.email, c.first_name, c.last_name, c.is_test, c.deleted_at IS NOT NULL AS erased
FROM {schema}.customers c
WHERE c.id = ANY($1::bigint[])

-- name: customers_by_email
SELECT c.id, c.site_id, c.email, c.first_name, c.last_name, c.is_test, c.deleted_at IS NOT NULL AS erased
FROM {schema}.customers c
WHERE c.site_id = $1 AND lower(btrim(c.email)) = ANY($2::text[])
ORDER BY c.id

-- name: accounts
SELECT c.id, c.site_id, c.email, c.first_name, c.last_name, c.is_test, c.deleted_at IS NOT NULL AS erased,
       c.phone, c.status, c.email_opt_in, c.email_blacklisted,
       (SELECT max(greatest(least(o.created_at, '9998-12-31Z'), '0002-01-01Z'))  -- NULL when there is none
        FROM {schema}.orders o
        WHERE o.customer_id = c.id AND o.site_id = c.site_id AND o.created_at IS NOT NULL)
         AS newest_order_at
FROM {schema}.customers c
WHERE c.site_id = $1 AND c.id = ANY($2::bigint[])

-- name: customers_after
SELECT c.id, c.site_id, c.email, c.first_name, c.last_name, c.is_test, c.deleted_at IS NOT NULL AS erased
FROM {schema}.customers c
WHERE c.site_id = $1 AND c.id > $2
ORDER BY c.id
LIMIT $3
