"""Faults of ActiveCampaign: requests that go wrong, outages, and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

from kiva_stream.sandbox.activecampaign.faults import FaultKind
from kiva_stream.sandbox.drill.run import Run
from kiva_stream.sandbox.drill.site import POLL_EVERY_S

FIRST_CONNECTION = 1  # the id of the one that `setup` created
SHARE = 0.01  # of the requests that go wrong
MOST_STARTS = 5  # of the backfill, until nothing is held
KINDS = (
    FaultKind.ERROR_BEFORE,
    FaultKind.ERROR_AFTER,
    FaultKind.HTML_503,
    FaultKind.HTML_200,
    FaultKind.THROTTLED,
    FaultKind.RESET_BEFORE,
    FaultKind.RESET_AFTER,
    FaultKind.HANG,
)
ELSEWHERE: Sequence[Mapping[str, object]] = (
    {"status": 301, "headers": {"Location": "https://www.example/"}, "share": 0.4},
    {"status": 404, "text": "<html>not found</html>", "share": 0.5},
    {"status": 200, "text": "<html>log in</html>"},
)

# Of an import of one nothing is refused.
_ROW_REFUSED = {
    "path": "/import/bulk_import",
    "kind": FaultKind.ANSWER_BEFORE,
    "matching": '"email".*"email"',
    "count": 3,
    "status": 400,
    "text": '{"success":0,"failureReasons":[{"contact":3,"failureReason":"Phone is invalid."}]}',
}


async def inject_faults(kinds: tuple[FaultKind, ...], run: Run) -> None:
    """Let a share of all requests fail in each of these ways until the end.

    By chance a record may get no answer in all of its tries; then the next backfill tries it again.
    """
    await run.site.activecampaign.fail(*(f"*:{kind}:{SHARE}" for kind in kinds))
    await run.complete()
    while (await run.site.status())["held"] and run.starts < MOST_STARTS:
        await run.complete()


async def take_down(outage_s: float, run: Run) -> None:
    """Let ActiveCampaign answer with error pages and resets only, or not at all."""
    async with run.outage(outage_s, run.site.activecampaign.fail):
        await run.site.activecampaign.fail("*:hang:0.05", "*:html-503:0.5", "*:reset-before:1")


async def refuse_rows(run: Run) -> None:
    """Let ActiveCampaign refuse imports for one of their rows, several times."""
    await run.site.activecampaign.fail(_ROW_REFUSED)


async def limit_contacts(run: Run) -> None:
    """Let the account have half of the contacts only, until a backfill has ended."""
    await run.site.activecampaign.change(contact_limit=run.site.history.generated.contacts // 2)
    run.note_strike()
    await run.wait_for_start(1)
    await run.site.activecampaign.change(contact_limit=0)
    run.note_end()


async def delete_connection(outage_s: float, run: Run) -> None:
    """Delete the connection when it has orders, and let `setup` create another one a while later.

    A run that was done with its orders by then no longer needs the connection. So there is one more run.
    """

    async def disturb() -> None:
        while not (await run.site.activecampaign.state())["orders"]:  # noqa: ASYNC110  another process does it
            await anyio.sleep(POLL_EVERY_S)
        await run.site.activecampaign.disconnect(FIRST_CONNECTION)
        run.note_strike()
        await anyio.sleep(outage_s)
        await run.site.command_output("setup")
        run.note_end()

    async with anyio.create_task_group() as group:
        group.start_soon(disturb)
        await run.complete()
    await run.complete()


async def answer_elsewhere(outage_s: float, run: Run) -> None:
    """Let another server answer in the place of ActiveCampaign: by redirects and pages."""
    async with run.outage(outage_s, run.site.activecampaign.fail):
        await run.site.activecampaign.fail(
            *({"path": "*", "kind": FaultKind.ANSWER_BEFORE, **answer} for answer in ELSEWHERE)
        )


async def refuse_key(outage_s: float, run: Run) -> None:
    """Let ActiveCampaign refuse the key."""
    async with run.outage(outage_s, run.site.activecampaign.fail):
        await run.site.activecampaign.fail("*:403:1")
