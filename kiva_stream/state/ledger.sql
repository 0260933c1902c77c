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
SELECT s.account, c.*, clock_timestamp() - c.moved_at AS moved_ago FROM {schema}.checkpoint c JOIN {schema}.site s USING (site_id) WHERE site_id = $1

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
-- Entries above the watermark are read again.
UPDATE {schema}.checkpoint
SET phase = 'sweep', pending = 0, ahead = '[]', committed_at = now()
WHERE site_id = $1

-- name: commit
-- Writes the ledger, the dead letters, the tallies, the tags due and the watermark in one statement. Rows that
-- other statements write too are written in the order of their keys, so that there is no deadlock.
WITH delivered AS (
  INSERT INTO {schema}.ledger (site_id, txid, log_id, contact_id, event, attempts)
  SELECT $1, * FROM unnest($5::text::bigint[], $6::text::bigint[], $7::text::bigint[], $8::text::smallint[],
                           $9::text::smallint[])
), dead AS (
  SELECT * FROM unnest($10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::smallint[], $15::text[],
                       $16::boolean[]) AS d (txid, log_id, reason, customer_id, attempts, reply, is_replaced)
), inserted AS (
  INSERT INTO {schema}.dead_letter (site_id, txid, log_id, reason, customer_id, attempts, reply)
  SELECT $1, txid, log_id, reason, customer_id, attempts, reply FROM dead WHERE NOT is_replaced
), replaced AS (
  INSERT INTO {schema}.dead_letter (site_id, txid, log_id, reason, customer_id, attempts, reply)
  SELECT $1, txid, log_id, reason, customer_id, attempts, reply FROM dead WHERE is_replaced
  ON CONFLICT (site_id, txid, log_id) DO UPDATE
  SET reason = excluded.reason, customer_id = excluded.customer_id, attempts = excluded.attempts,
      reply = excluded.reply, died_at = excluded.died_at, replay_at = NULL
), parked AS (
  INSERT INTO {schema}.parked (site_id, txid, log_id, contact_id)
  SELECT $1, * FROM unnest($24::bigint[], $25::bigint[], $26::bigint[])
  ON CONFLICT (site_id, txid, log_id) DO UPDATE SET contact_id = excluded.contact_id
  WHERE parked.contact_id <> excluded.contact_id
), unparked AS (
  DELETE FROM {schema}.parked p
  USING unnest($27::bigint[], $28::bigint[]) AS r (txid, log_id)
  WHERE p.site_id = $1 AND (p.txid, p.log_id) = (r.txid, r.log_id)
), reopened AS (
  DELETE FROM {schema}.dead_letter l
  USING unnest($17::bigint[], $18::bigint[]) AS r (txid, log_id)
  WHERE l.site_id = $1 AND (l.txid, l.log_id) = (r.txid, r.log_id)
), counted AS (
  INSERT INTO {schema}.tally (site_id, kind, name, count)
  SELECT $1, t ->> 0, t ->> 1, (t ->> 2)::bigint FROM jsonb_array_elements($19::jsonb) AS t
  ORDER BY t ->> 0, t ->> 1
  ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count
), marked AS (
  INSERT INTO {schema}.tag_due (site_id, contact_id)
  SELECT site_id, id FROM {schema}.contact
  WHERE site_id = $1 AND id = ANY($20::bigint[]) AND status = 'linked' ORDER BY id
  ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT
)
UPDATE {schema}.checkpoint
SET watermark_txid = $2, watermark_id = $3, pending = $4, ahead = $21, out_txids = $22::text::bigint[],
    out_ids = $23::text::bigint[], commits = {schema}.numbered($29, commits), committed_at = now(),
    moved_at = CASE WHEN (watermark_txid, watermark_id) = ($2, $3) THEN moved_at ELSE now() END
WHERE site_id = $1 AND {schema}.renew($1, $30, $31)

-- name: last_commit
SELECT commits FROM {schema}.checkpoint WHERE site_id = $1

-- name: discarded_above
-- Discarded dead letters above the watermark, whose entries are read again.
SELECT d.txid, d.log_id
FROM {schema}.dead_letter d JOIN {schema}.checkpoint c USING (site_id)
WHERE site_id = $1 AND d.discarded_at IS NOT NULL AND (d.txid, d.log_id) > (c.watermark_txid, c.watermark_id)

-- name: counted_from
SELECT counted_txid, counted_id FROM {schema}.checkpoint WHERE site_id = $1

-- name: parked_page
SELECT txid, log_id FROM {schema}.parked
WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)
ORDER BY txid, log_id
LIMIT $6

-- name: parked_above
SELECT count(*) FROM {schema}.parked WHERE site_id = $1 AND (txid, log_id) > ($2, $3)

-- name: parked_of
-- A late arrival is parked without a contact, so it may be of any.
SELECT txid, log_id FROM {schema}.parked WHERE site_id = $1 AND (contact_id = ANY($2::bigint[]) OR contact_id = 0)
ORDER BY txid, log_id

-- name: unresolved_intents
-- The intents whose events may have been sent and have no outcome, if their entries are processed again: read
-- from the log, parked, or dead.
SELECT o.txid, o.log_id
FROM {schema}.checkpoint c
CROSS JOIN LATERAL unnest(c.out_txids, c.out_ids) AS o (txid, log_id)
WHERE c.site_id = $1
  AND NOT EXISTS (SELECT FROM {schema}.ledger l WHERE (l.site_id, l.txid, l.log_id) = ($1, o.txid, o.log_id))
  AND ((o.txid, o.log_id) > (c.watermark_txid, c.watermark_id)
    OR EXISTS (SELECT FROM {schema}.parked p WHERE (p.site_id, p.txid, p.log_id) = ($1, o.txid, o.log_id))
    OR EXISTS (SELECT FROM {schema}.dead_letter d WHERE (d.site_id, d.txid, d.log_id) = ($1, o.txid, o.log_id)))

-- name: earlier_outcomes
SELECT txid, log_id, 'delivered' AS kind, '' AS why
FROM {schema}.ledger WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)
UNION ALL
SELECT txid, log_id, 'dead', reason
FROM {schema}.dead_letter WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)
UNION ALL
SELECT txid, log_id, 'parked', ''
FROM {schema}.parked WHERE site_id = $1 AND (txid, log_id) > ($2, $3) AND (txid, log_id) <= ($4, $5)

-- name: last_resolved
-- The highest position with an outcome, or parked.
SELECT txid, log_id FROM (
  (SELECT txid, log_id FROM {schema}.ledger WHERE site_id = $1 ORDER BY txid DESC, log_id DESC LIMIT 1)
  UNION ALL
  (SELECT txid, log_id FROM {schema}.dead_letter WHERE site_id = $1 ORDER BY txid DESC, log_id DESC LIMIT 1)
  UNION ALL
  (SELECT txid, log_id FROM {schema}.parked WHERE site_id = $1 ORDER BY txid DESC, log_id DESC LIMIT 1)) AS kept
ORDER BY txid DESC, log_id DESC
LIMIT 1

-- name: reopenable
-- A parked entry has a row until its outcome is committed, also if that is none of the ledger's.
SELECT p.txid, p.log_id
FROM unnest($2::bigint[], $3::bigint[], $4::boolean[]) AS p (txid, log_id, is_letter)
WHERE NOT EXISTS (SELECT FROM {schema}.ledger l WHERE (l.site_id, l.txid, l.log_id) = ($1, p.txid, p.log_id))
  AND CASE WHEN p.is_letter
    THEN EXISTS (SELECT FROM {schema}.dead_letter d WHERE (d.site_id, d.txid, d.log_id) = ($1, p.txid, p.log_id))
    ELSE EXISTS (SELECT FROM {schema}.parked k WHERE (k.site_id, k.txid, k.log_id) = ($1, p.txid, p.log_id)) END

-- name: delivered
SELECT l.txid, l.log_id
FROM {schema}.ledger l JOIN unnest($2::bigint[], $3::bigint[]) AS p (txid, log_id) USING (txid, log_id)
WHERE l.site_id = $1

-- name: dead_letters_without_contact
SELECT txid, log_id, reason FROM {schema}.dead_letter
WHERE site_id = $1 AND reason = ANY($2::text[]) AND customer_id = ANY($3::bigint[]) AND discarded_at IS NULL
ORDER BY txid, log_id

-- name: customers_with_dead_letters
SELECT DISTINCT customer_id FROM {schema}.dead_letter
WHERE site_id = $1 AND reason = ANY($2::text[]) AND customer_id IS NOT NULL AND discarded_at IS NULL

-- name: prune_ledger
-- Deletes a slice, and writes in the checkpoint up to where. Returns a row if there may be more to delete.
WITH pruned AS (
  DELETE FROM {schema}.ledger
  WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {schema}.ledger
    WHERE site_id = $1 AND delivered_at < now() - make_interval(days => $2) AND (txid, log_id) <= ($3, $4)
    LIMIT $5))
  RETURNING txid, log_id
), newest AS (
  SELECT txid, log_id FROM pruned ORDER BY txid DESC, log_id DESC LIMIT 1
), noted AS (
  UPDATE {schema}.checkpoint c
  SET forgotten_txid = n.txid, forgotten_id = n.log_id
  FROM newest n
  WHERE c.site_id = $1
    AND (c.forgotten_id IS NULL OR (n.txid, n.log_id) > (c.forgotten_txid, c.forgotten_id))
)
SELECT FROM pruned HAVING count(*) = $5

-- name: tally_contacts
INSERT INTO {schema}.tally (site_id, kind, name, count)
SELECT $1, 'contact', s.status, count(c.id)
FROM unnest(ARRAY['new', 'linked', 'rejected']) AS s (status)
LEFT JOIN {schema}.contact c ON c.site_id = $1 AND c.status = s.status
GROUP BY s.status
ON CONFLICT (site_id, kind, name) DO UPDATE SET count = excluded.count
