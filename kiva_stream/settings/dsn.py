"""Addresses of databases: the passwords in them, and an error that quotes none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from kiva_stream.errors import KivaStreamError


def passwords(dsn: str) -> list[str]:
    """Return the passwords of a DSN, as written and decoded; the whole DSN if it cannot be parsed."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return [dsn]
    written = [parts.password] if parts.password else []
    return [*written, *map(unquote, written), *parse_qs(parts.query).get("password", [])]


@contextmanager
def reading_dsn(key: str, kind: type[KivaStreamError]) -> Iterator[None]:
    """Raise an error of this kind where asyncpg cannot read a DSN; its own text quotes parts of passwords."""
    try:
        yield
    except OSError:  # a certificate that is refused is a ValueError too
        raise
    except (ValueError, OverflowError):
        raise kind(
            f"{key} cannot be read as a PostgreSQL address, postgresql://role:password@host:port/database: "
            "write / ? # [ ] @ : and % in the password as %2F %3F %23 %5B %5D %40 %3A and %25."
        ) from None
