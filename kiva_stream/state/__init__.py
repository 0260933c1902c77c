"""Adapter: the state schema in PostgreSQL, one module a port.

What is decided about it belongs in the stages.
"""
