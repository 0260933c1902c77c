-- name: is_selected
-- A dead letter of this reason, of these customers, at these positions. NULL selects all.
site_id = $1 AND ($2::text IS NULL OR reason = $2) AND ($3::bigint[] IS NULL OR customer_id = ANY($3))
  AND ($4::bigint[] IS NULL OR (txid, log_id) IN (SELECT * FROM unnest($4, $5::bigint[])))

-- name: dead_letters
-- The newest first if $6 is -1, the oldest first if it is 1.
SELECT txid, log_id, reason, customer_id, attempts, reply, died_at, replay_at, discarded_at
FROM {schema}.dead_letter
WHERE {is_selected}
ORDER BY extract(epoch FROM died_at) * $6::int, txid * $6, log_id * $6
LIMIT $7

-- name: count_dead_letters
SELECT reason, count(*), count(replay_at) AS asked, count(discarded_at) AS discarded
FROM {schema}.dead_letter
WHERE {is_selected}
GROUP BY reason
ORDER BY reason

-- name: request_replay
-- Discarded ones only if positions are given. An earlier request keeps its moment.
WITH requested AS (
  UPDATE {schema}.dead_letter
  SET replay_at = coalesce(replay_at, clock_timestamp()), discarded_at = NULL
  WHERE {is_selected} AND ($4 IS NOT NULL OR discarded_at IS NULL)
  RETURNING 1
)
SELECT count(*) FROM requested

-- name: discard_dead_letters
WITH discarded AS (
  UPDATE {schema}.dead_letter
  SET discarded_at = now(), replay_at = NULL
  WHERE {is_selected} AND discarded_at IS NULL
  RETURNING 1
)
SELECT count(*) FROM discarded

-- name: replay_requests
SELECT txid, log_id, reason, replay_at FROM {schema}.dead_letter
WHERE site_id = $1 AND replay_at IS NOT NULL
ORDER BY txid, log_id

-- name: customers_of_same_contact
-- The customers of the contact of one of them.
SELECT other.customer_id
FROM {schema}.customer one JOIN {schema}.customer other USING (contact_id)
WHERE one.site_id = $1 AND one.customer_id = $2

-- name: is_refused
-- A refused order of these ids. NULL selects all.
site_id = $1 AND refused <> '' AND ($2::bigint[] IS NULL OR order_id = ANY($2))

-- name: refused_orders
SELECT order_id, refused, fingerprint = '' AS is_asked, discarded_at
FROM {schema}.sent_order
WHERE {is_refused}
ORDER BY order_id * $3::int
LIMIT $4

-- name: count_refused_orders
SELECT count(*), count(*) FILTER (WHERE fingerprint = '') AS asked, count(discarded_at) AS discarded
FROM {schema}.sent_order
WHERE {is_refused}

-- name: request_order_replay
-- An order without a fingerprint is sent again. Discarded ones only if $3 is true.
WITH requested AS (
  UPDATE {schema}.sent_order SET fingerprint = '', discarded_at = NULL
  WHERE {is_refused} AND ($3::boolean OR discarded_at IS NULL)
  RETURNING 1
)
SELECT count(*) FROM requested

-- name: discard_refused_orders
WITH discarded AS (
  UPDATE {schema}.sent_order SET discarded_at = now()
  WHERE {is_refused} AND discarded_at IS NULL
  RETURNING 1
)
SELECT count(*) FROM discarded

-- name: order_replay_requests
SELECT order_id FROM {schema}.sent_order
WHERE site_id = $1 AND refused <> '' AND fingerprint = '' AND discarded_at IS NULL
ORDER BY order_id
