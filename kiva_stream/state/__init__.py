"""State adapter: checkpoint, ledger, contact links and dead letters, in a PostgreSQL schema of our own."""
