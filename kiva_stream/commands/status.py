"""`status`: where a site stands, read from the state schema alone."""

from __future__ import annotations

from datetime import UTC, datetime

from kiva_stream.commands.estimates import swaps_s
from kiva_stream.commands.reports import Equation, StatusReport
from kiva_stream.errors import CheckpointError
from kiva_stream.settings.sections import Settings
from kiva_stream.state.status import SiteStatus, read_status
from kiva_stream.state.store import Store


def equation_of(status: SiteStatus) -> Equation:
    """Return the outcome equation of a site."""
    return Equation.of(status.outcomes, status.pending, status.parked)


async def status(settings: Settings) -> StatusReport:
    """Return where the site stands, from the state schema alone. Raises CheckpointError."""
    site_id = settings.source.site_id
    async with Store.open(settings.state) as store:
        await store.require_version()
        found = await read_status(store, site_id)
    if found is None:
        raise CheckpointError(f"Nothing has been done for site {site_id} yet: start a backfill.")
    now = datetime.now(UTC)
    return StatusReport(
        site=str(site_id),
        account=found.account,
        phase=found.phase,
        since=found.since,
        events_since=found.events_since,
        counted_from=str(found.counted_from),
        watermark=str(found.watermark),
        high_water_mark=str(found.high_water_mark) if found.high_water_mark else None,
        entries_total=found.entries,
        equation=equation_of(found),
        events=found.events,
        contacts=found.contacts,
        orders=found.orders,
        tags_due=found.tags_due,
        tags_left_s=swaps_s(found.tags_due, settings.activecampaign),
        notes=found.notes,
        troubles=found.troubles,
        erased=[str(customer) for customer in found.erased],
        held_by=found.held_by,
        held_since=found.held_since,
        committed_at=found.committed_at,
        updated_at=now,
        lag_s=None if found.caught_up_at is None else max((now - found.caught_up_at).total_seconds(), 0.0),
    )
