-- name: server
SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS in_recovery,
       quote_ident(current_user) AS role

-- name: usage
-- No row: no such schema.
SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = $1

-- name: columns
-- Of whatever can be selected from: tables, partitioned and foreign ones, views. A domain counts as its base,
-- which may be a domain again.
WITH RECURSIVE columns AS (
  SELECT c.relname, a.attname, a.atttypid AS type_id
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE n.nspname = $1 AND c.relname = ANY($2::text[]) AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
  UNION ALL
  SELECT c.relname, c.attname, t.typbasetype
  FROM columns c
  JOIN pg_type t ON t.oid = c.type_id AND t.typtype = 'd'
)
SELECT c.relname AS table, c.attname AS column, t.typname AS type
FROM columns c
JOIN pg_type t ON t.oid = c.type_id AND t.typtype <> 'd'

-- name: readers
-- The role by whose rights the rows of each table are read: a view's owner, unless the view is a security invoker.
SELECT c.relname,
       quote_ident(CASE WHEN c.relkind = 'v'
                          AND NOT coalesce(c.reloptions && '{security_invoker=true,security_invoker=on}', false)
                        THEN pg_get_userbyid(c.relowner) ELSE current_user END)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY($2::text[]) AND c.relkind IN ('r', 'p', 'f', 'v', 'm')

-- name: site_ids
SELECT id FROM {schema}.sites ORDER BY id LIMIT 20

-- name: has_site
SELECT true FROM {schema}.sites WHERE id = $1

-- name: id_below_1
SELECT id FROM {schema}.system_log WHERE site_id = $1 AND id < 1 ORDER BY id LIMIT 1
