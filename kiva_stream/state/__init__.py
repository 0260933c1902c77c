"""Adapter: the state schema in PostgreSQL, a module for each port or command, with its SQL beside it.

What is decided about it belongs in the stages.
"""
