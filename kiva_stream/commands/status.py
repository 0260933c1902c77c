"""`status`: where a site stands, read from the state schema alone."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from kiva_stream.commands.estimates import swaps_s
from kiva_stream.commands.held import HeldRow, held_rows
from kiva_stream.commands.outcome_equation import Equation, equation_of
from kiva_stream.errors import CheckpointError
from kiva_stream.model.incidents import Incident
from kiva_stream.settings.sections import Settings
from kiva_stream.state.incidents import read_incidents
from kiva_stream.state.status import SiteStatus, read_holder, read_status
from kiva_stream.state.store import Store


class StatusReport(msgspec.Struct, frozen=True):
    """Where a site stands."""

    site: str
    account: str
    phase: str  # contacts | orders | events | tags | done | sweep | follow
    since: str  # as given
    events_since: datetime | None
    counted_from: str  # position after which the counts begin
    watermark: str
    high_water_mark: str | None  # of the newest backfill
    entries_total: int | None  # up to it, when that backfill began
    equation: Equation
    events: dict[str, int]  # by name
    contacts: dict[str, int]  # by status
    not_on_list: dict[str, int]  # linked contacts that may not be on the list, by why
    orders: dict[str, int]  # sent, refused
    tags_due: int  # contacts whose week tag may differ
    tags_left_s: float  # about how long they take at the limits in the settings, with nothing else to do
    notes: dict[str, int]  # oddities of entries
    incidents: list[Incident] = msgspec.field(name="troubles")  # as the process that works the site sees them
    held: list[HeldRow]  # what ActiveCampaign does not take, the oldest first
    erased: list[str]  # customers erased at the shop who are still at ActiveCampaign: for `forget`
    held_by: str | None  # host and pid of the process that works the site
    held_since: datetime | None
    committed_at: datetime | None  # the last commit
    updated_at: datetime  # when this was read
    lag_s: float | None  # all that `follow` could read this long before has its outcome


class StartReport(msgspec.Struct, frozen=True):
    """What is known of a site before its first checkpoint."""

    site: str
    phase: str  # start
    incidents: list[Incident] = msgspec.field(name="troubles")
    held_by: str | None
    held_since: datetime | None
    updated_at: datetime


async def status(settings: Settings) -> StatusReport | StartReport:
    """Return where the site stands, from the state schema alone. Raises CheckpointError.

    Before the first checkpoint that is a StartReport, if a process works the site or left incidents.
    """
    site_id = settings.source.site_id
    async with Store.open_migrated(settings.state) as store:
        found = await read_status(store, site_id)
        if found is None:
            return await _at_the_start(store, site_id)
    return _report(settings, found)


async def _at_the_start(store: Store, site_id: int) -> StartReport:
    holder, incidents = await read_holder(store, site_id), await read_incidents(store, site_id)
    if holder is None and not incidents:
        raise CheckpointError(f"Nothing has been done for site {site_id} yet: start a backfill.")
    return StartReport(
        site=str(site_id),
        phase="start",
        incidents=incidents,
        held_by=holder.name if holder else None,
        held_since=holder.since if holder else None,
        updated_at=datetime.now(UTC),
    )


def _report(settings: Settings, found: SiteStatus) -> StatusReport:
    now = datetime.now(UTC)
    return StatusReport(
        site=str(settings.source.site_id),
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
        not_on_list=found.not_on_list,
        orders=found.orders,
        tags_due=found.tags_due,
        tags_left_s=swaps_s(found.tags_due, settings.activecampaign),
        notes=found.notes,
        incidents=found.incidents,
        held=held_rows(found.held),
        erased=[str(customer) for customer in found.erased],
        held_by=found.held_by,
        held_since=found.held_since,
        committed_at=found.committed_at,
        updated_at=now,
        lag_s=None if found.caught_up_at is None else max((now - found.caught_up_at).total_seconds(), 0.0),
    )
