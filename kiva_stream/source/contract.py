"""The source contract: the columns that kiva_stream reads, and the check of a database against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import asyncpg
import msgspec

from kiva_stream.errors import SourceError
from kiva_stream.primitives import sql_blocks
from kiva_stream.source.source import STANDBY

OLDEST_VERSION = 13  # the first PostgreSQL with xid8


class Kind(NamedTuple):
    """The kind of a column: in words, and PostgreSQL's names of the types that satisfy it."""

    words: str
    types: frozenset[str]


INTEGER = Kind("an integer", frozenset({"int2", "int4", "int8"}))
NUMBER = Kind("numeric or an integer", INTEGER.types | {"numeric"})
TEXT = Kind("text or varchar", frozenset({"text", "varchar", "bpchar", "citext"}))
BOOLEAN = Kind("boolean", frozenset({"bool"}))
DATE = Kind("date", frozenset({"date"}))
MOMENT = Kind("timestamp with time zone", frozenset({"timestamptz"}))
JSON = Kind("jsonb or json", frozenset({"jsonb", "json"}))
TRANSACTION = Kind("xid8", frozenset({"xid8"}))


def _columns(kinds: Mapping[Kind, str]) -> dict[str, Kind]:
    return {column: kind for kind, columns in kinds.items() for column in columns.split()}


# Version 1 of the source contract: the columns that are read, by table. Views of these names satisfy it, too.
Contract = Mapping[str, Mapping[str, Kind]]
CONTRACT: Contract = {
    "system_log": _columns(
        {
            TRANSACTION: "txid",
            INTEGER: "id site_id customer_id",
            MOMENT: "occurred_at inserted_at",
            TEXT: "action actor_type admin_user message",
            JSON: "data",
        }
    ),
    "customers": _columns(
        {
            INTEGER: "id site_id box_type_id",
            TEXT: "email first_name last_name phone status",
            BOOLEAN: "email_opt_in email_blacklisted is_test",
            DATE: "next_delivery birthday",
            MOMENT: "created_at cancelled_at updated_at deleted_at",
        }
    ),
    "sites": _columns(
        {
            INTEGER: "id",
            TEXT: "name timezone currency admin_base_url",
            DATE: "launched_on",
        }
    ),
    "delivery_weeks": _columns({INTEGER: "site_id", DATE: "week_start", MOMENT: "opened_at"}),
    "box_types": _columns({INTEGER: "id site_id", TEXT: "name"}),
    "orders": _columns(
        {
            INTEGER: "id site_id customer_id discount_cents credit_cents total_cents",
            TEXT: "status payment_status",
            DATE: "week_start",
            MOMENT: "created_at paid_at updated_at",
        }
    ),
    "order_items": _columns(
        {
            INTEGER: "id order_id product_id unit_price_cents",
            TEXT: "name category",
            NUMBER: "qty",
            MOMENT: "removed_at",
        }
    ),
}

Columns = Mapping[str, Mapping[str, str]]  # the type of each column, by table


class Finding(msgspec.Struct, frozen=True):
    """A violation of the contract."""

    where: str  # server, schema, row security, site, or the table
    text: str  # one sentence: what is wrong, and what to do


def contract(*, horizon: bool) -> Contract:
    """Return the columns that are read, by table. Without a horizon, txid is not read."""
    if horizon:
        return CONTRACT
    log = {column: kind for column, kind in CONTRACT["system_log"].items() if column != "txid"}
    return {**CONTRACT, "system_log": log}


class Refusal(NamedTuple):
    """Why PostgreSQL refuses to read a table."""

    table: str
    text: str  # PostgreSQL's
    by_policy: bool  # by row-level security; else a grant is missing


async def check_contract(
    connection: asyncpg.Connection, schema: str, site_id: int, *, horizon: bool = True
) -> list[Finding]:
    """Return the violations of the contract, and what else keeps kiva_stream from reading this site.

    It changes nothing. Call it through `Source.read`, which repeats it after an error that may pass.
    """
    queries = sql_blocks.load("kiva_stream.source", schema, "contract.sql")
    server = await connection.fetchrow(queries["server"])
    findings = list(server_findings(server["version"], in_recovery=server["in_recovery"]))
    usage = await connection.fetchval(queries["usage"], schema)
    if not usage:
        return [*findings, _no_usage(schema, server["role"], exists=usage is not None)]
    wanted = contract(horizon=horizon)
    rows = await connection.fetch(queries["columns"], schema, list(wanted))
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    findings += column_findings(schema, wanted, found)
    faulty = {finding.where for finding in findings}
    readable = {table: kinds for table, kinds in wanted.items() if table not in faulty}
    refusals = await _refusals(connection, schema, readable)
    readers = dict(await connection.fetch(queries["readers"], schema, list(wanted)))
    findings += refusal_findings(schema, server["role"], readers=readers, refusals=refusals)
    if "sites" not in faulty | {refusal.table for refusal in refusals}:
        findings += await _missing_site(connection, queries, site_id)
    if not horizon and "system_log" not in faulty | {refusal.table for refusal in refusals}:
        findings += await _unread_ids(connection, queries, site_id)
    return findings


async def require_contract(
    connection: asyncpg.Connection, schema: str, site_id: int, *, horizon: bool = True
) -> None:
    """Raise SourceError with the first finding, if there is one."""
    for finding in await check_contract(connection, schema, site_id, horizon=horizon):
        raise SourceError(finding.text)


def server_findings(version: int, *, in_recovery: bool) -> Iterator[Finding]:
    """Return what is wrong with a server of this `server_version_num`."""
    if version < OLDEST_VERSION * 10_000:
        yield Finding(
            "server",
            f"The shop's database is PostgreSQL {version // 10_000}: {OLDEST_VERSION} or newer is needed, "
            "for the type xid8; upgrade it, or set source.dsn to a copy on a newer server.",
        )
    if in_recovery:
        yield Finding("server", STANDBY)


def column_findings(schema: str, wanted: Contract, found: Columns) -> Iterator[Finding]:
    """Compare the columns found with the contract."""
    for table, kinds in wanted.items():
        name = f"{schema}.{table}"
        if table not in found:
            yield Finding(
                table,
                f"There is no table {name} in the shop's database: set source.schema to where it is, "
                "or create a view of that name.",
            )
        elif missing := [column for column in kinds if column not in found[table]]:
            yield Finding(
                table,
                f"{name} has no column {', '.join(missing)}: add it, or give a view of that name with it.",
            )
        yield from _type_findings(name, table, kinds=kinds, types=found.get(table, {}))


def _type_findings(
    name: str, table: str, *, kinds: Mapping[str, Kind], types: Mapping[str, str]
) -> Iterator[Finding]:
    for column, kind in kinds.items():
        if column in types and types[column] not in kind.types:
            yield Finding(
                table,
                f"{name}.{column} is of type {types[column]}, and is to be {kind.words}: "
                "give a view of that name that casts it.",
            )


def _no_usage(schema: str, role: str, *, exists: bool) -> Finding:
    if exists:
        return Finding(
            "schema", f"{role} may not look into {schema}: GRANT USAGE ON SCHEMA {schema} TO {role};"
        )
    return Finding(
        "schema",
        f"There is no schema {schema} in the shop's database: set source.schema to where the shop's tables "
        "are, or source.dsn to the database that has it.",
    )


async def _refusals(
    connection: asyncpg.Connection, schema: str, tables: Mapping[str, Iterable[str]]
) -> list[Refusal]:
    """Select no row of each table; return the refusals, of the table itself or of what a view reads.

    With `row_security` off, PostgreSQL refuses a query from which a policy would hide rows. With it on, it
    refuses one only by a missing grant.
    """
    refusals = []
    for table, columns in tables.items():
        select = f'SELECT {", ".join(columns)} FROM "{schema}".{table} LIMIT 0'
        text = await _refusal(connection, select, row_security="off")
        if text is not None:
            by_policy = await _refusal(connection, select, row_security="on") is None
            refusals.append(Refusal(table, text, by_policy=by_policy))
    return refusals


async def _refusal(connection: asyncpg.Connection, select: str, *, row_security: str) -> str | None:
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL row_security = {row_security}")
            await connection.execute(select)
    except asyncpg.InsufficientPrivilegeError as error:
        return str(error)
    return None


def refusal_findings(
    schema: str, role: str, *, readers: Mapping[str, str], refusals: Iterable[Refusal]
) -> Iterator[Finding]:
    """Return a finding for each missing grant, and one for all tables that policies hide rows of from a role.

    `readers` are the roles by whose rights the tables are read.
    """
    hidden: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        table = f"{schema}.{refusal.table}"
        if refusal.by_policy:
            hidden.setdefault(readers[refusal.table], []).append(refusal)
        else:
            grant = f"GRANT SELECT ON {table} TO {role};"
            yield Finding(refusal.table, f"{role} may not read {table} ({refusal.text}): {grant}")
    for reader, hiding in hidden.items():
        tables = ", ".join(f"{schema}.{refusal.table}" for refusal in hiding)
        yield Finding(
            "row security",
            f"Row-level security hides rows of {tables} from {reader} ({hiding[0].text}): "
            f"ALTER ROLE {reader} BYPASSRLS; or give views of these names whose owner sees all rows.",
        )


async def _missing_site(
    connection: asyncpg.Connection, queries: Mapping[str, str], site_id: int
) -> list[Finding]:
    if await connection.fetchval(queries["has_site"], site_id):
        return []
    ids = ", ".join(str(row["id"]) for row in await connection.fetch(queries["site_ids"])) or "none at all"
    return [
        Finding(
            "site", f"There is no site {site_id} in the shop's database: set source.site_id; there is {ids}."
        )
    ]


async def _unread_ids(
    connection: asyncpg.Connection, queries: Mapping[str, str], site_id: int
) -> list[Finding]:
    """Return a finding if entries have ids below 1: without a horizon, positions begin at 0:0."""
    lowest = await connection.fetchval(queries["id_below_1"], site_id)
    if lowest is None:
        return []
    return [
        Finding(
            "system_log",
            f"system_log has ids below 1, as {lowest}, which are not read while source.horizon is off: give "
            "a view of that name that adds a number to every id.",
        )
    ]
