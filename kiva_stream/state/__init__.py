"""Adapter: the state schema in PostgreSQL, one module a port, with its SQL beside it.

What is decided about it belongs in the stages.
"""
