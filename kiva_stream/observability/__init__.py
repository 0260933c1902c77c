"""What an operator sees of a run: logs, progress, incidents, systemd.

Answers of commands belong in `commands`.
"""
