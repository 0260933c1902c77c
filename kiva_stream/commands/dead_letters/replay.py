"""`dead-letters replay`: delivers dead letters again, or asks the process that holds the site to do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import msgspec

from kiva_stream.commands.dead_letters.selection import DeadLetterRequest, select
from kiva_stream.errors import HeldError
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import SentOrder
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.runtime.held_site import HeldSite, hold_site
from kiva_stream.runtime.shop import open_shop
from kiva_stream.runtime.shutdown import Drain, GracefulShutdown
from kiva_stream.runtime.start_position import all_up_to
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import DeadLetterFilter, StoredDeadLetter
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store


class ReplayReport(msgspec.Struct, frozen=True):
    """What became of the dead letters whose replay was asked for."""

    asked: int  # by this command
    outcomes: dict[str, int] | None  # of all that were asked for; None: the process at work replays them
    held: int = 0  # records that are tried now
    stopped_by: int | None = None  # the signal that ended it before its end


async def replay(settings: Settings, request: DeadLetterRequest) -> ReplayReport:
    """Have dead letters delivered again: by the process that holds the site, else here and now.

    Raises SettingsError when there is none at a named place, SourceError, AccountRefused,
    CheckpointError, HeldError, DrainTimeoutError, or ExceptionGroups of them.
    """
    incidents = Incidents()
    async with (
        Store.open_migrated(settings.state) as store,
        open_shop(settings, incidents=incidents) as shop,
        AsyncExitStack() as stack,
    ):
        selected = await select(settings, store, request)
        asked = await selected.dead_letters.request_replay(selected.of_entries)
        asked += await selected.dead_letters.request_order_replay(
            selected.of_orders, with_discarded=bool(request.places)
        )
        held = await selected.held.ask(selected.of_held)
        try:
            site = await stack.enter_async_context(hold_site(settings, shop, store, incidents=incidents))
        except HeldError:
            return ReplayReport(asked, None, held=held)
        drain = Drain()
        run = ReplayRun(site, drain)
        shutdown = GracefulShutdown(drain.begin, settings.pipeline.drain_timeout_s)
        await shutdown.run(run.go)
        return ReplayReport(asked, await run.outcomes(), held=held, stopped_by=shutdown.signal)


class ReplayRun:
    """Delivers all dead letters whose replay is asked for, entries in log order, then orders."""

    def __init__(self, site: HeldSite, drain: Drain) -> None:
        self._site = site
        self._drain = drain
        self._replays: Mapping[Position, Reason] = {}
        self._orders: list[OrderId] = []

    async def go(self) -> None:
        """Deliver the dead letters; return early after a drain."""
        saved = await self._site.saved()
        working = await self._drain.interrupt(self._open)
        if working is not None:
            if saved is not None:
                await self._deliver_entries(working, saved)
            await self._drain.interrupt(partial(working.orders.upsert, self._orders))
            await self._drain.interrupt(working.tags.sync_held)

    async def _open(self) -> WorkingSite:
        self._orders = await self._site.dead_letters.order_replay_requests()
        return await WorkingSite.open(self._site)

    async def _deliver_entries(self, working: WorkingSite, saved: SavedCheckpoint) -> None:
        pipeline = await self._drain.interrupt(partial(self._pipeline, working, saved))
        if pipeline is not None:
            with self._drain.stops_by(pipeline.drain):
                async with working.contacts.working():
                    await pipeline.run(all_up_to(saved.watermark), tries_all_held=False)

    async def _pipeline(self, working: WorkingSite, saved: SavedCheckpoint) -> Pipeline | None:
        """Build the pipeline. Entries above the watermark are left out: they are read again with the log."""
        run = await working.resume(saved)
        self._replays = run.replays
        has_work = bool(self._replays or working.held_records.due())
        return await run.pipeline(working.shop.log) if has_work else None

    async def outcomes(self) -> dict[str, int]:
        """Return the number of dead letters by what became of them."""
        site = self._site
        delivered = await site.ledger.delivered(self._replays)
        left = await site.dead_letters.page(DeadLetterFilter(positions=self._replays), None)
        still_dead = {each.position: each for each in left}
        orders = await OrderStates(site.store, site.shop.site.id).sent(self._orders)
        became = Counter(_became(still_dead.get(at), is_delivered=at in delivered) for at in self._replays)
        return dict(became + Counter(map(_order_became, orders.values())))


def _became(letter: StoredDeadLetter | None, *, is_delivered: bool) -> str:
    if is_delivered:
        return "delivered"
    if letter is None:
        return "synced or skipped"
    return "not done yet" if letter.replay_at else f"dead {letter.why}"


def _order_became(order: SentOrder) -> str:
    if not order.refused:
        return "orders sent"
    return "orders refused" if order.fingerprint else "orders not sent: of no contact"
