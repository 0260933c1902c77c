-- name: contacts_of_customers
SELECT l.customer_id, c.id, c.email, c.status, c.why, c.refused
FROM {schema}.customer l JOIN {schema}.contact c ON c.id = l.contact_id
WHERE l.site_id = $1 AND l.customer_id = ANY($2::bigint[])

-- name: insert_contacts
INSERT INTO {schema}.contact (site_id, email)
SELECT $1, e FROM unnest($2::text[]) e
ON CONFLICT (site_id, email) DO NOTHING

-- name: link_customers
INSERT INTO {schema}.customer (site_id, customer_id, contact_id)
SELECT $1, n.customer_id, c.id
FROM unnest($2::bigint[], $3::text[]) AS n (customer_id, email)
JOIN {schema}.contact c ON c.site_id = $1 AND c.email = n.email
ON CONFLICT (site_id, customer_id) DO UPDATE SET contact_id = excluded.contact_id

-- name: set_ac_id_of_email
UPDATE {schema}.contact SET ac_id = coalesce($3, ac_id) WHERE site_id = $1 AND email = $2
RETURNING id, email, status, why, refused

-- name: contact_records
SELECT c.id, c.email, c.status, c.why, c.refused, c.fingerprint, c.refused_fingerprint, c.left_out::text,
       c.ac_id, c.tag, c.tag_link, c.unsubscribed, c.taken_off, c.not_on_list,
       ARRAY(SELECT l.customer_id FROM {schema}.customer l WHERE l.contact_id = c.id ORDER BY 1) AS customers
FROM {schema}.contact c

-- name: contacts_after
{contact_records}
WHERE c.site_id = $1 AND c.id > $2
ORDER BY c.id
LIMIT $3

-- name: contacts
{contact_records}
WHERE c.site_id = $1 AND c.id = ANY($2::bigint[])

-- name: contact_of_email
{contact_records}
WHERE c.site_id = $1 AND c.email = $2

-- name: confirm_contacts
-- An `unsubscribed` or `ac_id` that is NULL changes nothing. A contact that was not linked before is due: the
-- week may have changed since its tag was chosen; and it is on the list if an import brought it.
WITH sent AS (
  SELECT c.id, c.status, n.fingerprint, n.unsubscribed, n.ac_id, n.came_alone
  FROM unnest($1::bigint[], $2::bytea[], $3::boolean[], $4::bigint[], $5::boolean[])
    AS n (id, fingerprint, unsubscribed, ac_id, came_alone)
  JOIN {schema}.contact c ON c.id = n.id
  ORDER BY c.id
  FOR NO KEY UPDATE OF c
), confirmed AS (
  UPDATE {schema}.contact c
  SET status = 'linked', why = '', fingerprint = sent.fingerprint, confirmed_at = now(), erased_at = NULL,
      refused_fingerprint = NULL, refused = '', unsubscribed = coalesce(sent.unsubscribed, c.unsubscribed),
      taken_off = c.taken_off OR coalesce(sent.unsubscribed, false), ac_id = coalesce(sent.ac_id, c.ac_id),
      not_on_list = CASE
        WHEN sent.unsubscribed THEN NULL
        WHEN sent.status = 'linked' THEN c.not_on_list
        WHEN sent.came_alone THEN 'came alone'
      END
  FROM sent
  WHERE c.id = sent.id
  RETURNING c.site_id, c.id, sent.status
)
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM confirmed WHERE status <> 'linked' ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: set_erased
UPDATE {schema}.contact SET erased_at = coalesce(erased_at, now()) WHERE id = $1

-- name: set_unsubscribed
UPDATE {schema}.contact SET unsubscribed = $2, taken_off = $2, not_on_list = NULL WHERE id = $1

-- name: set_on_list
UPDATE {schema}.contact SET not_on_list = NULL WHERE id = ANY($1::bigint[])

-- name: reject_contact
UPDATE {schema}.contact SET status = 'rejected', why = $2 WHERE id = $1

-- name: refuse_contact
-- A linked contact stays as it was.
UPDATE {schema}.contact
SET refused_fingerprint = $2, refused = $3, status = CASE status WHEN 'linked' THEN status ELSE 'rejected' END,
    why = CASE status WHEN 'linked' THEN why ELSE $4 END
WHERE id = $1
RETURNING id, status, why, refused

-- name: leave_out
UPDATE {schema}.contact SET left_out = left_out || jsonb_build_object($2::text, jsonb_build_array($3::text, $4::text))
WHERE id = $1

-- name: retry_refused
UPDATE {schema}.contact
SET refused_fingerprint = NULL, refused = '', left_out = '{}', status = CASE WHEN why = $2 THEN 'new' ELSE status END,
    why = CASE WHEN why = $2 THEN '' ELSE why END
WHERE id = ANY($1::bigint[]) AND (refused_fingerprint IS NOT NULL OR left_out <> '{}' OR why = $2)
RETURNING id, status, why, refused

-- name: set_import_tags
UPDATE {schema}.contact c
SET tag = n.tag, tag_link = NULL
FROM unnest($1::bigint[], $2::text[]) AS n (id, tag)
WHERE c.id = n.id

-- name: set_ac_ids
WITH written AS (
  UPDATE {schema}.contact c
  SET ac_id = n.ac_id
  FROM unnest($2::text[], $3::bigint[]) AS n (email, ac_id)
  WHERE c.site_id = $1 AND c.email = n.email
)
UPDATE {schema}.site SET known_to = $4 WHERE site_id = $1

-- name: set_email
UPDATE {schema}.contact SET email = $2 WHERE id = $1

-- name: orphan_contact
WITH unlinked AS (
  DELETE FROM {schema}.customer WHERE contact_id = $1
), not_due AS (
  DELETE FROM {schema}.tag_due WHERE contact_id = $1
), not_held AS (
  DELETE FROM {schema}.held h USING {schema}.contact c
  WHERE c.id = $1 AND h.site_id = c.site_id AND h.kind IN ('contact', 'list', 'tag') AND h.id = c.id
)
UPDATE {schema}.contact
SET status = 'new', why = '', fingerprint = NULL, refused_fingerprint = NULL, refused = '', left_out = '{}',
    confirmed_at = NULL, tag = NULL, tag_link = NULL, unsubscribed = false, taken_off = false, not_on_list = NULL,
    erased_at = NULL
WHERE id = $1

-- name: count_notes
INSERT INTO {schema}.tally (site_id, kind, name, count)
SELECT $1, 'note', * FROM unnest($2::text[], $3::bigint[]) AS n (name, count) ORDER BY name
ON CONFLICT (site_id, kind, name) DO UPDATE SET count = tally.count + excluded.count

-- name: open_imports
SELECT id, contact_ids, fingerprints, unsubscribed, is_short
FROM {schema}.import WHERE site_id = $1 ORDER BY accepted_at

-- name: insert_import
INSERT INTO {schema}.import (site_id, id, contact_ids, fingerprints, unsubscribed, is_short)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (site_id, id) DO NOTHING

-- name: carried_contacts
SELECT contact_id, fingerprint, extract(epoch FROM now() - sent_at)::float8 AS age_s
FROM {schema}.carried_contact WHERE site_id = $1

-- name: record_carried_contacts
INSERT INTO {schema}.carried_contact (site_id, contact_id, fingerprint)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[])
ON CONFLICT (site_id, contact_id) DO UPDATE SET fingerprint = excluded.fingerprint, sent_at = excluded.sent_at

-- name: withdraw_carried_contacts
DELETE FROM {schema}.carried_contact WHERE site_id = $1 AND contact_id = ANY($2::bigint[])

-- name: delete_import
DELETE FROM {schema}.import WHERE site_id = $1 AND id = $2
