"""`check`: what kiva_stream relies on, a row each. It sends nothing that leaves a trace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.own_user import AnsweredHere
from kiva_stream.errors import HeldError, KivaStreamError, SettingsError, TryLater
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.currencies import ISO_4217
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.positions import Position
from kiva_stream.model.site import Site
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.primitives.postgres.encodings import UNCHECKED, encoding_of
from kiva_stream.runtime.account import account_name, account_setup, answered_url, website
from kiva_stream.runtime.id_order import restart_since
from kiva_stream.runtime.shop import Shop, shop_of
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings
from kiva_stream.source.contract import Finding, check_contract
from kiva_stream.source.site import read_site_in_any_timezone
from kiva_stream.source.source import Source
from kiva_stream.state.ledger import saved_checkpoint
from kiva_stream.state.store import Store

PATIENCE_S = 10.0  # until an ActiveCampaign that does not answer counts as out of reach
# Ages of entries, orders and accepted batches are computed from both clocks.
CLOCK_SKEW = timedelta(minutes=1)
SLOW_S = 1.0  # for a query that should take milliseconds
WEBSITE_KEYS = ("list_sender_url", "connection_link_url", "connection_logo_url")
OLD_WEEK = timedelta(days=14)  # since its Monday; a shop opens one every week


class _Part(NamedTuple):
    """A part of the account's set-up."""

    subject: str
    word: str  # which the phrase for a missing part contains
    there: str  # the text of its row when nothing is missing


PARTS = (
    _Part("event tracking", "event tracking", "on; event_key shows with the first event only"),
    _Part("event names", "event name", f"{len(CATALOG.ac_names())} are there"),
    _Part("fields", "field", "all six are there, and show on every contact"),
    _Part("tags", "tag", ", ".join(WeekTag) + " are there"),
    _Part("connection", "connection", "there: orders have where to go"),
    _Part(
        "list",
        "list",
        "there (a list without a user group is hidden in ActiveCampaign: that is yours to set)",
    ),
)


class _FoundState(NamedTuple):
    """What the state says, as far as it could be read."""

    saved: SavedCheckpoint | None = None
    was_answered: bool = False  # ActiveCampaign, at the URL in the settings


class CheckRow(msgspec.Struct, frozen=True):
    """One thing that was looked at, and what to do about it when it is not in order."""

    subject: str
    ok: bool
    text: str


class CheckReport(msgspec.Struct, frozen=True):
    """The answer of `check`."""

    ok: bool
    rows: list[CheckRow] = msgspec.field(name="lines")


async def check(settings: Settings) -> CheckReport:
    """Check the source, the state schema and the account; what is wrong with one hides no other."""
    found, state = await _check_state(settings)
    site, source = await _check_source(settings, found.saved)
    rows = [*source, *state, *await _check_account(settings, site, was_answered=found.was_answered)]
    return CheckReport(all(row.ok for row in rows), rows)


# --- the shop's database ---


async def _check_source(
    settings: Settings, saved: SavedCheckpoint | None
) -> tuple[Site | None, list[CheckRow]]:
    schema, site_id, horizon = settings.source.schema, settings.source.site_id, settings.source.horizon
    try:
        async with Source.open(settings.source) as source:
            findings: list[Finding] = await source.read(
                lambda found: check_contract(found, schema, site_id, horizon=horizon)
            )
            if findings:
                return None, [CheckRow("source", False, finding.text) for finding in findings]
            site, obstacle = await read_site_in_any_timezone(source, site_id)
            timezone = CheckRow(
                "timezone", obstacle is None, obstacle or f"{site.timezone}, of the site's days"
            )
            return site, [
                CheckRow(
                    "source",
                    True,
                    f"site {site.id}, {site.name}: a primary, with the tables, columns and rights",
                ),
                encoding_row(await source.read(encoding_of)),
                timezone,
                currency_row(site.currency),
                website_row(site.admin_base_url, settings.activecampaign),
                *await _check_shop(shop_of(settings, source, site), saved, in_its_timezone=timezone.ok),
            ]
    except KivaStreamError as error:
        return None, [CheckRow("source", False, str(error))]


async def _check_shop(shop: Shop, saved: SavedCheckpoint | None, *, in_its_timezone: bool) -> list[CheckRow]:
    """Check what is read of a shop. Its weeks can be only in its timezone."""
    return [
        clock_row(await shop.changes.now(), datetime.now(UTC)),
        await _check_horizon(shop, saved),
        await _check_orders(shop),
        *([await _check_weeks(shop)] if in_its_timezone else []),
        await _check_changes(shop),
    ]


def clock_row(theirs: datetime, ours: datetime) -> CheckRow:
    """Compare the clock of the shop's database with this machine's."""
    skew = abs(theirs - ours)
    if skew <= CLOCK_SKEW:
        return CheckRow("clock", True, "the database's and this machine's agree")
    return CheckRow(
        "clock",
        False,
        f"the database's and this machine's differ by {skew.total_seconds():,.0f} s: set both by NTP",
    )


def encoding_row(encoding: str) -> CheckRow:
    """Return how text of the shop's database is read; a warning where PostgreSQL checks no text."""
    if encoding != UNCHECKED:
        return CheckRow("encoding", True, f"{encoding}, of the shop's database")
    return CheckRow(
        "encoding",
        True,
        f"warning: {UNCHECKED}, in which PostgreSQL checks no text: what is no UTF-8 is read as Latin-1",
    )


def currency_row(currency: str) -> CheckRow:
    """Return whether the site's currency is one that ActiveCampaign may accept of an order."""
    if currency in ISO_4217:
        return CheckRow("currency", True, f"{currency}, of all orders")
    return CheckRow(
        "currency",
        False,
        f"sites.currency is '{currency}', which is no code of ISO 4217 (such as EUR or USD): correct it at "
        "the shop, or ActiveCampaign refuses every order",
    )


def website_row(admin_base_url: str, settings: ActiveCampaignSettings) -> CheckRow:
    """Return whether the URLs of the list and of the connection can be taken from the site's."""
    url = website(admin_base_url)
    needed = [key for key in WEBSITE_KEYS if not getattr(settings, key)]
    if url or not needed:
        return CheckRow("website", True, f"{url or 'as in the settings'}, of the list and the connection")
    return CheckRow(
        "website",
        False,
        f"sites.admin_base_url is {admin_base_url!r}, which is no URL with a host: correct it at the shop, "
        f"or set activecampaign.{' and activecampaign.'.join(needed)}",
    )


async def _check_horizon(shop: Shop, saved: SavedCheckpoint | None) -> CheckRow:
    """Check that nothing keeps the log from being read on, from the checkpoint or from its end."""
    if saved is not None and saved.horizon != shop.horizon.is_used:
        return CheckRow("horizon", False, "source.horizon is not the checkpoint's: only `rewind` changes it")
    mark = await shop.horizon.high_water_mark()
    words = horizon_words(mark.position, is_used=shop.horizon.is_used)
    obstacle = await shop.horizon.obstacle(saved.watermark if saved else mark.position)
    if saved is not None and obstacle is None:
        obstacle = await restart_since(shop, saved)
    return CheckRow("horizon", obstacle is None, obstacle or words)


def horizon_words(newest: Position, *, is_used: bool) -> str:
    """Return how the log is read, and up to where it can be."""
    if is_used:
        return f"the log can be read up to {newest}"
    return (
        f"off: the log is read by id, up to {newest} by now; an entry whose commit is late comes out of "
        "order, and one that is later than source.gap_reread_s not at all"
    )


async def _check_orders(shop: Shop) -> CheckRow:
    count = await shop.orders.count_paid()
    if count is None:
        return CheckRow("orders", True, "can be read; counting them takes too long")
    return CheckRow("orders", True, f"can be read; {count:,} are paid")


async def _check_weeks(shop: Shop) -> CheckRow:
    today = datetime.now(ZoneInfo(shop.site.timezone)).date()
    week = await shop.weeks.current()
    if not await shop.weeks.is_opened():
        return CheckRow("weeks", True, f"none was opened yet: week tags go by the calendar's, of {week}")
    if today - week <= OLD_WEEK:
        return CheckRow("weeks", True, f"the current one is that of {week}")
    return CheckRow(
        "weeks",
        True,
        f"the one opened last is that of {week}, and week tags go by its orders until the shop opens another",
    )


async def _check_changes(shop: Shop) -> CheckRow:
    """Query for changes as `follow` does at every poll, and measure how long that takes."""
    now = await shop.changes.now()
    began_at = time.monotonic()
    async for _ in shop.changes.since(now):
        pass
    return changes_row(time.monotonic() - began_at)


def changes_row(took_s: float) -> CheckRow:
    """Return whether it took long to find that nothing has just changed."""
    if took_s <= SLOW_S:
        return CheckRow("changes", True, "what changes without an entry of the log is found quickly")
    return CheckRow(
        "changes",
        False,
        f"to find what changed took {took_s:.1f} s, and `follow` looks at every poll: customers and orders "
        "need an index on (site_id, updated_at, id)",
    )


# --- the state ---


async def _check_state(settings: Settings) -> tuple[_FoundState, list[CheckRow]]:
    was_answered = False
    try:
        async with Store.open_migrated(settings.state) as store:
            there = CheckRow("state", True, f"schema {settings.state.schema} is there")
            was_answered = (await answered_url(settings.activecampaign, store)).is_known
            account = account_name(settings.activecampaign)
            saved = await saved_checkpoint(store, settings.source.site_id, account)
    except (HeldError, SettingsError) as error:
        return _FoundState(None, was_answered), [there, CheckRow("account", False, str(error))]
    except KivaStreamError as error:
        return _FoundState(), [CheckRow("state", False, str(error))]
    where = f"its checkpoint is at {saved.watermark}" if saved else "no backfill has begun"
    bound = CheckRow("account", True, f"no other site's, and no other is this site's; {where}")
    return _FoundState(saved, was_answered), [there, bound]


# --- ActiveCampaign ---


async def _check_account(settings: Settings, site: Site | None, *, was_answered: bool) -> list[CheckRow]:
    answered = AnsweredHere(is_known=was_answered)  # `check` writes nothing to the state
    try:
        async with Client(settings.activecampaign, patience_s=PATIENCE_S, answered=answered) as client:
            missing = await account_setup(settings, client, site).missing()
    except TryLater as error:
        what = "check activecampaign.api_url and the network"
        return [CheckRow("activecampaign", False, f"{error}: {what}")]
    except KivaStreamError as error:
        return [CheckRow("activecampaign", False, str(error))]
    key = CheckRow("activecampaign", True, "the key is accepted")
    return [key, *account_rows(missing), CheckRow("limits", True, _limits(settings.activecampaign))]


def account_rows(missing: Sequence[str]) -> list[CheckRow]:
    """Return a row for each part of the account that is there, and one for each thing that is missing."""
    rows: list[CheckRow] = []
    left = list(missing)
    for part in PARTS:
        lacks = [what for what in left if part.word in what]
        left = [what for what in left if what not in lacks]
        rows += map(_missing, lacks) if lacks else [CheckRow(part.subject, True, part.there)]
    return [*rows, *map(_missing, left)]


def _missing(what: str) -> CheckRow:
    return CheckRow("activecampaign", False, f"missing: {what}; run `kiva-stream setup`")


def _limits(settings: ActiveCampaignSettings) -> str:
    paced = f"{settings.events_per_second} events/s" if settings.events_per_second else "events unpaced"
    imports = f"{settings.bulk_imports_per_minute} imports/min"
    return f"{settings.requests_per_second} requests/s, {imports}, {paced}"
