"""`dead-letters show`: all about one dead letter, its entry as the shop has it now, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kiva_stream.commands.dead_letters.listing import DeadLetterRow, row_of_entry, row_of_order
from kiva_stream.commands.dead_letters.selection import DeadLetterRequest, Selection, select
from kiva_stream.errors import CheckpointError
from kiva_stream.model.bounds import Place
from kiva_stream.model.classifications import Classification, Event, Noise, Reject
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import Order
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.observability.scrubbing import Scrubber
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.settings.sections import Settings
from kiva_stream.state.status import SiteStatus, read_status
from kiva_stream.state.store import Store
from kiva_stream.sync.desired_order import invalid

SHOWN_CHARS = 500  # of an entry's message, and of its data
ADVICE = {
    Reason.NO_EMAIL: "Give the customer an address at the shop: then it is replayed by itself.",
    Reason.NO_CUSTOMER: "It names nobody. Replay it when the shop has corrected the entry, or discard it.",
    Reason.NO_CONTACT: "Nobody of its address was left. It is replayed by itself when the customer has one.",
    Reason.WRONG_SITE: "Its customer is of another site. Replay it when that was corrected, or discard it.",
    Reason.AC_REJECTED: "ActiveCampaign refuses the contact. Correct at the shop what the reply names: then "
    "it is replayed by itself; or replay it when ActiveCampaign takes it.",
    Reason.ORDER_INVALID: "Correct the order at the shop: then it is sent by itself; or replay it when "
    "ActiveCampaign takes it, or discard it.",
    Reason.EVENT_REJECTED: "ActiveCampaign refused the event. Replay it when what the reply names is put "
    "right, or discard it.",
}


class DeadLetterDetails(msgspec.Struct, frozen=True):
    """The answer of `dead-letters show`."""

    row: DeadLetterRow = msgspec.field(name="letter")
    entry: dict[str, str]  # the entry, or the order, as the shop has it now; empty: it is gone
    verdict: str  # what would become of it now
    advice: str


async def show_dead_letter(settings: Settings, place: Place) -> DeadLetterDetails:
    """Return all about one dead letter, with its entry, or its order, as the shop has it now.

    Secrets and addresses are masked. Raises SettingsError when there is none at this place, SourceError,
    CheckpointError.
    """
    scrub = Scrubber(settings.secrets(), mask_emails=settings.log.mask_emails)
    async with open_shop(settings) as shop, Store.open_migrated(settings.state) as store:
        selected = await select(settings, store, DeadLetterRequest(places=(place,)))
        if isinstance(place, Position):
            status = await _status(settings, store)
            details = await _of_entry(selected, shop, status=status, at=place)
        else:
            details = await _of_order(selected, shop, place)
    return msgspec.structs.replace(
        details,
        entry={name: scrub(text) for name, text in details.entry.items()},
        verdict=scrub(details.verdict),
    )


# --- of an entry ---


async def _of_entry(
    selected: Selection, shop: Shop, *, status: SiteStatus, at: Position
) -> DeadLetterDetails:
    (letter,) = await selected.dead_letters.page(selected.of_entries, None)
    entry = next(iter(await shop.log.entries([at])), None)
    classify = classifier_of(shop.site, status.events_since)
    return DeadLetterDetails(
        row=row_of_entry(letter),
        entry=_texts(_entry_fields(entry) if entry else {}),
        verdict=_verdict(classify(entry)) if entry else "skipped: erased",
        advice=ADVICE[letter.why],
    )


async def _status(settings: Settings, store: Store) -> SiteStatus:
    status = await read_status(store, settings.source.site_id)
    if status is None:
        raise CheckpointError(f"Nothing has been done for site {settings.source.site_id} yet.")
    return status


def _verdict(classification: Classification) -> str:
    if isinstance(classification, Event):
        return f"an event: {classification.event_line.ac_name}; {classification.eventdata}"
    if isinstance(classification, Noise):
        return f"skipped: {classification.why}"
    return f"dead: {classification.why}" if isinstance(classification, Reject) else "sync only: no event"


def _entry_fields(entry: Entry) -> dict[str, object]:
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


# --- of an order ---


async def _of_order(selected: Selection, shop: Shop, order_id: OrderId) -> DeadLetterDetails:
    (refused,) = await selected.dead_letters.refused_orders(selected.of_orders, None)
    order = next(iter(await shop.orders.orders([order_id])), None)
    return DeadLetterDetails(
        row=row_of_order(refused),
        entry=_texts(_order_fields(order) if order else {}),
        verdict=_order_verdict(order),
        advice=ADVICE[Reason.ORDER_INVALID],
    )


def _order_verdict(order: Order | None) -> str:
    if order is None:
        return "not sent: it is gone"
    return f"refused: {invalid(order)}" if invalid(order) else "an order that would be sent"


def _order_fields(order: Order) -> dict[str, object]:
    return {
        "status": order.status,
        "payment": order.payment_status,
        "created": order.created_at,
        "paid": order.paid_at,
        "total in cents": order.total_cents,
        "items": len(order.items),
        "order's customer": order.customer_id,
    }


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    """Return fields as texts of at most SHOWN_CHARS, without the empty ones."""
    texts = {name: " ".join(str(value).split()) for name, value in fields.items() if value is not None}
    return {name: _cut(text) for name, text in texts.items() if text}


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
