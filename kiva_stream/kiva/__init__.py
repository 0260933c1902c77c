"""Source adapter: reads the shop's database, with SELECT alone."""
