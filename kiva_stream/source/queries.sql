-- Every text is cast to text: of a char(n), also behind a domain or a view, that cuts the blanks that fill it up
-- (PostgreSQL, "Character Types"). For the other types the cast costs nothing, since they are stored alike.

-- name: site
-- A view may lack a value. A day that no datetime holds is the first or the last one.
SELECT s.id, coalesce(s.name::text, '') AS name, coalesce(s.timezone::text, '') AS timezone,
       coalesce(upper(btrim(s.currency)), '') AS currency, coalesce(s.admin_base_url::text, '') AS admin_base_url,
       greatest(least(coalesce(s.launched_on, '0002-01-01'), '9998-12-31'), '0002-01-01') AS launched_on
FROM {schema}.sites s
WHERE s.id = $1

-- name: txid
-- The first part of a position. If the log is read without a horizon, queries_by_id.sql replaces this block and
-- the next ones.
l.txid

-- name: is_safe
-- No running transaction can still commit an entry below.
l.txid < pg_snapshot_xmin(pg_current_snapshot())

-- name: is_above
(l.txid, l.id) > ($2, $3)

-- name: is_up_to_second
(l.txid, l.id) <= ($2, $3)

-- name: is_up_to
(l.txid, l.id) <= ($4, $5)

-- name: is_at
l.txid = p.txid AND l.id = p.id

-- name: log_order
l.txid, l.id

-- name: log_order_reversed
l.txid DESC, l.id DESC

-- name: high_water_mark
-- The newest position that is safe to read, and the moment at which the delay cuts.
SELECT {txid} AS txid, l.id, clock_timestamp() - make_interval(secs => $2) AS inserted_before
FROM {schema}.system_log l
WHERE l.site_id = $1 AND {is_safe}
ORDER BY {log_order_reversed}
LIMIT 1

-- name: inserted_at
-- A view may lack the moment of insertion: that of the occurrence is used, or else the entry is old. A broken
-- clock may write moments that no datetime holds: years after 9999, infinity.
greatest(least(coalesce(l.inserted_at, l.occurred_at, '0002-01-01Z'), '9998-12-31Z'), '0002-01-01Z')

-- name: occurred_at
-- Likewise, the moment of the occurrence.
greatest(least(coalesce(l.occurred_at, l.inserted_at, '0002-01-01Z'), '9998-12-31Z'), '0002-01-01Z')

-- name: next_entry
-- The first entry above a position, and what may keep it from being read.
SELECT {txid} AS txid, l.id, {inserted_at} AS inserted_at, {inserted_at} > clock_timestamp() AS is_in_future,
       {txid} >= pg_snapshot_xmax(pg_current_snapshot()) AS is_of_another_server,
       {txid} >= pg_snapshot_xmin(pg_current_snapshot())
         AND {inserted_at} < clock_timestamp() - make_interval(secs => $4) AS is_held_back
FROM {schema}.system_log l
WHERE l.site_id = $1 AND {is_above}
ORDER BY {log_order}
LIMIT 1

-- name: ends_of_log
-- The entries of the lowest and of the highest id. Of several with one id, that which was inserted last.
(SELECT l.id, {inserted_at} AS inserted_at
 FROM {schema}.system_log l WHERE l.site_id = $1 ORDER BY l.id, inserted_at DESC LIMIT 1)
UNION ALL
(SELECT l.id, {inserted_at} AS inserted_at
 FROM {schema}.system_log l WHERE l.site_id = $1 ORDER BY l.id DESC, inserted_at DESC LIMIT 1)

-- name: inserted_later
-- How many entries at or below an id were inserted after a moment, and the first of them.
SELECT count(*) AS count, min(l.id) AS first_id
FROM {schema}.system_log l
WHERE l.site_id = $1 AND l.id <= $2 AND l.inserted_at > $3 AND l.inserted_at <= clock_timestamp()

-- name: oldest_writer
-- The session or prepared transaction that holds the horizon back. The role sees since when only for its own
-- sessions, unless it has pg_read_all_stats.
SELECT a.pid::text AS name, a.datname AS database, a.application_name AS application,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS for_s
FROM pg_stat_activity a
WHERE a.backend_xid::text::bigint
      = mod(pg_snapshot_xmin(pg_current_snapshot())::text::numeric, 4294967296)
UNION ALL
SELECT p.gid, p.database, NULL, extract(epoch FROM clock_timestamp() - p.prepared)::float8
FROM pg_prepared_xacts p
WHERE p.transaction::text::bigint
      = mod(pg_snapshot_xmin(pg_current_snapshot())::text::numeric, 4294967296)
LIMIT 1

-- name: clock
SELECT clock_timestamp()

-- name: first_since
-- The lowest position whose inserted_at is at or after a moment.
SELECT {txid} AS txid, l.id
FROM {schema}.system_log l
WHERE l.site_id = $1 AND (l.inserted_at >= $2 OR l.inserted_at IS NULL AND l.occurred_at >= $2)
  AND {is_safe}
ORDER BY {log_order}
LIMIT 1

-- name: in_timezone
-- An error if PostgreSQL does not know the timezone.
SELECT clock_timestamp() AT TIME ZONE $1::text

-- name: midnight
SELECT $2::date::timestamp AT TIME ZONE s.timezone FROM {schema}.sites s WHERE s.id = $1

-- name: entry_columns
-- An entry's columns.
{txid}, l.id, {occurred_at}, {inserted_at}, l.action::text, l.actor_type::text, l.admin_user::text,
       left(coalesce(l.message::text, ''), 2000), left(l.data::text, 65537), l.customer_id

-- name: page_range
SELECT {entry_columns}
FROM {schema}.system_log l
WHERE l.site_id = $1
  AND {is_above} AND {is_up_to}
  AND {is_safe}
ORDER BY {log_order}
LIMIT $6

-- name: id_gaps
-- The ranges of ids that no entry of any site has, each before an entry that was inserted within this many
-- seconds. The transactions of older ones were rolled back.
SELECT prior + 1 AS first, id - 1 AS last, clock_timestamp() AS seen_at
FROM (
  SELECT l.id, lag(l.id, 1, $1) OVER (ORDER BY l.id) AS prior, {inserted_at} AS inserted_at
  FROM {schema}.system_log l
  WHERE l.id > $1 AND l.id <= $2
) AS read
WHERE id > prior + 1 AND inserted_at > clock_timestamp() - make_interval(secs => $3)

-- name: entries_in_id_gaps
-- The entries that have appeared in such ranges.
SELECT {entry_columns}
FROM unnest($2::bigint[], $3::bigint[]) AS g (first_id, last_id)
JOIN {schema}.system_log l ON l.site_id = $1 AND l.id BETWEEN g.first_id AND g.last_id
ORDER BY l.id
LIMIT $4

-- name: before
-- The position after which this many entries lie, up to another one.
SELECT {txid} AS txid, l.id
FROM {schema}.system_log l
WHERE l.site_id = $1 AND {is_up_to_second}
ORDER BY {log_order_reversed}
LIMIT 1 OFFSET $4

-- name: count
SELECT count(*)
FROM {schema}.system_log l
WHERE l.site_id = $1 AND {is_above} AND {is_up_to}

-- name: sample
-- A few rows at each of evenly spaced ids.
SELECT r.*
FROM generate_series($2::bigint + 1, $3::bigint, greatest(($3 - $2) / $4, 1)) AS g (id)
CROSS JOIN LATERAL (
  SELECT {entry_columns}
  FROM {schema}.system_log l
  WHERE l.site_id = $1 AND l.id >= g.id
  ORDER BY l.id
  LIMIT $5
) r

-- name: entries
-- Entries by their positions, one index look-up each.
SELECT r.*
FROM unnest($2::xid8[], $3::bigint[]) AS p (txid, id)
CROSS JOIN LATERAL (
  SELECT {entry_columns}
  FROM {schema}.system_log l
  WHERE l.site_id = $1 AND {is_at}
  LIMIT 1
) r
ORDER BY p.txid, p.id

-- name: entries_of_customers
-- Entries that name customers by their id.
SELECT {entry_columns}
FROM {schema}.system_log l
WHERE l.site_id = $1 AND l.customer_id = ANY($2::bigint[])

-- name: positions_by_id
SELECT {txid} AS txid, l.id FROM {schema}.system_log l WHERE l.site_id = $1 AND l.id = ANY($2::bigint[])

-- name: lowest_id_above
SELECT min(l.id) FROM {schema}.system_log l WHERE l.site_id = $1 AND (l.txid, l.id) > ($2, $3)

-- name: first_of_ids_above
SELECT l.txid, l.id
FROM {schema}.system_log l
WHERE l.site_id = $1 AND l.id > $2
ORDER BY l.txid, l.id
LIMIT 1

-- name: txids_by_id
SELECT l.id, l.txid FROM {schema}.system_log l WHERE l.site_id = $1 AND l.id = ANY($2::bigint[])

-- name: count_reachable
SELECT count(*)
FROM {schema}.customers c
WHERE c.site_id = $1 AND c.email LIKE '%@%' AND NOT c.is_test AND c.deleted_at IS NULL

-- name: customers_by_id
SELECT c.id, c.site_id, c.email::text, c.first_name::text, c.last_name::text, c.is_test,
       c.deleted_at IS NOT NULL AS erased
FROM {schema}.customers c
WHERE c.id = ANY($1::bigint[])

-- name: customers_by_email
SELECT c.id, c.site_id, c.email::text, c.first_name::text, c.last_name::text, c.is_test,
       c.deleted_at IS NOT NULL AS erased
FROM {schema}.customers c
WHERE c.site_id = $1 AND lower(btrim(c.email)) = ANY($2::text[])
ORDER BY c.id

-- name: customer_accounts
-- A date that no Python date holds (infinity, BC, after 9999) is none. Without a box the box type is '', and
-- NULL when its row is gone.
SELECT c.id, c.site_id, c.email::text, c.first_name::text, c.last_name::text, c.is_test,
       c.deleted_at IS NOT NULL AS erased,
       c.phone::text, c.status::text, c.email_opt_in, c.email_blacklisted,
       CASE WHEN c.next_delivery BETWEEN '0001-01-01' AND '9999-12-31' THEN c.next_delivery END AS next_delivery,
       CASE WHEN c.cancelled_at BETWEEN '0002-01-01Z' AND '9998-12-31Z'
            THEN (c.cancelled_at AT TIME ZONE s.timezone)::date END AS cancel_date,
       CASE WHEN c.birthday BETWEEN '0001-01-01' AND '9999-12-31' THEN c.birthday END AS birthday,
       CASE WHEN c.box_type_id IS NULL THEN '' ELSE b.name::text END AS box_type,
       greatest(least(coalesce(c.created_at, '0002-01-01Z'), '9998-12-31Z'), '0002-01-01Z') AS joined_at,
       (SELECT max(greatest(least(o.created_at, '9998-12-31Z'), '0002-01-01Z'))  -- NULL when there is none
        FROM {schema}.orders o
        WHERE o.customer_id = c.id AND o.site_id = c.site_id AND o.created_at IS NOT NULL)
         AS newest_order_at
FROM {schema}.customers c
JOIN {schema}.sites s ON s.id = c.site_id
LEFT JOIN {schema}.box_types b ON b.id = c.box_type_id AND b.site_id = c.site_id
WHERE c.site_id = $1 AND c.id = ANY($2::bigint[])

-- name: customers_after
SELECT c.id, c.site_id, c.email::text, c.first_name::text, c.last_name::text, c.is_test,
       c.deleted_at IS NOT NULL AS erased
FROM {schema}.customers c
WHERE c.site_id = $1 AND c.id > $2
ORDER BY c.id
LIMIT $3

-- name: is_paid
-- An order that belongs at ActiveCampaign even if it was never sent.
(o.paid_at IS NOT NULL OR o.payment_status IN ('completed', 'refunded'))

-- name: order_columns
-- An order's columns. Moments that no datetime holds become the first or the last one; least and greatest pass
-- over NULL, which is to stay.
o.id, o.customer_id, coalesce(o.status::text, '') AS status,
    coalesce(o.payment_status::text, 'none') AS payment_status,
    greatest(least(coalesce(o.created_at, o.paid_at, '0002-01-01Z'), '9998-12-31Z'), '0002-01-01Z') AS created_at,
    CASE WHEN o.paid_at IS NOT NULL
         THEN greatest(least(o.paid_at, '9998-12-31Z'), '0002-01-01Z') END AS paid_at,
    coalesce(o.total_cents, 0) AS total_cents, coalesce(o.discount_cents, 0) AS discount_cents,
    coalesce(o.credit_cents, 0) AS credit_cents

-- name: items
-- One row for each item that is not removed; one row without an item for an order that has none.
SELECT o.*, i.id AS item_id, i.product_id, coalesce(i.name::text, '') AS item_name,
       coalesce(i.category::text, '') AS category,
       coalesce(i.qty::numeric, 0) AS qty,
       coalesce(i.unit_price_cents, 0) AS unit_price_cents
FROM picked o
LEFT JOIN {schema}.order_items i ON i.order_id = o.id AND i.removed_at IS NULL
ORDER BY o.id, i.id

-- name: paid_orders_after
WITH picked AS (
  SELECT {order_columns}
  FROM {schema}.orders o
  WHERE o.site_id = $1 AND o.id > $2 AND o.customer_id IS NOT NULL AND {is_paid}
  ORDER BY o.id
  LIMIT $3
)
{items}

-- name: orders
WITH picked AS (
  SELECT {order_columns}
  FROM {schema}.orders o
  WHERE o.site_id = $1 AND o.id = ANY($2::bigint[]) AND o.customer_id IS NOT NULL
)
{items}

-- name: paid_by
SELECT o.id
FROM {schema}.orders o
WHERE o.site_id = $1 AND o.customer_id = ANY($2::bigint[]) AND {is_paid}
ORDER BY o.id

-- name: order_ids_of_customers
SELECT o.id FROM {schema}.orders o WHERE o.site_id = $1 AND o.customer_id = ANY($2::bigint[]) ORDER BY o.id

-- name: count_paid
SELECT count(*)
FROM {schema}.orders o
WHERE o.site_id = $1 AND {is_paid}

-- name: current_week
-- The week opened last, by the database's clock; before the first, the calendar's at the site.
SELECT coalesce(
  (SELECT w.week_start
   FROM {schema}.delivery_weeks w
   WHERE w.site_id = $1 AND w.opened_at <= clock_timestamp()
     AND w.week_start BETWEEN '0001-01-01' AND '9999-12-31'
   ORDER BY w.opened_at DESC, w.week_start DESC
   LIMIT 1),
  date_trunc('week', clock_timestamp() AT TIME ZONE s.timezone)::date)
FROM {schema}.sites s
WHERE s.id = $1

-- name: has_opened_week
SELECT EXISTS (
  SELECT FROM {schema}.delivery_weeks w
  WHERE w.site_id = $1 AND w.opened_at <= clock_timestamp()
    AND w.week_start BETWEEN '0001-01-01' AND '9999-12-31')

-- name: week_statuses
SELECT o.customer_id, array_agg(DISTINCT o.status::text) AS statuses
FROM {schema}.orders o
WHERE o.site_id = $1 AND o.customer_id = ANY($2::bigint[]) AND o.week_start = $3 AND o.status IS NOT NULL
GROUP BY o.customer_id

-- name: changed_customers
-- In the order of an index on (site_id, updated_at, id). A row with a moment that no datetime holds is found by
-- the full sweep only.
SELECT c.updated_at, c.id, c.id AS customer_id
FROM {schema}.customers c
WHERE c.site_id = $1 AND (c.updated_at, c.id) > ($2, $3) AND c.updated_at < '9999-01-01Z'
ORDER BY c.updated_at, c.id
LIMIT $4

-- name: changed_orders
SELECT o.updated_at, o.id, o.customer_id
FROM {schema}.orders o
WHERE o.site_id = $1 AND (o.updated_at, o.id) > ($2, $3) AND o.updated_at < '9999-01-01Z'
ORDER BY o.updated_at, o.id
LIMIT $4
