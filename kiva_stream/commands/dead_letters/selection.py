"""Which dead letters a command means: by reason, by customer, or by place."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from kiva_stream.errors import SettingsError
from kiva_stream.model.bounds import Place, place_text
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.runtime.shop import open_shop
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import DeadLetterCount, DeadLetterFilter, SiteDeadLetters
from kiva_stream.state.held_records import HeldFilter, StoredHeldRecords
from kiva_stream.state.store import Store


class DeadLetterRequest(msgspec.Struct, frozen=True):
    """Which dead letters are meant; all of them where nothing is named."""

    reason: Reason | None = None
    customer: CustomerId | None = None  # stands for all customers of its contact
    places: tuple[Place, ...] = ()


class Selection(NamedTuple):
    """A request as the state schema understands it: dead letters of entries, and of orders."""

    dead_letters: SiteDeadLetters
    of_entries: DeadLetterFilter
    of_orders: Collection[OrderId] | None  # None: all that are refused
    held: StoredHeldRecords
    of_held: HeldFilter

    async def count_by_reason(self) -> list[DeadLetterCount]:
        """Return how many dead letters are selected, by reason; a reason without any is left out."""
        counts = [
            *await self.dead_letters.counts(self.of_entries),
            await self.dead_letters.count_refused_orders(self.of_orders),
        ]
        return [each for each in counts if each.count]


async def select(settings: Settings, store: Store, request: DeadLetterRequest) -> Selection:
    """Return which dead letters are meant. Raises SettingsError when there is none at a named place."""
    found = SiteDeadLetters(store, settings.source.site_id)
    held = StoredHeldRecords(store, settings.source.site_id)
    customers = None if request.customer is None else await found.customers_of_same_contact(request.customer)
    if request.places:
        positions = [place for place in request.places if isinstance(place, Position)]
        orders = [place for place in request.places if not isinstance(place, Position)]
        of_held = HeldFilter(orders=orders, positions=positions)
        await _require_there(found, positions, orders, but_for=await held.places(positions, orders))
        of_entries = DeadLetterFilter(request.reason, customers, positions)
        return Selection(found, of_entries, of_orders=orders, held=held, of_held=of_held)
    of_entries = DeadLetterFilter(request.reason, customers)
    of_held = HeldFilter(is_all=customers is None and request.reason is None)
    if customers is not None and request.reason is None:
        of_held = HeldFilter(customers=customers)
    orders_of: Collection[OrderId] | None = []
    if request.reason in {None, Reason.ORDER_INVALID}:
        orders_of = None if customers is None else await _orders_of(settings, found, customers)
    return Selection(found, of_entries, of_orders=orders_of, held=held, of_held=of_held)


async def _require_there(
    found: SiteDeadLetters,
    positions: Collection[Position],
    orders: Collection[OrderId],
    *,
    but_for: Collection[Place],
) -> None:
    at = {each.position for each in await found.page(DeadLetterFilter(positions=positions), None)}
    refused = {each.id for each in await found.refused_orders(orders, None)}
    missing: list[Place] = [*(set(positions) - at), *(set(orders) - refused)]
    missing = [place for place in missing if place not in but_for]
    if missing:
        raise SettingsError(
            f"No dead letter at {', '.join(map(place_text, missing))}: `kiva-stream dead-letters list` names "
            "them, as TXID:ID, or order:ID."
        )


async def _orders_of(settings: Settings, found: SiteDeadLetters, customers: Collection[int]) -> list[OrderId]:
    """Return the refused orders of customers. Only the shop knows whose an order is."""
    refused = [each.id for each in await found.refused_orders(None, None)]
    if not refused:
        return []
    async with open_shop(settings) as shop:
        orders = await shop.orders.orders(refused)
    return [order.id for order in orders if order.customer_id in customers]
