"""Destination adapter: what kiva_stream says to ActiveCampaign, within the account's limits."""
