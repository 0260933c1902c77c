"""Discrepancies: what ActiveCampaign, or the state, does not have as it should. Pure.

A discrepancy names what differs, and quotes no name, address, phone number or birthday.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec

from kiva_stream.model.contacts import DesiredContact, ListStatus, ShownContact
from kiva_stream.model.ids import AcId, ContactId, CustomerId, OrderId
from kiva_stream.model.orders import DesiredOrder, ShownOrder
from kiva_stream.model.positions import Position
from kiva_stream.model.tracked_events import LoggedEvent, Mark, is_cut, mark_of, shows
from kiva_stream.model.week_tags import WeekTag

# An empty one clears what kiva_stream sent before, and leaves what others wrote there.
_NAMES = ("first_name", "last_name", "phone")
_FIELDS = ("customer_id", "status", "box_type", "next_delivery", "cancel_date", "birthday")


class DiscrepancyKind(StrEnum):
    """The kinds of discrepancies."""

    OUTCOME = "outcome"  # an entry below the watermark without one
    NO_LINK = "no link"  # a customer who belongs at ActiveCampaign has no contact
    REFUSED = "refused"  # ActiveCampaign refuses the contact of a customer
    NO_CUSTOMER = "no customer"  # a contact has no customer, and was not cleared
    MOVED = "moved"  # a customer has another address than their contact
    NO_CONTACT = "no contact"  # ActiveCampaign does not have it any more
    CONTACT_ID = "contact id"  # ActiveCampaign has it under another id, or the state does not know which
    ADDRESS = "address"  # it has another one at ActiveCampaign
    FIELDS = "fields"
    LEFT_OUT = "left out"  # a name, phone or birthday whose value ActiveCampaign refuses
    NOT_ON_LIST = "not on list"  # no import put it there, so far as is known
    LIST = "list"  # it is on the list, though a customer of it opted out
    TAG = "tag"
    NO_ORDER = "no order"
    ORDER = "order"  # it is there, but not as it should be
    NO_EVENT = "no event"
    NOT_LISTED = "not listed"  # events older than what the log lists
    REPEATED = "repeated"
    OUT_OF_ORDER = "out of order"
    UNEXPECTED = "unexpected"  # an event that should not be there


class Discrepancy(NamedTuple):
    """Something that is not as it should be; equal keys mean the same discrepancy."""

    kind: DiscrepancyKind
    what: str
    contact: ContactId | None = None
    customer: CustomerId | None = None
    ac_id: AcId | None = None
    order: OrderId | None = None
    position: Position | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What two comparisons recognise it by."""
        return self.kind, self.contact, self.customer, self.order, self.position


class Difference(NamedTuple):
    """What is wrong with a contact, tag or order, before it is said whose."""

    kind: DiscrepancyKind
    what: str


# --- contacts -------------------------------------------------------------------------------------------


def contact_differences(
    desired: DesiredContact, shown: ShownContact, titles: Mapping[str, str]
) -> Iterator[Difference]:
    """Yield what differs from what is wanted of a contact; `titles` are those of its fields."""
    if shown.email != desired.email:
        yield Difference(DiscrepancyKind.ADDRESS, "it has another address there")
    if wrong := [*_wrong_names(desired, shown), *_wrong_fields(desired, shown, titles)]:
        yield Difference(DiscrepancyKind.FIELDS, f"not as at the shop: {', '.join(wrong)}")
    if desired.list_status is ListStatus.UNSUBSCRIBE and shown.is_subscribed:
        yield Difference(DiscrepancyKind.LIST, "it is on the list, though somebody of it opted out")


def _wrong_names(desired: DesiredContact, shown: ShownContact) -> list[str]:
    wrong = [name for name in _NAMES if getattr(desired, name) not in {"", None, getattr(shown, name)}]
    return [name.replace("_", " ") for name in wrong]


def _wrong_fields(desired: DesiredContact, shown: ShownContact, titles: Mapping[str, str]) -> list[str]:
    wrong = [name for name in _FIELDS if getattr(desired, name) not in {None, shown.fields.get(name, "")}]
    return [titles[name] for name in wrong]


def tag_difference(wanted: WeekTag | None, there: Collection[WeekTag]) -> Difference | None:
    """Return how a contact's week tags differ from the one wanted; None when they do not."""
    if set(there) == ({wanted} if wanted else set()):
        return None
    right = _named([wanted] if wanted else [])
    return Difference(DiscrepancyKind.TAG, f"its week tag is {_named(there)}, and should be {right}")


def _named(tags: Collection[WeekTag]) -> str:
    return " and ".join(f"'{tag}'" for tag in sorted(tags)) or "none"


# --- orders ---------------------------------------------------------------------------------------------


def order_difference(desired: DesiredOrder, shown: ShownOrder | None) -> Difference | None:
    """Return how an order differs. Its address is not compared: it keeps the one it was sent with."""
    if shown is None:
        return Difference(DiscrepancyKind.NO_ORDER, f"order {desired.id} is not there")
    wanted = _as_shown(desired)
    wrong = [
        name.replace("_", " ")
        for name in ShownOrder.__struct_fields__
        if _comparable(getattr(wanted, name)) != _comparable(getattr(shown, name))
    ]
    return (
        Difference(DiscrepancyKind.ORDER, f"order {desired.id} differs: {', '.join(wrong)}")
        if wrong
        else None
    )


def _as_shown(desired: DesiredOrder) -> ShownOrder:
    return ShownOrder(
        customer_id=str(desired.customer_id),
        created_at=_whole_second(desired.created_at),
        normalized_status=desired.normalized_status,
        store_status=desired.store_status,
        currency=desired.currency,
        total_cents=Decimal(desired.total_cents),
        discounts_cents=Decimal(desired.discounts_cents),
        source=desired.source,
        lines=tuple(msgspec.structs.astuple(line) for line in desired.lines),
    )


def _comparable(value: object) -> object:
    """Return a value without what does not matter: the case of a currency, the order of items."""
    if isinstance(value, tuple):
        return sorted(value)
    return value.upper() if isinstance(value, str) else value


def _whole_second(at: datetime) -> str:
    in_utc = at.astimezone(UTC) if at.tzinfo else at
    return f"{in_utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


# --- events ---------------------------------------------------------------------------------------------


class ExpectedEvent(NamedTuple):
    """An event that a contact's tracking log should list."""

    position: Position
    event_line: int  # the event line's number in the catalogue
    name: str
    at: str | None  # as its data says; None: its entry is gone, or is another event now
    eventdata: str = ""  # "" where `at` is None
    delivered_at: datetime | None = None  # by the ledger; None: the state has no outcome of it


class EventDifferences(NamedTuple):
    """How a contact's tracking log differs from what it should list."""

    missing: list[ExpectedEvent]  # newer than the oldest that it lists
    not_listed: list[ExpectedEvent]  # older, or it lists none
    repeated: list[ExpectedEvent]
    out_of_order: list[ExpectedEvent]  # arrived after a later one
    unexpected: list[tuple[str, Mark]]  # names and marks of listed events that are not expected


def compare_events(
    expected: Sequence[ExpectedEvent], logged: Sequence[LoggedEvent], names: Collection[str]
) -> EventDifferences:
    """Compare a tracking log, in the order of arrival, with what it should list, in log order.

    Events that are not of these `names`, or carry no mark, are passed over. An event that the ledger says was
    delivered after a later one is not out of order: it was a dead letter before, or its entry came late.
    """
    times_listed, unexpected = _matched(expected, logged, names)
    by_position = {each.position: each for each in expected}
    arrived = [by_position[position] for position in times_listed]
    absent = [each for each in expected if each.position not in times_listed]
    return EventDifferences(
        missing=[each for each in absent if arrived and _is_newer(each, arrived[0])],
        not_listed=[each for each in absent if not (arrived and _is_newer(each, arrived[0]))],
        repeated=[by_position[position] for position, count in times_listed.items() if count > 1],
        out_of_order=list(_overtaken(arrived)),
        unexpected=unexpected,
    )


def _matched(
    expected: Sequence[ExpectedEvent], logged: Sequence[LoggedEvent], names: Collection[str]
) -> tuple[dict[Position, int], list[tuple[str, Mark]]]:
    """Return how often each expected event is listed, in the order of arrival, and what else is listed."""
    candidates: defaultdict[tuple[str, int], list[ExpectedEvent]] = defaultdict(list)
    for each in expected:
        candidates[each.name, each.position.id].append(each)
    times_listed: dict[Position, int] = {}
    unexpected = []
    for event in logged:
        if event.name not in names:
            continue
        mark = mark_of(event.eventdata)
        same = candidates[event.name, mark.log] if mark else []
        found = next((each for each in same if mark and each.at in {None, mark.at}), None)
        if found is None and is_cut(event.eventdata):
            found = next((each for each in expected if _is_shown(each, event)), None)
        if found is None and mark is not None:
            unexpected.append((event.name, mark))
        elif found is not None:
            times_listed[found.position] = times_listed.get(found.position, 0) + 1
    return times_listed, unexpected


def _is_shown(expected: ExpectedEvent, event: LoggedEvent) -> bool:
    """Return whether an event whose data was cut is an expected one."""
    if expected.name != event.name or expected.at is None:
        return False
    return shows(event.eventdata, Mark(expected.at, expected.position.id))


def _is_newer(missing: ExpectedEvent, oldest: ExpectedEvent) -> bool:
    """Return whether the log would list this event, since it lists an older one."""
    was_later = (
        missing.delivered_at is None
        or oldest.delivered_at is None
        or missing.delivered_at >= oldest.delivered_at
    )
    return was_later and missing.position > oldest.position


def _overtaken(arrived: Sequence[ExpectedEvent]) -> Iterator[ExpectedEvent]:
    """Yield the events that arrived after a later one, unless the ledger has them delivered later."""
    top: ExpectedEvent | None = None
    for each in arrived:
        if top is None or each.position > top.position:
            top = each
        elif not (each.delivered_at and top.delivered_at and each.delivered_at > top.delivered_at):
            yield each
