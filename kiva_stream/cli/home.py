"""The user's home folder, in which asyncpg looks for passwords and certificates."""

from __future__ import annotations

import os
from pathlib import Path


def leave_unreadable_home() -> None:
    """Set HOME to a place in which nothing is, where the home folder cannot be entered.

    libpq ignores such a folder, as of a service under systemd's ProtectHome; asyncpg raises an error.
    """
    try:
        home = Path.home()
        home.stat()
        is_readable = os.access(home, os.X_OK)
    except FileNotFoundError:
        return
    except (OSError, RuntimeError):
        is_readable = False
    if not is_readable:
        os.environ["HOME"] = os.devnull
