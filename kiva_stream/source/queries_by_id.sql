-- These blocks replace those of queries.sql if the log is read without a horizon: positions are (0, id), and the
-- column txid may be missing.

-- name: txid
'0'::xid8

-- name: is_safe
true

-- name: is_above
l.id > $3 AND $2::bigint >= 0

-- name: is_up_to_second
l.id <= $3 AND $2::bigint >= 0

-- name: is_up_to
l.id <= $5 AND $4::bigint >= 0

-- name: is_at
l.id = p.id

-- name: log_order
l.id

-- name: log_order_reversed
l.id DESC
