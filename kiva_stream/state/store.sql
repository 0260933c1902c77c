-- name: version
SELECT max(version) FROM {schema}.version
