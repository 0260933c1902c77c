"""The words of the domain as types, by subject. Anything that does I/O or reads a clock belongs elsewhere."""
