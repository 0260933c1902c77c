"""`rewind`: moves the checkpoint back. Nothing else has entries read again that have their outcome.

It also changes what else is kept with the checkpoint: from when on entries become events, and whether the log
is read below a horizon. A change of the latter changes what positions mean: without a horizon they are
`(0, id)`.
"""

from __future__ import annotations

from datetime import date, datetime

import anyio
import msgspec

from kiva_stream.errors import CheckpointError, SettingsError
from kiva_stream.model.bounds import bound_text
from kiva_stream.model.positions import Position
from kiva_stream.runtime.account import account_name
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.settings.sections import Settings
from kiva_stream.state.leases import hold, renew
from kiva_stream.state.rewinds import KeptAbove, KeptCheckpoint, NewStart, SiteRewinds
from kiva_stream.state.store import Store


class RewindRequest(msgspec.Struct, frozen=True):
    """How a checkpoint is to be moved back."""

    to: Position  # entries above it are read again
    resend: bool = False  # also what the ledger holds
    events_since: date | None = None  # None: as it was
    forget_events_since: bool = False


class RewindReport(msgspec.Struct, frozen=True):
    """What a rewind does, or has done."""

    before: str  # the watermark
    to: str
    resend: bool
    deliveries: int | None  # of the ledger, above it; None: positions change, and it cannot be counted
    dead_letters: int | None = msgspec.field(name="letters")  # above it
    events_since: datetime | None
    horizon: bool  # how the log is read from then on
    is_done: bool


async def preview(settings: Settings, request: RewindRequest) -> RewindReport:
    """Return what a rewind would do. Raises as `rewind`, but for HeldError."""
    async with open_shop(settings) as shop, Store.open_migrated(settings.state) as store:
        rewinds = SiteRewinds(store, shop.site.id)
        kept, start = await _start(settings, shop, rewinds=rewinds, request=request)
        is_same = kept.horizon == start.horizon  # else what will lie above it is not known yet
        return _report(kept, start, await rewinds.above(start.to) if is_same else None, is_done=False)


async def rewind(settings: Settings, request: RewindRequest) -> RewindReport:
    """Move the checkpoint back; return what was done. It holds the site.

    Raises SettingsError when it cannot go there, SourceError, CheckpointError, HeldError.
    """
    account, lease_s = account_name(settings.activecampaign), settings.state.lease_s
    async with (
        open_shop(settings) as shop,
        Store.open_migrated(settings.state) as store,
        hold(store, shop.site.id, account, lease_s=lease_s) as lease,
    ):
        rewinds = SiteRewinds(store, shop.site.id)
        kept, start = await _start(settings, shop, rewinds=rewinds, request=request)
        async with anyio.create_task_group() as group:  # a long ledger may take longer than a lease
            group.start_soon(renew, store, lease)
            above = await rewinds.move(lease, kept, start, txids=shop.positions.txids)
            group.cancel_scope.cancel()
        return _report(kept, start, above, is_done=True)


async def _start(
    settings: Settings, shop: Shop, *, rewinds: SiteRewinds, request: RewindRequest
) -> tuple[KeptCheckpoint, NewStart]:
    """Return the checkpoint that is kept and the one to begin with. Raises SettingsError if it cannot be."""
    kept = await rewinds.checkpoint()
    if kept is None:
        raise CheckpointError(f"Nothing has been done for site {shop.site.id} yet: start a backfill.")
    _require_account(settings, kept)
    start = NewStart(
        to=request.to,
        since=bound_text(request.to),
        events_since=await _events_since(shop, kept, request),
        horizon=settings.source.horizon,
        resend=request.resend,
    )
    await _require_possible(shop, kept, start)
    return kept, start


def _require_account(settings: Settings, kept: KeptCheckpoint) -> None:
    account = account_name(settings.activecampaign)
    if kept.account != account:
        raise SettingsError(
            f"The state belongs to the ActiveCampaign account {kept.account}, and activecampaign.api_url and "
            f"event_actid name {account}: set them back."
        )


async def _events_since(shop: Shop, kept: KeptCheckpoint, request: RewindRequest) -> datetime | None:
    if request.forget_events_since:
        return None
    if request.events_since is None:
        return kept.events_since
    return await shop.positions.midnight(request.events_since)


async def _require_possible(shop: Shop, kept: KeptCheckpoint, start: NewStart) -> None:
    """Raise SettingsError when entries would be lost, or would be sent again without --resend."""
    if not start.horizon and start.to.txid:
        raise SettingsError(
            f"--to {start.to} has a transaction id, and source.horizon is off: positions are 0:ID then."
        )
    newest = kept.watermark if start.horizon == kept.horizon else await _newest_in_common(shop, kept, start)
    if start.to > newest:
        raise SettingsError(
            f"--to {start.to} lies above {newest}, up to where every entry has its outcome"
            f"{'' if newest == kept.watermark else ' by these positions too'}: a checkpoint only moves back."
        )
    if kept.pruned_to is not None and start.to < kept.pruned_to and not start.resend:
        raise SettingsError(
            f"The ledger has forgotten deliveries up to {kept.pruned_to} (state.ledger_keep_days), and what "
            f"lies above {start.to} would be sent again: give --resend if it may be, or a position from "
            f"{kept.pruned_to} on."
        )


async def _newest_in_common(shop: Shop, kept: KeptCheckpoint, start: NewStart) -> Position:
    """Return the newest position, as positions are from now on, at or below which all entries are done."""
    if start.horizon:
        return await shop.positions.newest_without_ids_above(kept.done_to_id)
    first = await shop.positions.lowest_id_above(kept.watermark)
    return Position(0, kept.watermark.id if first is None else min(first - 1, kept.watermark.id))


def _report(kept: KeptCheckpoint, start: NewStart, above: KeptAbove | None, *, is_done: bool) -> RewindReport:
    return RewindReport(
        before=str(kept.watermark),
        to=bound_text(start.to),
        resend=start.resend,
        deliveries=above and above.deliveries,
        dead_letters=above and above.dead_letters,
        events_since=start.events_since,
        horizon=start.horizon,
        is_done=is_done,
    )
