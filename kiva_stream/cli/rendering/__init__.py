"""How each answer looks on a terminal: one function a report, by rich.

What a report says belongs beside its command, in `commands` or `verification`.
"""
