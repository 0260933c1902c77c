"""The words of the domain as types, by subject, with pure functions on them.

What does I/O or reads a clock belongs elsewhere.
"""
