-- name: clear_tags
UPDATE {schema}.contact SET tag = NULL, tag_link = NULL WHERE id = ANY($1::bigint[])

-- name: set_tag
UPDATE {schema}.contact SET ac_id = $2, tag = $3, tag_link = $4 WHERE id = $1

-- name: mark_all_due
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM {schema}.contact WHERE site_id = $1 AND status = 'linked' ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: begin_week
WITH opened AS (
  UPDATE {schema}.site SET week_start = $2 WHERE site_id = $1
)
{mark_all_due}

-- name: mark_due
INSERT INTO {schema}.tag_due (site_id, contact_id)
SELECT site_id, id FROM {schema}.contact WHERE site_id = $1 AND id = ANY($2::bigint[]) AND status = 'linked'
ORDER BY id
ON CONFLICT (site_id, contact_id) DO UPDATE SET mark = DEFAULT

-- name: due_after
SELECT due.mark, contact.*
FROM {schema}.tag_due due JOIN ({contact_records}) contact ON contact.id = due.contact_id
WHERE due.site_id = $1 AND due.contact_id > $2
ORDER BY due.contact_id
LIMIT $3

-- name: clear_due
DELETE FROM {schema}.tag_due
WHERE (site_id, contact_id) IN (
  SELECT due.site_id, due.contact_id
  FROM {schema}.tag_due due
  JOIN unnest($2::bigint[], $3::bigint[]) AS n (contact_id, mark) USING (contact_id, mark)
  WHERE due.site_id = $1
  ORDER BY due.contact_id
  FOR UPDATE OF due)
