"""Stand-ins for the outside world: a local ActiveCampaign, a PostgreSQL, generated histories, and the drill.

What imports the rest of kiva_stream does not belong here: apart from the event catalog and the errors, the
sandbox shares no code with what it checks.
"""
