"""Text of databases whose encoding is SQL_ASCII: PostgreSQL stores any bytes there, and converts none.

asyncpg reads text as UTF-8, and one value that is none would end every read of its rows.
"""

from __future__ import annotations

import asyncpg

UNCHECKED = "SQL_ASCII"
HOLD_EVERY_TEXT = ("UTF8", UNCHECKED)
TEXT_TYPES = ("text", "varchar", "bpchar")
_FIRST_OF_THREE = range(0xE0, 0xF0)  # of UTF-8; in Latin-1 the small letters with accents


async def encoding_of(connection: asyncpg.Connection) -> str:
    """Return the encoding of the database. Asks the server nothing."""
    return str(connection.get_settings().server_encoding)


async def read_any_bytes(connection: asyncpg.Connection) -> None:
    """Have a session read every text, whatever its bytes. No-op but on SQL_ASCII. Raises asyncpg's errors."""
    if await encoding_of(connection) == UNCHECKED:
        # Of this encoding PostgreSQL lets every byte pass: of UTF8 and its own it checks them.
        await connection.execute("SET client_encoding = 'LATIN1'")
        for name in TEXT_TYPES:
            await connection.set_type_codec(
                name, schema="pg_catalog", encoder=str.encode, decoder=readable, format="binary"
            )


def readable(written: bytes) -> str:
    """Return bytes as text: as UTF-8, without a character that is cut at the end; else as Latin-1."""
    try:
        return written.decode()
    except UnicodeDecodeError as error:
        whole, rest = written[: error.start], written[error.start :]
        # A single letter with an accent at the end of ASCII looks like a cut character, and is Latin-1.
        is_letter = whole.isascii() and len(rest) == 1 and rest[0] in _FIRST_OF_THREE
        is_cut = error.reason == "unexpected end of data" and not is_letter
        return whole.decode() if is_cut else written.decode("latin-1")
