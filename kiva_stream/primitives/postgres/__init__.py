"""The connections that source and state have in common: their deadlines, and which errors may pass.

Queries belong to the two adapters. It imports neither of them.
"""
