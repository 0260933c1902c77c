"""`dead-letters`: what could not be delivered and why: listed, shown, replayed, discarded.

Dead letters are those of entries, at their position, and those of refused orders, which have an id. What
makes an entry one belongs in `pipeline`.
"""
