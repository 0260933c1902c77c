-- name: answered_url
SELECT answered_at FROM {schema}.answered_url WHERE url = $1

-- name: insert_answered_url
INSERT INTO {schema}.answered_url (url) VALUES ($1) ON CONFLICT DO NOTHING
