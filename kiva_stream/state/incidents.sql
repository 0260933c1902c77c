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
