"""Adapter: the shop's PostgreSQL, read with SELECT only.

What is made of its rows belongs in `events` and `sync`.
"""
