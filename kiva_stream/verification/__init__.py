"""`verify`: what should be there, what is there, and how differences are repaired.

What keeps them in step at work belongs in `sync`.
"""
