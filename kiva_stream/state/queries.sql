-- name: version
SELECT max(version) FROM {schema}.version

-- name: take_leases
-- The rows of those that were free; what is not expired is another's.
INSERT INTO {schema}.lease (name, site_id, epoch, holder, taken_at, expires_at)
SELECT n.name, $1, (SELECT coalesce(max(epoch), 0) + 1 FROM {schema}.lease WHERE name = ANY($2::text[])),
       $3, clock_timestamp(), clock_timestamp() + make_interval(secs => $4)
FROM unnest($2::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE
SET site_id = excluded.site_id, epoch = excluded.epoch, holder = excluded.holder,
    taken_at = excluded.taken_at, expires_at = excluded.expires_at
WHERE lease.expires_at <= clock_timestamp() AND lease.epoch < excluded.epoch  -- of two at once, the first
RETURNING epoch

-- name: who_holds
SELECT site_id, holder, extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_s
FROM {schema}.lease
WHERE name = ANY($1::text[]) AND expires_at > clock_timestamp()
ORDER BY name DESC
LIMIT 1

-- name: renew
SELECT {schema}.renew($1, $2, $3)

-- name: release_leases
UPDATE {schema}.lease SET expires_at = clock_timestamp() WHERE site_id = $1 AND epoch = $2

-- name: holder
SELECT holder, taken_at FROM {schema}.lease
WHERE name = 'site ' || $1::int AND expires_at > clock_timestamp()

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
                                 watermark_txid, watermark_id, horizon)
VALUES ($1, $2, $3, $4, $5, $4, $5, $6)

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
  SELECT $1, * FROM unnest($5::text::bigint[], $6::text::bigint[], $7::text::bigint[], $8::text::smallint[],
                           $9::text::smallint[])
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
      reply = excluded.reply, died_at = excluded.died_at, replay_at = NULL
), parked AS (
  INSERT INTO {schema}.parked (site_id, txid, log_id, contact_id)
  SELECT $1, * FROM unnest($24::bigint[], $25::bigint[], $26::bigint[])
), unparked AS (
  DELETE FROM {schema}.parked p
  USING unnest($27::bigint[], $28::bigint[]) AS r (txid, log_id)
  WHERE p.site_id = $1 AND (p.txid, p.log_id) = (r.txid, r.log_id)
), revived AS (
  DELETE FROM {schema}.dead_letter l
  USING unnest($17::bigint[], $18::bigint[]) AS r (txid, log_id)
  WHERE l.site_id = $1 AND (l.txid, l.log_id) = (r.txid, r.log_id)
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, t ->> 0, t ->> 1, (t ->> 2)::bigint FROM jsonb_array_elements($19::jsonb) AS t
  ORDER BY t ->> 0, t ->> 1
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
), touched AS (
  INSERT INTO {schema}.tag_due (site_id, contact_id)
  SELECT site_id, id FROM {schema}.contact
  WHERE site_id = $1 AND id = ANY($20::bigint[]) AND status = 'linked' ORDER BY id
  ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT
)
UPDATE {schema}.checkpoint
SET watermark_txid = $2, watermark_id = $3, pending = $4, ahead = $21, out_txids = $22::text::bigint[],
    out_ids = $23::text::bigint[], commits = {schema}.numbered($29, commits), committed_at = now()
WHERE site_id = $1 AND {schema}.renew($1, $30, $31)

-- name: commits
SELECT commits FROM {schema}.checkpoint WHERE site_id = $1

-- name: discarded
-- Those above the watermark: they come again.
SELECT d.txid, d.log_id
FROM {schema}.dead_letter d JOIN {schema}.checkpoint c USING (site_id)
WHERE site_id = $1 AND d.discarded_at IS NOT NULL AND (d.txid, d.log_id) > (c.watermark_txid, c.watermark_id)

-- name: counted_from
SELECT counted_txid, counted_id FROM {schema}.checkpoint WHERE site_id = $1

-- name: parked
SELECT txid, log_id FROM {schema}.parked WHERE site_id = $1 ORDER BY txid, log_id

-- name: doubts
-- The events that may be out and have no outcome, as far as they come again: from the log, or from aside of it.
SELECT o.txid, o.log_id
FROM {schema}.checkpoint c
CROSS JOIN LATERAL unnest(c.out_txids, c.out_ids) AS o (txid, log_id)
WHERE c.site_id = $1
  AND NOT EXISTS (SELECT FROM {schema}.ledger l WHERE (l.site_id, l.txid, l.log_id) = ($1, o.txid, o.log_id))
  AND ((o.txid, o.log_id) > (c.watermark_txid, c.watermark_id)
    OR EXISTS (SELECT FROM {schema}.parked p WHERE (p.site_id, p.txid, p.log_id) = ($1, o.txid, o.log_id))
    OR EXISTS (SELECT FROM {schema}.dead_letter d WHERE (d.site_id, d.txid, d.log_id) = ($1, o.txid, o.log_id)))

-- name: settled
SELECT txid, log_id, 'delivered' AS kind, '' AS why
FROM {schema}.ledger WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)
UNION ALL
SELECT txid, log_id, 'dead', reason
FROM {schema}.dead_letter WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)
UNION ALL
SELECT txid, log_id, 'parked', ''
FROM {schema}.parked WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)

-- name: settled_to
-- The highest position with an outcome, or parked.
SELECT txid, log_id FROM (
  (SELECT txid, log_id FROM {schema}.ledger WHERE site_id = $1 ORDER BY txid DESC, log_id DESC LIMIT 1)
  UNION ALL
  (SELECT txid, log_id FROM {schema}.dead_letter WHERE site_id = $1 ORDER BY txid DESC, log_id DESC LIMIT 1)
  UNION ALL
  (SELECT txid, log_id FROM {schema}.parked WHERE site_id = $1 ORDER BY txid DESC, log_id DESC LIMIT 1)) AS kept
ORDER BY txid DESC, log_id DESC
LIMIT 1

-- name: unresolved
SELECT p.txid, p.log_id
FROM unnest($2::bigint[], $3::bigint[], $4::boolean[]) AS p (txid, log_id, is_letter)
WHERE NOT EXISTS (SELECT FROM {schema}.ledger l WHERE (l.site_id, l.txid, l.log_id) = ($1, p.txid, p.log_id))
  AND (NOT p.is_letter OR EXISTS (
    SELECT FROM {schema}.dead_letter d WHERE (d.site_id, d.txid, d.log_id) = ($1, p.txid, p.log_id)))

-- name: letters
SELECT txid, log_id, reason FROM {schema}.dead_letter
WHERE site_id = $1 AND reason = ANY($2::text[]) AND customer_id = ANY($3::bigint[]) AND discarded_at IS NULL
ORDER BY txid, log_id

-- name: customers_with_letters
SELECT DISTINCT customer_id FROM {schema}.dead_letter
WHERE site_id = $1 AND reason = ANY($2::text[]) AND customer_id IS NOT NULL AND discarded_at IS NULL

-- name: forget_old_deliveries
-- The checkpoint says up to where the ledger is not whole any more; the row says that there may be more.
WITH forgotten AS (
  DELETE FROM {schema}.ledger
  WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.ledger
    WHERE site_id = $1 AND delivered_at < now() - make_interval(days => $2) AND (txid, log_id) <= ($3, $4)
    LIMIT $5))
  RETURNING txid, log_id
), newest AS (
  SELECT txid, log_id FROM forgotten ORDER BY txid DESC, log_id DESC LIMIT 1
), noted AS (
  UPDATE {schema}.checkpoint c
  SET forgotten_txid = n.txid, forgotten_id = n.log_id
  FROM newest n
  WHERE c.site_id = $1
    AND (c.forgotten_id IS NULL OR (n.txid, n.log_id) > (c.forgotten_txid, c.forgotten_id))
)
SELECT FROM forgotten HAVING count(*) = $5

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
  SET status = 'linked', why = '', fingerprint = sent.fingerprint, confirmed_at = now(), erased_at = NULL,
      unsubscribed = coalesce(sent.unsubscribed, c.unsubscribed), ac_id = coalesce(sent.ac_id, c.ac_id)
  FROM sent
  WHERE c.id = sent.id
  RETURNING c.site_id, c.id, sent.status
)
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM confirmed WHERE status <> 'linked' ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: note_erased
UPDATE {schema}.contact SET erased_at = coalesce(erased_at, now()) WHERE id = $1

-- name: erased
-- Who is erased at the shop and still at ActiveCampaign: for `forget`.
SELECT l.customer_id
FROM {schema}.contact c JOIN {schema}.customer l ON l.contact_id = c.id
WHERE c.site_id = $1 AND c.erased_at IS NOT NULL
ORDER BY 1

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
    unsubscribed = false, erased_at = NULL
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
    accepted_at = excluded.accepted_at, discarded_at = NULL

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

-- name: site_progress
-- Read in one statement, since whoever works the site moves all of it together.
SELECT s.account, c.*,
       (SELECT coalesce(sum(count), 0) FROM {schema}.tally t WHERE t.site_id = $1 AND t.kind = 'outcome')
         AS outcomes,
       (SELECT count(*) FROM {schema}.parked p
        WHERE p.site_id = $1 AND (p.txid, p.log_id) > (c.counted_txid, c.counted_id)) AS parked,
       EXISTS (SELECT FROM {schema}.lease l WHERE l.site_id = $1 AND l.expires_at > clock_timestamp()) AS is_held
FROM {schema}.checkpoint c JOIN {schema}.site s USING (site_id)
WHERE site_id = $1

-- name: has_customer
-- Of a contact.
EXISTS (SELECT FROM {schema}.customer l WHERE l.contact_id = c.id)

-- name: sample_contacts
{linked}
WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer}
ORDER BY random()
LIMIT $2

-- name: count_contacts_with_customer
SELECT count(*) FROM {schema}.contact c WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer}

-- name: contacts_without_customer
{linked}
WHERE c.site_id = $1 AND c.status = 'linked' AND NOT {has_customer}
ORDER BY c.id

-- name: contacts_without_id
{linked}
WHERE c.site_id = $1 AND c.status = 'linked' AND {has_customer} AND c.ac_id IS NULL
ORDER BY c.id

-- name: due_among
SELECT contact_id FROM {schema}.tag_due WHERE site_id = $1 AND contact_id = ANY($2::bigint[])

-- name: deliveries_of
SELECT contact_id, txid, log_id, event, delivered_at
FROM {schema}.ledger WHERE site_id = $1 AND contact_id = ANY($2::bigint[])
ORDER BY txid, log_id

-- name: accounted_for
-- Those of entries whose event was delivered, to whichever contact, or is dead or parked.
SELECT p.txid, p.log_id
FROM unnest($2::bigint[], $3::bigint[]) AS p (txid, log_id)
WHERE EXISTS (SELECT FROM {schema}.ledger l WHERE (l.site_id, l.txid, l.log_id) = ($1, p.txid, p.log_id))
   OR EXISTS (SELECT FROM {schema}.dead_letter d WHERE (d.site_id, d.txid, d.log_id) = ($1, p.txid, p.log_id))
   OR EXISTS (SELECT FROM {schema}.parked k WHERE (k.site_id, k.txid, k.log_id) = ($1, p.txid, p.log_id))

-- name: forgotten_among
SELECT customer_id FROM {schema}.tombstone WHERE site_id = $1 AND customer_id = ANY($2::bigint[])

-- name: unconfirm_contacts
UPDATE {schema}.contact SET fingerprint = NULL, unsubscribed = false, tag = NULL, tag_link = NULL
WHERE site_id = $1 AND id = ANY($2::bigint[])

-- name: unconfirm_orders
UPDATE {schema}.sent_order SET fingerprint = '' WHERE site_id = $1 AND order_id = ANY($2::bigint[])

-- name: keep_resent
INSERT INTO {schema}.ledger (site_id, txid, log_id, contact_id, event, attempts) VALUES ($1, $2, $3, $4, $5, 1)
ON CONFLICT (site_id, txid, log_id) DO UPDATE
SET contact_id = excluded.contact_id, attempts = ledger.attempts + 1, delivered_at = now()

-- name: backlog
SELECT count(*) FROM {schema}.tag_due WHERE site_id = $1

-- name: persist_incidents
-- Just these: what is over goes.
WITH found AS (
  SELECT * FROM unnest($2::text[], $3::timestamptz[], $4::text[]) AS f (kind, since, why)
), over AS (
  DELETE FROM {schema}.trouble WHERE site_id = $1 AND kind NOT IN (SELECT kind FROM found)
)
INSERT INTO {schema}.trouble (site_id, kind, since, why)
SELECT $1, * FROM found
ON CONFLICT (site_id, kind) DO UPDATE SET since = excluded.since, why = excluded.why

-- name: incidents
SELECT kind, since, why FROM {schema}.trouble WHERE site_id = $1 ORDER BY since, kind

-- name: chosen
-- The dead letters that are meant: of a reason, of customers, at positions; NULL says nothing about it.
site_id = $1 AND ($2::text IS NULL OR reason = $2) AND ($3::bigint[] IS NULL OR customer_id = ANY($3))
  AND ($4::bigint[] IS NULL OR (txid, log_id) IN (SELECT * FROM unnest($4, $5::bigint[])))

-- name: dead_letters
-- The newest first where $6 is -1, the oldest where it is 1.
SELECT txid, log_id, reason, customer_id, attempts, reply, died_at, replay_at, discarded_at
FROM {schema}.dead_letter
WHERE {chosen}
ORDER BY extract(epoch FROM died_at) * $6::int, txid * $6, log_id * $6
LIMIT $7

-- name: count_letters
SELECT reason, count(*), count(replay_at) AS asked, count(discarded_at) AS discarded
FROM {schema}.dead_letter
WHERE {chosen}
GROUP BY reason
ORDER BY reason

-- name: ask_letters
-- Discarded ones only where their positions are named. Who was asked for before stays so.
WITH asked AS (
  UPDATE {schema}.dead_letter
  SET replay_at = coalesce(replay_at, clock_timestamp()), discarded_at = NULL
  WHERE {chosen} AND ($4 IS NOT NULL OR discarded_at IS NULL)
  RETURNING 1
)
SELECT count(*) FROM asked

-- name: discard_letters
WITH discarded AS (
  UPDATE {schema}.dead_letter
  SET discarded_at = now(), replay_at = NULL
  WHERE {chosen} AND discarded_at IS NULL
  RETURNING 1
)
SELECT count(*) FROM discarded

-- name: asked_letters
SELECT txid, log_id, reason, replay_at FROM {schema}.dead_letter
WHERE site_id = $1 AND replay_at IS NOT NULL
ORDER BY txid, log_id

-- name: of_one_contact
-- The customers of the contact of one of them.
SELECT other.customer_id
FROM {schema}.customer one JOIN {schema}.customer other USING (contact_id)
WHERE one.site_id = $1 AND one.customer_id = $2

-- name: refused
-- The refused orders that are meant: of these ids, or all of them.
site_id = $1 AND refused <> '' AND ($2::bigint[] IS NULL OR order_id = ANY($2))

-- name: refused_orders
SELECT order_id, refused, fingerprint = '' AS is_asked, discarded_at
FROM {schema}.sent_order
WHERE {refused}
ORDER BY order_id * $3::int
LIMIT $4

-- name: count_refused
SELECT count(*), count(*) FILTER (WHERE fingerprint = '') AS asked, count(discarded_at) AS discarded
FROM {schema}.sent_order
WHERE {refused}

-- name: ask_orders
-- Without its fingerprint an order is sent again when it is looked at. Discarded ones only where $3 says so.
WITH asked AS (
  UPDATE {schema}.sent_order SET fingerprint = '', discarded_at = NULL
  WHERE {refused} AND ($3::boolean OR discarded_at IS NULL)
  RETURNING 1
)
SELECT count(*) FROM asked

-- name: discard_orders
WITH discarded AS (
  UPDATE {schema}.sent_order SET discarded_at = now()
  WHERE {refused} AND discarded_at IS NULL
  RETURNING 1
)
SELECT count(*) FROM discarded

-- name: asked_orders
SELECT order_id FROM {schema}.sent_order
WHERE site_id = $1 AND refused <> '' AND fingerprint = '' AND discarded_at IS NULL
ORDER BY order_id

-- name: kept_start
-- What a rewind looks at. An id that was not there when it was read past may still come.
SELECT s.account, c.watermark_txid, c.watermark_id, c.events_since, c.horizon, c.forgotten_txid, c.forgotten_id,
       least(c.watermark_id,
             (SELECT min(g.first_id) - 1 FROM {schema}.gap g WHERE g.site_id = $1)) AS done_to_id
FROM {schema}.checkpoint c JOIN {schema}.site s USING (site_id)
WHERE site_id = $1

-- name: above
-- What is kept above a position.
SELECT (SELECT count(*) FROM {schema}.ledger WHERE site_id = $1 AND (txid, log_id) > ($2, $3)) AS deliveries,
       (SELECT count(*) FROM {schema}.dead_letter WHERE site_id = $1 AND (txid, log_id) > ($2, $3)) AS dead_letters

-- name: rewind
-- The counts begin anew; what was parked above is read again. With $4 what the ledger holds above is sent again.
WITH unparked AS (
  DELETE FROM {schema}.parked WHERE site_id = $1 AND (txid, log_id) > ($2, $3)
), undelivered AS (
  DELETE FROM {schema}.ledger WHERE $4::boolean AND site_id = $1 AND (txid, log_id) > ($2, $3)
), undead AS (
  DELETE FROM {schema}.dead_letter WHERE $4 AND site_id = $1 AND (txid, log_id) > ($2, $3)
), gaps AS (
  DELETE FROM {schema}.gap WHERE site_id = $1 AND (first_id > $3 OR $7)
), uncounted AS (
  DELETE FROM {schema}.tally WHERE site_id = $1 AND kind IN ('outcome', 'event', 'note')
)
UPDATE {schema}.checkpoint
SET watermark_txid = $2, watermark_id = $3, counted_txid = $2, counted_id = $3, since = $5, events_since = $6,
    horizon = $7, pending = 0, ahead = '[]', high_txid = NULL, high_id = NULL, entries = NULL,
    phase = 'contacts', caught_up_at = NULL, committed_at = now(),
    out_txids = CASE WHEN $4 THEN '{}' ELSE out_txids END, out_ids = CASE WHEN $4 THEN '{}' ELSE out_ids END
WHERE site_id = $1 AND {schema}.renew($1, $8, $9)

-- name: keys_without_txid
-- The log's ids of what the state keeps by id alone, a page of them.
SELECT log_id
FROM (SELECT log_id FROM {schema}.ledger WHERE site_id = $1 AND txid = 0 AND log_id > $2
      UNION
      SELECT log_id FROM {schema}.dead_letter WHERE site_id = $1 AND txid = 0 AND log_id > $2
      UNION
      SELECT log_id FROM {schema}.parked WHERE site_id = $1 AND txid = 0 AND log_id > $2) AS kept
ORDER BY log_id
LIMIT $3

-- name: set_txids
-- Gives what is kept by id alone the positions that the log says.
WITH places AS (
  SELECT * FROM unnest($2::bigint[], $3::bigint[]) AS p (txid, log_id)
), delivered AS (
  UPDATE {schema}.ledger k SET txid = p.txid FROM places p
  WHERE k.site_id = $1 AND k.txid = 0 AND k.log_id = p.log_id
), dead AS (
  UPDATE {schema}.dead_letter k SET txid = p.txid FROM places p
  WHERE k.site_id = $1 AND k.txid = 0 AND k.log_id = p.log_id
)
UPDATE {schema}.parked k SET txid = p.txid FROM places p
WHERE k.site_id = $1 AND k.txid = 0 AND k.log_id = p.log_id

-- name: kept_ids
SELECT out_ids, forgotten_id FROM {schema}.checkpoint WHERE site_id = $1

-- name: set_kept_txids
UPDATE {schema}.checkpoint
SET out_txids = $2, out_ids = $3, forgotten_txid = CASE WHEN forgotten_id IS NOT NULL THEN coalesce($4, 0) END
WHERE site_id = $1

-- name: drop_txids
-- From now on positions are ids: (0, id).
WITH delivered AS (
  UPDATE {schema}.ledger SET txid = 0 WHERE site_id = $1 AND txid <> 0
), dead AS (
  UPDATE {schema}.dead_letter SET txid = 0 WHERE site_id = $1 AND txid <> 0
), waiting AS (
  UPDATE {schema}.parked SET txid = 0 WHERE site_id = $1 AND txid <> 0
)
UPDATE {schema}.checkpoint
SET out_txids = array_fill(0::bigint, ARRAY[cardinality(out_ids)]),
    forgotten_txid = CASE WHEN forgotten_id IS NOT NULL THEN 0 END
WHERE site_id = $1

-- name: tombstones
SELECT t.customer_id, t.address_hash, s.hash_key
FROM {schema}.tombstone t JOIN {schema}.site s USING (site_id)
WHERE site_id = $1

-- name: hash_key
UPDATE {schema}.site SET hash_key = coalesce(hash_key, $2) WHERE site_id = $1 RETURNING hash_key

-- name: put_tombstone
INSERT INTO {schema}.tombstone (site_id, customer_id, address_hash) VALUES ($1, $2, $3)
ON CONFLICT (site_id, customer_id) DO UPDATE SET address_hash = coalesce(excluded.address_hash, tombstone.address_hash)

-- name: forget_orders
WITH gone AS (
  DELETE FROM {schema}.sent_order WHERE site_id = $1 AND order_id = ANY($2::bigint[]) RETURNING refused
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, 'order', CASE refused WHEN '' THEN 'sent' ELSE 'refused' END AS name, -count(*)
  FROM gone GROUP BY name ORDER BY name
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
)
SELECT FROM gone

-- name: forget_customer
-- The counts stay: a dead letter that is forgotten is an entry that died all the same.
WITH links AS (
  DELETE FROM {schema}.customer WHERE site_id = $1 AND customer_id = $2 RETURNING 1
), letters AS (
  DELETE FROM {schema}.dead_letter WHERE site_id = $1 AND customer_id = $2 RETURNING 1
)
SELECT (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM letters) AS dead_letters

-- name: forget_contact
-- What is parked stays, as it names nobody: it is skipped when its turn comes.
WITH letters AS (
  DELETE FROM {schema}.dead_letter
  WHERE site_id = $1 AND customer_id IN (SELECT customer_id FROM {schema}.customer WHERE contact_id = $2)
  RETURNING 1
), links AS (
  DELETE FROM {schema}.customer WHERE contact_id = $2 RETURNING 1
), due AS (
  DELETE FROM {schema}.tag_due WHERE contact_id = $2
), events AS (
  DELETE FROM {schema}.ledger WHERE site_id = $1 AND contact_id = $2 RETURNING 1
), contacts AS (
  DELETE FROM {schema}.contact WHERE id = $2 RETURNING 1
)
SELECT (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM letters) AS dead_letters,
       (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM contacts) AS contacts

-- name: gaps
SELECT first_id, last_id, seen_at FROM {schema}.gap
WHERE site_id = $1 AND first_id > $2 AND last_id <= $3
ORDER BY first_id
LIMIT $4

-- name: drop_gaps
DELETE FROM {schema}.gap WHERE site_id = $1 AND first_id > $2 AND first_id <= $3

-- name: cut_gap
-- The gap in the middle of which reading begins ends there.
UPDATE {schema}.gap SET last_id = $2 WHERE site_id = $1 AND first_id <= $2 AND last_id > $2

-- name: add_gaps
INSERT INTO {schema}.gap (site_id, first_id, last_id, seen_at)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::timestamptz[])

-- name: close_gaps
DELETE FROM {schema}.gap WHERE site_id = $1 AND first_id = ANY($2::bigint[])

-- name: park_late
-- Parked without a contact, until they have their outcome.
INSERT INTO {schema}.parked (site_id, txid, log_id, contact_id)
SELECT $1, l.txid, l.log_id, 0 FROM unnest($2::bigint[], $3::bigint[]) AS l (txid, log_id)
ON CONFLICT DO NOTHING

-- name: forget_gaps
DELETE FROM {schema}.gap WHERE site_id = $1 AND seen_at < now() - make_interval(secs => $2)
