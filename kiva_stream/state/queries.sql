-- name: version
SELECT max(version) FROM {schema}.version

-- name: bind_site
INSERT INTO {schema}.site (site_id, account) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: set_contact_url
UPDATE {schema}.site SET contact_url = $2 WHERE site_id = $1

-- name: site
SELECT * FROM {schema}.site WHERE site_id = $1

-- name: site_of_account
SELECT site_id FROM {schema}.site WHERE account = $1

-- name: begin_checkpoint
INSERT INTO {schema}.checkpoint (site_id, since, events_since, counted_txid, counted_id,
                                 watermark_txid, watermark_id)
VALUES ($1, $2, $3, $4, $5, $4, $5)

-- name: checkpoint
SELECT s.account, c.* FROM {schema}.checkpoint c JOIN {schema}.site s USING (site_id) WHERE site_id = $1

-- name: set_phase
UPDATE {schema}.checkpoint SET phase = $2, committed_at = now() WHERE site_id = $1

-- name: begin_backfill
UPDATE {schema}.checkpoint
SET high_txid = $2, high_id = $3, entries = $4, phase = 'contacts', pending = 0, ahead = '[]',
    committed_at = now()
WHERE site_id = $1

-- name: set_caught_up
UPDATE {schema}.checkpoint SET caught_up_at = $2 WHERE site_id = $1

-- name: begin_sweep
-- What lies above the watermark is read again.
UPDATE {schema}.checkpoint
SET phase = 'sweep', pending = 0, ahead = '[]', committed_at = now()
WHERE site_id = $1

-- name: commit
-- The ledger, the dead letters, the counts, the tags due and the watermark move together, or not at all.
-- Rows that others write too are written in the order of their keys, so that two never wait for each other.
WITH delivered AS (
  INSERT INTO {schema}.ledger (site_id, txid, log_id, contact_id, event, attempts)
  SELECT $1, * FROM unnest($5::bigint[], $6::bigint[], $7::bigint[], $8::smallint[], $9::smallint[])
), dead AS (
  SELECT * FROM unnest($10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::smallint[], $15::text[],
                       $16::boolean[]) AS d (txid, log_id, reason, customer_id, attempts, reply, is_again)
), died AS (
  INSERT INTO {schema}.dead_letter (site_id, txid, log_id, reason, customer_id, attempts, reply)
  SELECT $1, txid, log_id, reason, customer_id, attempts, reply FROM dead WHERE NOT is_again
), died_again AS (
  INSERT INTO {schema}.dead_letter (site_id, txid, log_id, reason, customer_id, attempts, reply)
  SELECT $1, txid, log_id, reason, customer_id, attempts, reply FROM dead WHERE is_again
  ON CONFLICT (site_id, txid, log_id) DO UPDATE
  SET reason = excluded.reason, customer_id = excluded.customer_id, attempts = excluded.attempts,
      reply = excluded.reply, died_at = excluded.died_at
), revived AS (
  DELETE FROM {schema}.dead_letter l
  USING unnest($17::bigint[], $18::bigint[]) AS r (txid, log_id)
  WHERE l.site_id = $1 AND (l.txid, l.log_id) = (r.txid, r.log_id)
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, * FROM unnest($19::text[], $20::text[], $21::bigint[]) AS t (kind, name, count)
  ORDER BY kind, name
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
), touched AS (
  INSERT INTO {schema}.tag_due (site_id, contact_id)
  SELECT site_id, id FROM {schema}.contact
  WHERE site_id = $1 AND id = ANY($22::bigint[]) AND status = 'linked' ORDER BY id
  ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT
)
UPDATE {schema}.checkpoint
SET watermark_txid = $2, watermark_id = $3, pending = $4, ahead = $23, committed_at = now()
WHERE site_id = $1

-- name: letters
SELECT txid, log_id, reason FROM {schema}.dead_letter
WHERE site_id = $1 AND reason = ANY($2::text[]) AND customer_id = ANY($3::bigint[])
ORDER BY txid, log_id

-- name: customers_with_letters
SELECT DISTINCT customer_id FROM {schema}.dead_letter
WHERE site_id = $1 AND reason = ANY($2::text[]) AND customer_id IS NOT NULL

-- name: delivered_above
SELECT txid, log_id FROM {schema}.ledger WHERE site_id = $1 AND (txid, log_id) > ($2, $3)

-- name: dead_above
SELECT txid, log_id, reason FROM {schema}.dead_letter WHERE site_id = $1 AND (txid, log_id) > ($2, $3)

-- name: forget_old_deliveries
DELETE FROM {schema}.ledger
WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM {schema}.ledger
  WHERE site_id = $1 AND delivered_at < now() - make_interval(days => $2) AND (txid, log_id) <= ($3, $4)
  LIMIT $5))

-- name: tallies
SELECT kind, name, count FROM {schema}.tally WHERE site_id = $1 ORDER BY kind, name

-- name: count_contacts
INSERT INTO {schema}.tally (site_id, kind, name, count)
SELECT $1, 'contact', s.status, count(c.id)
FROM unnest(ARRAY['new', 'linked', 'rejected']) AS s (status)
LEFT JOIN {schema}.contact c ON c.site_id = $1 AND c.status = s.status
GROUP BY s.status
ON CONFLICT (site_id, kind, name) DO UPDATE SET count = excluded.count

-- name: contacts_of_customers
SELECT l.customer_id, c.id, c.email, c.status, c.why
FROM {schema}.customer l JOIN {schema}.contact c ON c.id = l.contact_id
WHERE l.site_id = $1 AND l.customer_id = ANY($2::bigint[])

-- name: add_contacts
INSERT INTO {schema}.contact (site_id, email)
SELECT $1, e FROM unnest($2::text[]) e
ON CONFLICT (site_id, email) DO NOTHING

-- name: add_customers
INSERT INTO {schema}.customer (site_id, customer_id, contact_id)
SELECT $1, n.customer_id, c.id
FROM unnest($2::bigint[], $3::text[]) AS n (customer_id, email)
JOIN {schema}.contact c ON c.site_id = $1 AND c.email = n.email
ON CONFLICT (site_id, customer_id) DO UPDATE SET contact_id = excluded.contact_id

-- name: adopt
UPDATE {schema}.contact SET ac_id = coalesce($3, ac_id) WHERE site_id = $1 AND email = $2
RETURNING id, email, status, why

-- name: linked
SELECT c.id, c.email, c.status, c.why, c.fingerprint, c.ac_id, c.tag, c.tag_link, c.unsubscribed,
       ARRAY(SELECT l.customer_id FROM {schema}.customer l WHERE l.contact_id = c.id ORDER BY 1) AS customers
FROM {schema}.contact c

-- name: contacts_after
{linked}
WHERE c.site_id = $1 AND c.id > $2
ORDER BY c.id
LIMIT $3

-- name: contacts
{linked}
WHERE c.site_id = $1 AND c.id = ANY($2::bigint[])

-- name: contact_at
{linked}
WHERE c.site_id = $1 AND c.email = $2

-- name: confirm
-- An `unsubscribed` or `ac_id` that is NULL leaves what is there. Who was not linked before is due: the week
-- may have changed since its tag was chosen.
WITH sent AS (
  SELECT c.id, c.status, n.fingerprint, n.unsubscribed, n.ac_id
  FROM unnest($1::bigint[], $2::bytea[], $3::boolean[], $4::bigint[])
    AS n (id, fingerprint, unsubscribed, ac_id)
  JOIN {schema}.contact c ON c.id = n.id
  ORDER BY c.id
  FOR NO KEY UPDATE OF c
), confirmed AS (
  UPDATE {schema}.contact c
  SET status = 'linked', why = '', fingerprint = sent.fingerprint, confirmed_at = now(),
      unsubscribed = coalesce(sent.unsubscribed, c.unsubscribed), ac_id = coalesce(sent.ac_id, c.ac_id)
  FROM sent
  WHERE c.id = sent.id
  RETURNING c.site_id, c.id, sent.status
)
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM confirmed WHERE status <> 'linked' ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: set_unsubscribed
UPDATE {schema}.contact SET unsubscribed = $2 WHERE id = $1

-- name: reject
UPDATE {schema}.contact SET status = 'rejected', why = $2 WHERE id = $1

-- name: give_tags
UPDATE {schema}.contact c
SET tag = n.tag, tag_link = NULL
FROM unnest($1::bigint[], $2::text[]) AS n (id, tag)
WHERE c.id = n.id

-- name: forget_tags
UPDATE {schema}.contact SET tag = NULL, tag_link = NULL WHERE id = ANY($1::bigint[])

-- name: set_tag
UPDATE {schema}.contact SET ac_id = $2, tag = $3, tag_link = $4 WHERE id = $1

-- name: learn
WITH learned AS (
  UPDATE {schema}.contact c
  SET ac_id = n.ac_id
  FROM unnest($2::text[], $3::bigint[]) AS n (email, ac_id)
  WHERE c.site_id = $1 AND c.email = n.email
)
UPDATE {schema}.site SET known_to = $4 WHERE site_id = $1

-- name: set_email
UPDATE {schema}.contact SET email = $2 WHERE id = $1

-- name: dissolve
WITH alone AS (
  DELETE FROM {schema}.customer WHERE contact_id = $1
), not_due AS (
  DELETE FROM {schema}.tag_due WHERE contact_id = $1
)
UPDATE {schema}.contact
SET status = 'new', why = '', fingerprint = NULL, confirmed_at = NULL, tag = NULL, tag_link = NULL,
    unsubscribed = false
WHERE id = $1

-- name: add_notes
INSERT INTO {schema}.tally (site_id, kind, name, count)
SELECT $1, 'note', * FROM unnest($2::text[], $3::bigint[]) AS n (name, count) ORDER BY name
ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count

-- name: open_imports
SELECT id, contact_ids, fingerprints, unsubscribed, is_short
FROM {schema}.import WHERE site_id = $1 ORDER BY accepted_at

-- name: keep_import
INSERT INTO {schema}.import (site_id, id, contact_ids, fingerprints, unsubscribed, is_short)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: close_import
DELETE FROM {schema}.import WHERE site_id = $1 AND id = $2

-- name: sent_orders
SELECT order_id, source, fingerprint, refused, accepted_at
FROM {schema}.sent_order WHERE site_id = $1 AND order_id = ANY($2::bigint[])

-- name: sent_between
SELECT order_id FROM {schema}.sent_order
WHERE site_id = $1 AND order_id > $2 AND order_id <= $3
ORDER BY order_id

-- name: keep_orders
-- With their counts, so that nobody has to count them.
WITH new AS (
  SELECT * FROM unnest($2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[])
    AS n (order_id, source, fingerprint, refused, accepted_at)
), old AS (
  SELECT order_id, refused FROM {schema}.sent_order
  WHERE site_id = $1 AND order_id IN (SELECT order_id FROM new)
), moved AS (
  SELECT refused, 1 AS count FROM new UNION ALL SELECT refused, -1 FROM old
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, 'order', CASE refused WHEN '' THEN 'sent' ELSE 'refused' END AS name, sum(count)
  FROM moved GROUP BY name ORDER BY name
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
)
INSERT INTO {schema}.sent_order (site_id, order_id, source, fingerprint, refused, accepted_at)
SELECT $1, * FROM new
ORDER BY order_id
ON CONFLICT (site_id, order_id) DO UPDATE
SET source = excluded.source, fingerprint = excluded.fingerprint, refused = excluded.refused,
    accepted_at = excluded.accepted_at

-- name: all_due
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM {schema}.contact WHERE site_id = $1 AND status = 'linked' ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: open_week
WITH opened AS (
  UPDATE {schema}.site SET week_start = $2 WHERE site_id = $1
)
{all_due}

-- name: add_due
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM {schema}.contact WHERE site_id = $1 AND id = ANY($2::bigint[]) AND status = 'linked'
ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: due_after
SELECT due.mark, contact.*
FROM {schema}.tag_due due JOIN ({linked}) contact ON contact.id = due.contact_id
WHERE due.site_id = $1 AND due.contact_id > $2
ORDER BY due.contact_id
LIMIT $3

-- name: settle_due
DELETE FROM {schema}.tag_due
WHERE (site_id, contact_id) IN (
  SELECT due.site_id, due.contact_id
  FROM {schema}.tag_due due
  JOIN unnest($2::bigint[], $3::bigint[]) AS n (contact_id, mark) USING (contact_id, mark)
  WHERE due.site_id = $1
  ORDER BY due.contact_id
  FOR UPDATE OF due)

-- name: backlog
SELECT count(*) FROM {schema}.tag_due WHERE site_id = $1
