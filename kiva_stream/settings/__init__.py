"""The settings: sections as Structs, loading, documentation.

Defaults of anything else belong beside their use.
"""
