"""`plan`: what a backfill would do. It sends nothing, and leaves no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from kiva_stream.commands.backfill_report import BackfillRequest
from kiva_stream.commands.estimates import HOUR_S, Work, reading_s, requests, seconds, swaps_s
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.classifications import Classification, Event, Noise, Reject, SyncOnly
from kiva_stream.model.positions import HighWaterMark
from kiva_stream.model.tombstones import NONE_FORGOTTEN, ForgottenPeople
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.runtime.account import account_name
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.runtime.start_position import mark_of, start_of
from kiva_stream.settings.sections import Settings
from kiva_stream.state.ledger import saved_checkpoint
from kiva_stream.state.status import SiteStatus, read_status
from kiva_stream.state.store import Store
from kiva_stream.state.tombstones import Tombstones

CLASSES = {Event: "event", SyncOnly: "sync only", Noise: "noise", Reject: "reject"}


class BackfillPlan(msgspec.Struct, frozen=True):
    """What a backfill would do. What it would send is an estimate, and leaves out what is there already."""

    after: str  # position above which it reads
    until: str  # position up to which it reads
    entries: int
    sampled: int  # of them, from which the following are estimated
    classes: dict[str, int]  # of the entries: event, sync only, noise, reject
    events: dict[str, int]  # by name
    dead: dict[str, int]  # by reason
    customers: int  # with an address
    orders: int | None  # paid; None: counting them takes too long
    requests: dict[str, int]  # by endpoint
    phases: dict[str, float]  # hours of each, at the limits in the settings
    hours: float  # in all
    tags_due: int  # week tags that may have to be swapped
    new_week_hours: float  # the longest that the tags take when a week opens
    resumes: bool = False
    events_since: datetime | None = None


async def plan(settings: Settings, request: BackfillRequest) -> BackfillPlan:
    """Return what a backfill would do.

    Raises SettingsError, SourceError, CheckpointError, HeldError.
    """
    async with open_shop(settings) as opened, Store.open(settings.state) as store:
        saved, status, forgotten = await _state(settings, store)
        shop = opened.without(forgotten)
        start = await start_of(shop, saved, since=request.since, events_since=request.events_since)
        mark = await mark_of(shop, start, request.until)
        entries = await shop.positions.count_or_distance(start.watermark, mark.position)
        customers = await shop.customers.count_reachable()
        orders = await shop.orders.count_paid()
        classifications = await _sample(shop, start, mark)
    names = [each.event_line.ac_name for each in classifications if isinstance(each, Event)]
    reasons = [str(each.why) for each in classifications if isinstance(each, Reject)]
    events = estimated(entries, names, classifications)
    work = work_left(customers, orders, events=sum(events.values()), status=status)
    limits = settings.activecampaign
    spent = seconds(work, limits)
    spent["events"] = max(spent["events"], reading_s(entries, settings.source))  # sent as they are read
    phases = {phase: phase_s / HOUR_S for phase, phase_s in spent.items()}
    return BackfillPlan(
        after=str(start.watermark),
        until=str(mark.position),
        entries=entries,
        sampled=len(classifications),
        classes=estimated(entries, (CLASSES[type(each)] for each in classifications), classifications),
        events=events,
        dead=estimated(entries, reasons, classifications),
        customers=customers,
        orders=orders,
        requests=_flat(requests(work, limits)),
        phases=phases,
        hours=sum(phases.values()),
        tags_due=work.tags,
        new_week_hours=swaps_s(customers, limits) / HOUR_S,
        resumes=saved is not None,
        events_since=start.events_since,
    )


def estimated(entries: int, found: Iterable[str], sample: Sequence[object]) -> dict[str, int]:
    """Scale the names found in a sample of entries to all entries, and count them."""
    return {name: round(entries * count / len(sample)) for name, count in Counter(found).items()}


def work_left(customers: int, orders: int | None, *, events: int, status: SiteStatus | None) -> Work:
    """Return what a backfill has to send, without what the state says is there."""
    if status is None:
        return Work(customers, orders or 0, events)
    contacts_there = status.contacts.get("linked", 0) + status.contacts.get("rejected", 0)
    orders_there = sum(status.orders.values())
    return Work(
        contacts=max(customers - contacts_there, 0),
        orders=max((orders or 0) - orders_there, 0),
        events=events,
        tags=status.tags_due,
    )


async def _state(
    settings: Settings, store: Store
) -> tuple[SavedCheckpoint | None, SiteStatus | None, ForgottenPeople]:
    """Return the checkpoint, the status and the forgotten people of the site; nothing before `setup`."""
    if not await store.version():
        return None, None, NONE_FORGOTTEN
    await store.require_version()
    site_id = settings.source.site_id
    saved = await saved_checkpoint(store, site_id, account_name(settings.activecampaign))
    return saved, await read_status(store, site_id), await Tombstones(store, site_id).forgotten_people()


async def _sample(shop: Shop, start: SavedCheckpoint, mark: HighWaterMark) -> list[Classification]:
    """Return the classifications of entries from all over what would be read, each entry once."""
    sample = await shop.log.sample(start.watermark, mark.position)
    entries = {each.position: each for each in sample if start.watermark < each.position <= mark.position}
    classify = classifier_of(shop.site, start.events_since)
    return [classify(each) for each in entries.values()]


def _flat(phases: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {name: count for phase in phases.values() for name, count in phase.items() if count}
