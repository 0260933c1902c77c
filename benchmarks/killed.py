"""Nothing lost at size: a backfill of 200,000 entries killed with SIGKILL half way, and started again.

5 ms to the sandbox and back, so that as many events are in flight as may be. Those whose outcome was not
committed when the process died are looked up, and none that arrived is sent again. Run on request.

Seen to fail: repeated (108, of 20,000 entries) with activecampaign.lookup = false; and with 10,000 entries
lost (2,006) with a watermark that passes what has no outcome, changed (2,701) with an x before each
eventdata, out of order (3,188) with lanes that give a second batch out, contacts wrong (83) with another
first name, breaches (9) with activecampaign.requests_per_second = 50.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure

ENTRIES = 200_000


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    seen = await bench.killed(entries or ENTRIES)
    return [
        Figure("killed: events expected", [seen.comparison.expected]),
        Figure("killed: events there when it was killed", [seen.events_when_killed]),
        Figure("killed: lost", [seen.comparison.lost], most=0),
        Figure("killed: out of order", [seen.comparison.out_of_order], most=0),
        Figure(
            "killed: unexpected or changed", [seen.comparison.unexpected + seen.comparison.changed], most=0
        ),
        Figure("killed: repeated", [seen.comparison.repeated], most=0),
        Figure("killed: contacts wrong", [seen.comparison.contacts_wrong], most=0),
        Figure("killed: breaches of limits and contract", [seen.breaches], most=0),
    ]
