"""A process that holds site 1: `python -m tests.support.lease_holder DSN`.

It prints HELD, and holds the site until its stdin is closed; or it prints why it cannot.
"""

from __future__ import annotations

import sys

import anyio

from kiva_stream.errors import HeldError
from kiva_stream.state.leases import hold
from kiva_stream.state.store import Store
from tests.support.state_schema import settings

HELD = "held"
LONG_LEASE_S = 3600


async def main() -> None:
    """Hold the site."""
    async with Store.open(settings(sys.argv[1])) as store:
        try:
            async with hold(store, 1, "green", lease_s=LONG_LEASE_S):
                print(HELD, flush=True)  # noqa: T201  the test reads it
                await anyio.to_thread.run_sync(sys.stdin.read)
        except HeldError as error:
            print(error, flush=True)  # noqa: T201


if __name__ == "__main__":
    anyio.run(main)
