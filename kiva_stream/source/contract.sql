-- name: server
SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS in_recovery,
       quote_ident(current_user) AS role

-- name: usage
-- No row: no such schema.
SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = $1

-- name: columns
-- Of whatever can be selected from: tables, partitioned and foreign ones, views. A domain counts as its base.
SELECT c.relname AS table, a.attname AS column, coalesce(base.typname, t.typname) AS type
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type base ON t.typtype = 'd' AND base.oid = t.typbasetype
WHERE n.nspname = $1 AND c.relname = ANY($2::text[]) AND c.relkind IN ('r', 'p', 'f', 'v', 'm')

-- name: site_ids
SELECT id FROM {schema}.sites ORDER BY id LIMIT 20

-- name: has_site
SELECT true FROM {schema}.sites WHERE id = $1
