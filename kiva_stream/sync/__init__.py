"""Contacts, orders and week tags kept in step with the shop: the desired state, the difference, the writes.

The requests themselves belong in `activecampaign`.
"""
