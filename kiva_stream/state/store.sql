-- name: has_version
SELECT to_regclass('{schema}.version') IS NOT NULL

-- name: version
SELECT max(version) FROM {schema}.version
