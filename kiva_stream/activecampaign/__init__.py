"""Adapter: the ActiveCampaign account, its limits and its answers.

What is sent, and when, belongs in `pipeline` and `sync`.
"""
