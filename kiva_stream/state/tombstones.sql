-- name: tombstones
SELECT t.customer_id, t.address_hash, s.hash_key
FROM {schema}.tombstone t JOIN {schema}.site s USING (site_id)
WHERE site_id = $1

-- name: hash_key
UPDATE {schema}.site SET hash_key = coalesce(hash_key, $2) WHERE site_id = $1 RETURNING hash_key

-- name: insert_tombstone
INSERT INTO {schema}.tombstone (site_id, customer_id, address_hash) VALUES ($1, $2, $3)
ON CONFLICT (site_id, customer_id) DO UPDATE SET address_hash = coalesce(excluded.address_hash, tombstone.address_hash)

-- name: forget_orders
WITH gone AS (
  DELETE FROM {schema}.sent_order WHERE site_id = $1 AND order_id = ANY($2::bigint[])
  RETURNING refused, {is_here} AS is_here
), carried AS (
  DELETE FROM {schema}.carried_order WHERE site_id = $1 AND order_id = ANY($2::bigint[])
), not_held AS (
  DELETE FROM {schema}.held WHERE site_id = $1 AND kind = 'order' AND id = ANY($2::bigint[])
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, 'order', CASE refused WHEN '' THEN 'sent' ELSE 'refused' END AS name, -count(*)
  FROM gone WHERE is_here GROUP BY name ORDER BY name
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
)
SELECT FROM gone

-- name: forget_customer
-- The tallies stay: the entry of a deleted dead letter still has the outcome dead.
WITH links AS (
  DELETE FROM {schema}.customer WHERE site_id = $1 AND customer_id = $2 RETURNING 1
), letters AS (
  DELETE FROM {schema}.dead_letter WHERE site_id = $1 AND customer_id = $2 RETURNING 1
)
SELECT (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM letters) AS dead_letters

-- name: forget_contact
-- Parked rows stay, since they name no person. Their entries are skipped when they are processed.
WITH letters AS (
  DELETE FROM {schema}.dead_letter
  WHERE site_id = $1 AND customer_id IN (SELECT customer_id FROM {schema}.customer WHERE contact_id = $2)
  RETURNING 1
), links AS (
  DELETE FROM {schema}.customer WHERE contact_id = $2 RETURNING 1
), due AS (
  DELETE FROM {schema}.tag_due WHERE contact_id = $2
), not_held AS (
  DELETE FROM {schema}.held WHERE site_id = $1 AND contact_id = $2
), not_carried AS (
  DELETE FROM {schema}.carried_contact WHERE site_id = $1 AND contact_id = $2
), events AS (
  DELETE FROM {schema}.ledger WHERE site_id = $1 AND contact_id = $2 RETURNING 1
), contacts AS (
  DELETE FROM {schema}.contact WHERE id = $2 RETURNING 1
)
SELECT (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM letters) AS dead_letters,
       (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM contacts) AS contacts
