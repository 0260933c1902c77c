"""One site at run time: its shop, its lease, its stages put together, its shutdown.

What the stages do belongs in `pipeline` and `sync`.
"""
