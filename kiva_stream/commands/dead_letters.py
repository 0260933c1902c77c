"""`dead-letters`: what could not be delivered and why; listed, shown, replayed, discarded.

Dead letters are those of entries, at their position, and those of refused orders, which have an id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from typing import NamedTuple, TypeVar

import anyio
import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.commands.reports import (
    Discarded,
    LetterGroup,
    LetterLine,
    LetterList,
    LetterRequest,
    Replayed,
    ShownLetter,
)
from kiva_stream.errors import CheckpointError, HeldError, SettingsError
from kiva_stream.model.bounds import Place, place_text
from kiva_stream.model.classifications import Classification, Event, Noise, Reject
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import Order, SentOrder
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.observability.scrubbing import Scrubber
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.runtime.assembly import FAR, Assembly, held
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.runtime.shutdown import GracefulShutdown
from kiva_stream.runtime.start_position import Start
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import Choice, Letter, LetterCount, RefusedOrder, SiteDeadLetters
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store
from kiva_stream.sync.desired_order import invalid

R = TypeVar("R")

SHOWN_CHARS = 500  # of an entry's message, and of its data
REPLAY_ASKED, DISCARDED = "replay asked", "discarded"
ADVICE = {
    Reason.NO_EMAIL: "Give the customer an address at the shop: then it is replayed by itself.",
    Reason.NO_CUSTOMER: "It names nobody. Replay it when the shop has corrected the entry, or discard it.",
    Reason.NO_CONTACT: "Nobody of its address was left. It is replayed by itself when the customer has one.",
    Reason.WRONG_SITE: "Its customer is of another site. Replay it when that was corrected, or discard it.",
    Reason.AC_REJECTED: "ActiveCampaign refuses the contact. Correct the address at the shop: then it is "
    "replayed by itself; or replay it when ActiveCampaign takes it.",
    Reason.ORDER_INVALID: "Correct the order at the shop: then it is sent by itself; or replay it when "
    "ActiveCampaign takes it, or discard it.",
    Reason.EVENT_REJECTED: "ActiveCampaign refused the event. Replay it when what the reply names is put "
    "right, or discard it.",
}


class _Choices(NamedTuple):
    """Which letters are meant, of entries and of orders."""

    letters: Choice
    orders: Collection[OrderId] | None  # None: all that are refused


async def dead_letters(
    settings: Settings, request: LetterRequest, limit: int, *, oldest_first: bool
) -> LetterList:
    """Return the dead letters that are meant, at most `limit` of them, and how many there are.

    Raises CheckpointError, and SourceError where an order's customer is asked for.
    """
    async with Store.open(settings.state) as store:
        letters = await _letters(settings, store)
        choices = await _choices(settings, letters, request)
        counts = await _counts(letters, choices)
        found = await letters.page(choices.letters, limit, oldest_first=oldest_first)
        orders = await letters.orders(choices.orders, limit - len(found), oldest_first=oldest_first)
    return LetterList(
        sum(each.count for each in counts),
        [LetterGroup(each.why, each.count, each.asked, each.discarded) for each in counts],
        [*map(_line, found), *map(_order_line, orders)],
    )


async def count(settings: Settings, request: LetterRequest) -> int:
    """Return how many dead letters are meant that are not discarded. Raises as `dead_letters`."""
    async with Store.open(settings.state) as store:
        letters = await _letters(settings, store)
        counts = await _counts(letters, await _choices(settings, letters, request))
        return sum(each.count - each.discarded for each in counts)


async def show(settings: Settings, place: Place) -> ShownLetter:
    """Return all about one dead letter, with its entry, or its order, as the shop has it now.

    Raises SettingsError when there is none at this place, SourceError, CheckpointError.
    """
    scrub = Scrubber(settings.secrets(), mask_emails=settings.log.mask_emails)
    async with open_shop(settings) as shop, Store.open(settings.state) as store:
        letters = await _letters(settings, store)
        choices = await _choices(settings, letters, LetterRequest(places=(place,)))
        if isinstance(place, Position):
            (letter,) = await letters.page(choices.letters, None)
            entry = next(iter(await shop.log.entries([place])), None)
            verdict = await _verdict(settings, store, shop, entry)
            shown = ShownLetter(_line(letter), _told(entry, _entry), verdict, ADVICE[letter.why])
        else:
            (refused,) = await letters.orders(choices.orders, None)
            order = next(iter(await shop.orders.orders([place])), None)
            verdict = _order_verdict(order)
            advice = ADVICE[Reason.ORDER_INVALID]
            shown = ShownLetter(_order_line(refused), _told(order, _order), verdict, advice)
    return _scrubbed(shown, scrub)


async def discard(settings: Settings, request: LetterRequest) -> Discarded:
    """Mark dead letters: they stay dead, and nobody need look at them.

    Raises SettingsError when there is none at a place that is named, SourceError, CheckpointError.
    """
    async with Store.open(settings.state) as store:
        letters = await _letters(settings, store)
        choices = await _choices(settings, letters, request)
        marked = await letters.discard(choices.letters)
        return Discarded(marked + await letters.discard_orders(choices.orders))


async def replay(settings: Settings, request: LetterRequest) -> Replayed:
    """Have dead letters delivered again, by whoever holds the site; when nobody does, here and now.

    Raises SettingsError when there is none at a place that is named, SourceError, AccountRefused,
    CheckpointError, HeldError, DrainTimeoutError, or ExceptionGroups of them.
    """
    async with (
        Store.open(settings.state) as store,
        open_shop(settings) as shop,
        Client(settings.activecampaign) as client,
        AsyncExitStack() as stack,
    ):
        letters = await _letters(settings, store)
        choices = await _choices(settings, letters, request)
        asked = await letters.ask(choices.letters)
        asked += await letters.ask_orders(choices.orders, with_discarded=bool(request.places))
        try:
            assembly = await stack.enter_async_context(held(settings, shop, store, client))
        except HeldError:
            return Replayed(asked, None)
        run = ReplayRun(assembly, letters)
        stopping = GracefulShutdown(run.drain, settings.pipeline.drain_timeout_s)
        await stopping.run(run.go)
        return Replayed(asked, await run.outcomes(), stopping.signal)


class ReplayRun:
    """Delivers all dead letters whose replay is asked for, entries in log order, then orders."""

    def __init__(self, assembly: Assembly, letters: SiteDeadLetters) -> None:
        self._assembly = assembly
        self._letters = letters
        self._before_entries = anyio.CancelScope()
        self._after_entries = anyio.CancelScope()
        self._pipeline: Pipeline | None = None
        self._replays: dict[Position, Reason] = {}
        self._orders: list[OrderId] = []

    async def go(self) -> None:
        """Do it; return early after a drain."""
        assembly, saved = self._assembly, await self._assembly.saved()
        with self._before_entries:
            self._orders = await self._letters.asked_orders()
            await assembly.open()
            if saved is not None:
                await self._open(Start(saved.watermark, saved.since, saved.events_since))
        if self._pipeline is not None and saved is not None:
            async with assembly.contacts.working():
                await self._pipeline.run(HighWaterMark(saved.watermark, FAR))
        with self._after_entries:
            await assembly.orders.upsert(self._orders)

    async def _open(self, start: Start) -> None:
        """Build the pipeline. Letters above the watermark come again with the log, and wait for that."""
        asked = await self._letters.asked()
        self._replays = {at: letter.why for at, letter in asked.items() if at <= start.after}
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
        """Return how many became what."""
        ledger, states = self._assembly.ledger, OrderStates(self._assembly.store, self._assembly.shop.site.id)
        undelivered = await ledger.unresolved(self._replays, ())
        letters = {
            each.position: each for each in await self._letters.page(Choice(positions=self._replays), None)
        }
        orders = await states.sent(self._orders)
        became = Counter(_became(letters.get(at), is_delivered=at not in undelivered) for at in self._replays)
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


# --- which are meant ---


async def _letters(settings: Settings, store: Store) -> SiteDeadLetters:
    await store.require_version()
    return SiteDeadLetters(store, settings.source.site_id)


async def _choices(settings: Settings, letters: SiteDeadLetters, request: LetterRequest) -> _Choices:
    """Return which letters are meant. Raises SettingsError when there is none at a place that is named."""
    positions = [place for place in request.places if isinstance(place, Position)]
    orders = [place for place in request.places if not isinstance(place, Position)]
    customers = None if request.customer is None else await letters.of_one_contact(request.customer)
    if request.places:
        choices = _Choices(Choice(request.reason, customers, positions), orders)
        await _require_there(letters, positions, orders)
    elif request.reason not in {None, Reason.ORDER_INVALID}:
        choices = _Choices(Choice(request.reason, customers), [])
    else:
        refused = None if customers is None else await _orders_of(settings, letters, customers)
        choices = _Choices(Choice(request.reason, customers), refused)
    return choices


async def _require_there(
    letters: SiteDeadLetters, positions: Collection[Position], orders: Collection[OrderId]
) -> None:
    found = {each.position for each in await letters.page(Choice(positions=positions), None)}
    refused = {each.id for each in await letters.orders(orders, None)}
    missing: list[Place] = [*(set(positions) - found), *(set(orders) - refused)]
    if missing:
        raise SettingsError(
            f"No dead letter at {', '.join(map(place_text, missing))}: `kiva-stream dead-letters list` names "
            "them, as TXID:ID, or order:ID."
        )


async def _orders_of(
    settings: Settings, letters: SiteDeadLetters, customers: Collection[int]
) -> list[OrderId]:
    """Return the refused orders of customers, which only the shop knows."""
    refused = [each.id for each in await letters.orders(None, None)]
    if not refused:
        return []
    async with open_shop(settings) as shop:
        found = await shop.orders.orders(refused)
    return [order.id for order in found if order.customer_id in customers]


async def _counts(letters: SiteDeadLetters, choices: _Choices) -> list[LetterCount]:
    counts = [*await letters.counts(choices.letters), await letters.count_orders(choices.orders)]
    return [each for each in counts if each.count]


# --- how they are shown ---


def _line(letter: Letter) -> LetterLine:
    return LetterLine(
        place=str(letter.position),
        reason=letter.why,
        customer=None if letter.customer is None else str(letter.customer),
        attempts=letter.attempts,
        died_at=letter.died_at,
        reply=letter.reply,
        mark=_mark(is_asked=letter.replay_at is not None, is_discarded=letter.discarded_at is not None),
    )


def _order_line(order: RefusedOrder) -> LetterLine:
    mark = _mark(is_asked=order.is_asked, is_discarded=order.discarded_at is not None)
    return LetterLine(place_text(order.id), Reason.ORDER_INVALID, None, None, None, order.reply, mark)


def _mark(*, is_asked: bool, is_discarded: bool) -> str:
    return DISCARDED if is_discarded else REPLAY_ASKED if is_asked else ""


async def _verdict(settings: Settings, store: Store, shop: Shop, entry: Entry | None) -> str:
    """Return in words what an entry is now, by the checkpoint's bounds."""
    status = await read_status(store, settings.source.site_id)
    if status is None:
        raise CheckpointError(f"Nothing has been done for site {settings.source.site_id} yet.")
    if entry is None:
        return "skipped: erased"
    return _words(classifier_of(shop.site, status.events_since)(entry))


def _words(verdict: Classification) -> str:
    if isinstance(verdict, Event):
        return f"an event: {verdict.line.ac_name}; {verdict.eventdata}"
    if isinstance(verdict, Noise):
        return f"skipped: {verdict.why}"
    return f"dead: {verdict.why}" if isinstance(verdict, Reject) else "sync only: no event"


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "occurred": entry.occurred_at,
        "inserted": entry.inserted_at,
        "action": entry.action,
        "actor": entry.actor_type,
        "staff": entry.admin_user,
        "message": entry.message,
        "data": entry.data,
        "entry's customer": entry.customer_id,
    }


def _order_verdict(order: Order | None) -> str:
    if order is None:
        return "not sent: it is gone"
    return f"refused: {invalid(order)}" if invalid(order) else "an order that would be sent"


def _order(order: Order) -> dict[str, object]:
    return {
        "status": order.status,
        "payment": order.payment_status,
        "created": order.created_at,
        "paid": order.paid_at,
        "total in cents": order.total_cents,
        "items": len(order.items),
        "order's customer": order.customer_id,
    }


def _told(row: R | None, fields: Callable[[R], Mapping[str, object]]) -> dict[str, str]:
    """Return the fields of a row as short texts, without those that say nothing; of none, none."""
    named = {} if row is None else fields(row)
    texts = {name: _short(value) for name, value in named.items() if value is not None}
    return {name: text for name, text in texts.items() if text}


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _scrubbed(shown: ShownLetter, scrub: Scrubber) -> ShownLetter:
    """Return it without secrets and addresses."""
    entry: Mapping[str, str] = {name: scrub(text) for name, text in shown.entry.items()}
    return msgspec.structs.replace(shown, entry=dict(entry), verdict=scrub(shown.verdict))
