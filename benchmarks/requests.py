"""Requests, by endpoint (R7): speed under a limit comes from calls not made.

The unpaced job again. From 1,000 contacts on (about 120,000 entries) they must come in bulk.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.unpaced import ENTRIES

WRITES = ("bulkImport", "syncContact")
CALLS = (*WRITES, "bulkImportInfo", "findContacts")
MANY_CONTACTS = 1_000
LEAST_PER_WRITE = 200
LEAST_PER_CALL = 30


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    job = await bench.unpaced(entries or ENTRIES)
    contacts = job.comparison.contacts
    many = contacts >= MANY_CONTACTS
    writes, calls = (sum(job.requests[name] for name in names) for names in (WRITES, CALLS))
    return [
        *(
            Figure(f"requests per 1,000 entries: {operation}", [count / job.entries * 1_000])
            for operation, count in sorted(job.requests.items())
        ),
        Figure("contacts", [contacts]),
        Figure("contacts per contact write", [contacts / writes], least=LEAST_PER_WRITE if many else None),
        Figure("contacts per contact call", [contacts / calls], least=LEAST_PER_CALL if many else None),
    ]
