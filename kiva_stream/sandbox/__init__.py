"""What stands in for the outside world: a local ActiveCampaign, a PostgreSQL, a shop's history."""
