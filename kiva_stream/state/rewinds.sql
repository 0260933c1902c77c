-- name: checkpoint_to_rewind
-- An entry in an id gap may still appear, so only ids below the first gap are done.
SELECT s.account, c.watermark_txid, c.watermark_id, c.events_since, c.horizon, c.forgotten_txid, c.forgotten_id,
       least(c.watermark_id,
             (SELECT min(g.first_id) - 1 FROM {schema}.gap g WHERE g.site_id = $1)) AS done_to_id
FROM {schema}.checkpoint c JOIN {schema}.site s USING (site_id)
WHERE site_id = $1

-- name: count_above
-- How much is stored above a position.
SELECT (SELECT count(*) FROM {schema}.ledger WHERE site_id = $1 AND (txid, log_id) > ($2, $3)) AS deliveries,
       (SELECT count(*) FROM {schema}.dead_letter WHERE site_id = $1 AND (txid, log_id) > ($2, $3)) AS dead_letters

-- name: rewind
-- The tallies begin at 0. Entries that were parked above are read again. With $4 the deliveries and dead letters
-- above are deleted, so that their events are sent again, and refused contacts are tried again.
WITH unparked AS (
  DELETE FROM {schema}.parked WHERE site_id = $1 AND (txid, log_id) > ($2, $3)
), undelivered AS (
  DELETE FROM {schema}.ledger WHERE $4::boolean AND site_id = $1 AND (txid, log_id) > ($2, $3)
), undead AS (
  DELETE FROM {schema}.dead_letter WHERE $4 AND site_id = $1 AND (txid, log_id) > ($2, $3)
), unrefused AS (
  UPDATE {schema}.contact
  SET refused_fingerprint = NULL, refused = '', left_out = '{}', status = CASE WHEN why = $10 THEN 'new' ELSE status END,
      why = CASE WHEN why = $10 THEN '' ELSE why END
  WHERE $4 AND site_id = $1 AND (refused_fingerprint IS NOT NULL OR left_out <> '{}' OR why = $10)
), gaps AS (
  DELETE FROM {schema}.gap WHERE site_id = $1 AND (first_id > $3 OR $7)
), uncounted AS (
  DELETE FROM {schema}.tally WHERE site_id = $1 AND kind IN ('outcome', 'event', 'note')
)
UPDATE {schema}.checkpoint
SET watermark_txid = $2, watermark_id = $3, counted_txid = $2, counted_id = $3, since = $5, events_since = $6,
    horizon = $7, pending = 0, ahead = '[]', high_txid = NULL, high_id = NULL, entries = NULL,
    phase = 'contacts', caught_up_at = NULL, committed_at = now(), moved_at = now(), rewound_at = now(),
    out_txids = CASE WHEN $4 THEN '{}' ELSE out_txids END, out_ids = CASE WHEN $4 THEN '{}' ELSE out_ids END
WHERE site_id = $1 AND {schema}.renew($1, $8, $9)

-- name: ids_without_txid
-- A page of the log ids of rows without a transaction id.
SELECT log_id
FROM (SELECT log_id FROM {schema}.ledger WHERE site_id = $1 AND txid = 0 AND log_id > $2
      UNION
      SELECT log_id FROM {schema}.dead_letter WHERE site_id = $1 AND txid = 0 AND log_id > $2
      UNION
      SELECT log_id FROM {schema}.parked WHERE site_id = $1 AND txid = 0 AND log_id > $2) AS kept
ORDER BY log_id
LIMIT $3

-- name: set_txids
-- Writes the transaction ids of rows without one.
WITH positions AS (
  SELECT * FROM unnest($2::bigint[], $3::bigint[]) AS p (txid, log_id)
), delivered AS (
  UPDATE {schema}.ledger k SET txid = p.txid FROM positions p
  WHERE k.site_id = $1 AND k.txid = 0 AND k.log_id = p.log_id
), dead AS (
  UPDATE {schema}.dead_letter k SET txid = p.txid FROM positions p
  WHERE k.site_id = $1 AND k.txid = 0 AND k.log_id = p.log_id
)
UPDATE {schema}.parked k SET txid = p.txid FROM positions p
WHERE k.site_id = $1 AND k.txid = 0 AND k.log_id = p.log_id

-- name: checkpoint_ids
SELECT out_ids, forgotten_id FROM {schema}.checkpoint WHERE site_id = $1

-- name: set_checkpoint_txids
UPDATE {schema}.checkpoint
SET out_txids = $2, out_ids = $3, forgotten_txid = CASE WHEN forgotten_id IS NOT NULL THEN coalesce($4, 0) END
WHERE site_id = $1

-- name: drop_txids
-- Positions become (0, id).
WITH delivered AS (
  UPDATE {schema}.ledger SET txid = 0 WHERE site_id = $1 AND txid <> 0
), dead AS (
  UPDATE {schema}.dead_letter SET txid = 0 WHERE site_id = $1 AND txid <> 0
), parked AS (
  UPDATE {schema}.parked SET txid = 0 WHERE site_id = $1 AND txid <> 0
)
UPDATE {schema}.checkpoint
SET out_txids = array_fill(0::bigint, ARRAY[cardinality(out_ids)]),
    forgotten_txid = CASE WHEN forgotten_id IS NOT NULL THEN 0 END
WHERE site_id = $1
