-- name: sent_orders
SELECT order_id, source, fingerprint, refused, accepted_at
FROM {schema}.sent_order WHERE site_id = $1 AND order_id = ANY($2::bigint[])

-- name: order_ids_between
SELECT order_id FROM {schema}.sent_order
WHERE site_id = $1 AND order_id > $2 AND order_id <= $3
ORDER BY order_id

-- name: is_here
-- Of a sent order: it was accepted or refused at the present connection.
(refused <> '' OR accepted_at > to_timestamp(0))

-- name: record_orders
-- Also keeps the tallies of sent and refused orders, to which a row about another connection does not belong. An
-- order that is accepted is no carried one any more.
WITH new AS (
  SELECT * FROM unnest($2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[])
    AS n (order_id, source, fingerprint, refused, accepted_at)
), old AS (
  SELECT order_id, refused FROM {schema}.sent_order
  WHERE site_id = $1 AND order_id IN (SELECT order_id FROM new) AND {is_here}
), changed AS (
  SELECT refused, 1 AS count FROM new UNION ALL SELECT refused, -1 FROM old
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, 'order', CASE refused WHEN '' THEN 'sent' ELSE 'refused' END AS name, sum(count)
  FROM changed GROUP BY name ORDER BY name
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
), settled AS (
  DELETE FROM {schema}.carried_order
  WHERE site_id = $1 AND order_id IN (SELECT order_id FROM new WHERE refused = '')
)
INSERT INTO {schema}.sent_order (site_id, order_id, source, fingerprint, refused, accepted_at)
SELECT $1, * FROM new
ORDER BY order_id
ON CONFLICT (site_id, order_id) DO UPDATE
SET source = excluded.source, fingerprint = excluded.fingerprint, refused = excluded.refused,
    accepted_at = excluded.accepted_at, discarded_at = NULL

-- name: batch_limit
SELECT order_batch, order_batch_ceiling, order_batch_refused_at
FROM {schema}.site WHERE site_id = $1 AND order_batch IS NOT NULL

-- name: record_batch_limit
UPDATE {schema}.site
SET order_batch = $2, order_batch_ceiling = $3, order_batch_refused_at = $4
WHERE site_id = $1

-- name: record_carried
INSERT INTO {schema}.carried_order (site_id, order_id)
SELECT $1, * FROM unnest($2::bigint[]) ON CONFLICT DO NOTHING
RETURNING order_id

-- name: withdraw_carried
DELETE FROM {schema}.carried_order WHERE site_id = $1 AND order_id = ANY($2::bigint[])
