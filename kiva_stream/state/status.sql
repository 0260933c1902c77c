-- name: site_holder
SELECT holder, taken_at FROM {schema}.lease
WHERE name = 'site ' || $1::int AND expires_at > clock_timestamp()

-- name: tallies
SELECT kind, name, count FROM {schema}.tally WHERE site_id = $1 ORDER BY kind, name

-- name: erased_customers
-- Customers that the shop erased and whose contact is still at ActiveCampaign: for `forget`.
SELECT l.customer_id
FROM {schema}.contact c JOIN {schema}.customer l ON l.contact_id = c.id
WHERE c.site_id = $1 AND c.erased_at IS NOT NULL
ORDER BY 1

-- name: count_due
SELECT count(*) FROM {schema}.tag_due WHERE site_id = $1

-- name: not_on_list
SELECT not_on_list, count(*) FROM {schema}.contact
WHERE site_id = $1 AND not_on_list IS NOT NULL
GROUP BY 1 ORDER BY 1
