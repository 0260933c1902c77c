"""`dead-letters replay`: delivers dead letters again, or asks the process that holds the site to do it."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import anyio
import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.commands.dead_letters.selection import DeadLetterRequest, select, site_dead_letters
from kiva_stream.errors import HeldError
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import SentOrder
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.runtime.assembly import FAR, Assembly, held
from kiva_stream.runtime.shop import open_shop
from kiva_stream.runtime.shutdown import GracefulShutdown
from kiva_stream.runtime.start_position import Start
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import Choice, Letter, SiteDeadLetters
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store


class ReplayReport(msgspec.Struct, frozen=True):
    """What became of the dead letters whose replay was asked for."""

    asked: int  # by this command
    outcomes: dict[str, int] | None  # of all that were asked for; None: the process at work replays them
    stopped_by: int | None = None  # the signal that ended it before its end


async def replay(settings: Settings, request: DeadLetterRequest) -> ReplayReport:
    """Have dead letters delivered again: by the process that holds the site, else here and now.

    Raises SettingsError when there is none at a named place, SourceError, AccountRefused,
    CheckpointError, HeldError, DrainTimeoutError, or ExceptionGroups of them.
    """
    async with (
        Store.open(settings.state) as store,
        open_shop(settings) as shop,
        Client(settings.activecampaign) as client,
        AsyncExitStack() as stack,
    ):
        found = await site_dead_letters(settings, store)
        selection = await select(settings, found, request)
        asked = await found.ask(selection.of_entries)
        asked += await found.ask_orders(selection.of_orders, with_discarded=bool(request.places))
        try:
            assembly = await stack.enter_async_context(held(settings, shop, store, client))
        except HeldError:
            return ReplayReport(asked, None)
        run = ReplayRun(assembly, found)
        stopping = GracefulShutdown(run.drain, settings.pipeline.drain_timeout_s)
        await stopping.run(run.go)
        return ReplayReport(asked, await run.outcomes(), stopping.signal)


class ReplayRun:
    """Delivers all dead letters whose replay is asked for, entries in log order, then orders."""

    def __init__(self, assembly: Assembly, dead_letters: SiteDeadLetters) -> None:
        self._assembly = assembly
        self._dead_letters = dead_letters
        self._before_entries = anyio.CancelScope()
        self._after_entries = anyio.CancelScope()
        self._pipeline: Pipeline | None = None
        self._replays: dict[Position, Reason] = {}
        self._orders: list[OrderId] = []

    async def go(self) -> None:
        """Deliver them; return early after a drain."""
        assembly, saved = self._assembly, await self._assembly.saved()
        with self._before_entries:
            self._orders = await self._dead_letters.asked_orders()
            await assembly.open()
            if saved is not None:
                await self._open(Start(saved.watermark, saved.since, saved.events_since))
        if self._pipeline is not None and saved is not None:
            async with assembly.contacts.working():
                await self._pipeline.run(HighWaterMark(saved.watermark, FAR))
        with self._after_entries:
            await assembly.orders.upsert(self._orders)

    async def _open(self, start: Start) -> None:
        """Build the pipeline. Entries above the watermark are left out: they are read again with the log."""
        asked = await self._dead_letters.asked()
        self._replays = {at: request.why for at, request in asked.items() if at <= start.after}
        if self._replays:
            log = self._assembly.shop.log
            self._pipeline, _ = await self._assembly.pipeline(start, log)

    def drain(self) -> None:
        """Let what is in flight finish, and `go` return."""
        self._before_entries.cancel()
        self._after_entries.cancel()
        if self._pipeline is not None:
            self._pipeline.drain()

    async def outcomes(self) -> dict[str, int]:
        """Return the number of dead letters by what became of them."""
        ledger, states = self._assembly.ledger, OrderStates(self._assembly.store, self._assembly.shop.site.id)
        undelivered = await ledger.unresolved(self._replays, ())
        left = await self._dead_letters.page(Choice(positions=self._replays), None)
        still_dead = {each.position: each for each in left}
        orders = await states.sent(self._orders)
        became = Counter(
            _became(still_dead.get(at), is_delivered=at not in undelivered) for at in self._replays
        )
        return dict(became + Counter(map(_order_became, orders.values())))


def _became(letter: Letter | None, *, is_delivered: bool) -> str:
    if is_delivered:
        return "delivered"
    if letter is None:
        return "synced or skipped"
    return "not done yet" if letter.replay_at else f"dead {letter.why}"


def _order_became(order: SentOrder) -> str:
    if not order.refused:
        return "orders sent"
    return "orders refused" if order.fingerprint else "orders not sent: of no contact"
