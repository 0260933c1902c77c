"""Other ids of the account, on a real PostgreSQL: what the state keeps, and what counts as not sent."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from kiva_stream.model.account_ids import AccountIds, IdKind
from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import NEVER, OrderSource, SentOrder
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.account_ids import SiteAccountIds
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store
from kiva_stream.state.tags import DueTags
from kiva_stream.sync.desired_contact import cleared, desired_contact, fingerprint, is_same
from tests.support.ann import account
from tests.support.state_schema import ANN, BEA, begin, held_ledger

IDS = AccountIds(list_id=1, fields={"status": 2}, tags={WeekTag.OPEN: 3}, connection_id=4)
MOMENT = datetime(2026, 3, 4, tzinfo=UTC)
CARL = Email("carl@example.com")


@pytest.fixture
async def store(store: Store) -> Store:
    """A state schema of this version, with site 1, whose ids are recorded."""
    async with held_ledger(store) as ledger:
        await begin(ledger)
    assert await SiteAccountIds(store, 1).adopt(IDS) == set()
    return store


async def adopt(store: Store, **changes: object) -> frozenset[IdKind]:
    return await SiteAccountIds(store, 1).adopt(IDS._replace(**changes))  # type: ignore[arg-type]


async def test_ids_are_kept_and_only_other_ones_are_changes(store: Store) -> None:
    assert await adopt(store) == set()
    assert await adopt(store, connection_id=5) == {IdKind.CONNECTION}
    assert await adopt(store, connection_id=5) == set()
    assert await adopt(store) == {IdKind.CONNECTION}
    assert await adopt(store, list_id=5, tags={WeekTag.OPEN: 5}) == {IdKind.LIST, IdKind.TAGS}
    assert await adopt(store, list_id=5, fields={"status": 2, "birthday": 9}) == {IdKind.FIELDS, IdKind.TAGS}


def sent(number: int, source: OrderSource, accepted_at: datetime = MOMENT, refused: str = "") -> SentOrder:
    return SentOrder(OrderId(number), source, b"print", accepted_at, refused)


async def orders_tallied(store: Store) -> dict[str, int]:
    status = await read_status(store, 1)
    assert status is not None
    return {name: count for name, count in status.orders.items() if count}


async def test_under_another_connection_orders_are_history_but_those_never_carried(store: Store) -> None:
    states = OrderStates(store, 1)
    live, old = OrderSource.REAL_TIME, OrderSource.HISTORICAL
    await states.record([sent(1, live), sent(2, old), sent(3, live, refused="no such product")])
    await states.record(
        [sent(4, live, NEVER, "negative"), sent(5, live, NEVER, "no"), sent(6, old, NEVER, "no")]
    )
    assert await states.record_carried([OrderId(5), OrderId(7), OrderId(8)]) == [5, 7, 8]
    assert await states.record_carried([OrderId(7), OrderId(9)]) == [9]
    await states.withdraw_carried([OrderId(8)])
    await states.record([sent(9, live)])
    await OrderStates(store, 2).record_carried([OrderId(1)])

    assert await adopt(store, connection_id=5) == {IdKind.CONNECTION}
    ids = [OrderId(number) for number in range(1, 10)]
    again = {key: SentOrder(OrderId(key), old, b"", NEVER) for key in (1, 2, 3, 5, 6, 7, 9)}
    assert await states.sent(ids) == again
    assert await orders_tallied(store) == {}

    await states.record([sent(1, old), sent(2, old, NEVER, "no")])
    assert await orders_tallied(store) == {"sent": 1, "refused": 1}
    assert await adopt(store) == {IdKind.CONNECTION}  # once more: what was carried once stays history
    assert await states.sent(ids) == again
    assert await states.record_carried([OrderId(7)]) == [7]


async def linked(store: Store, customer: int, email: Email, *, unsubscribed: bool = False) -> ContactId:
    links = ContactLinks(store, 1)
    contact = (await links.link({CustomerId(customer): email}))[CustomerId(customer)]
    print_ = fingerprint(desired_contact(email, [account()], is_new=False, today=MOMENT.date()))
    await links.record_confirmed(contact.id, print_, AcId(customer), unsubscribed=unsubscribed)
    return contact.id


async def not_on_list(store: Store) -> dict[str, int]:
    status = await read_status(store, 1)
    assert status is not None
    return status.not_on_list


async def test_with_another_field_id_every_contact_differs_and_clears_what_it_did(store: Store) -> None:
    ann = await linked(store, 5, ANN)
    links = ContactLinks(store, 1)
    desired = desired_contact(ANN, [account()], is_new=False, today=MOMENT.date())
    (before,) = await links.records([ann])
    assert is_same(desired, before.fingerprint)

    assert await adopt(store, fields={"status": 7}) == {IdKind.FIELDS}
    (after,) = await links.records([ann])
    assert not is_same(desired, after.fingerprint)
    nameless = msgspec.structs.replace(desired, first_name="")
    assert cleared(nameless, after.fingerprint) == cleared(nameless, before.fingerprint) == {"first_name"}
    assert after.contact.is_linked
    assert await not_on_list(store) == {}


async def test_on_another_list_opt_outs_are_due_and_the_others_are_not_known_to_be_on_it(
    store: Store,
) -> None:
    ann, bea = await linked(store, 5, ANN), await linked(store, 6, BEA, unsubscribed=True)
    links = ContactLinks(store, 1)
    carl = (await links.link({CustomerId(7): CARL}))[CustomerId(7)].id
    await links.record_import(OpenImport("i-1", {carl: b"print"}, is_short=False, unsubscribed=frozenset()))
    desired = desired_contact(ANN, [account()], is_new=False, today=MOMENT.date())

    assert await adopt(store, list_id=7) == {IdKind.LIST}
    known = {each.contact.id: each for each in await links.records([ann, bea, carl])}
    assert is_same(desired, known[ann].fingerprint)
    assert not is_same(desired, known[bea].fingerprint)
    assert not known[bea].unsubscribed
    assert await links.open_imports() == []  # Carl is imported anew, to the list that there is now
    assert await not_on_list(store) == {"other list": 1}

    await links.record_list_status(ann, unsubscribed=True)
    await links.record_list_status(bea, unsubscribed=True)
    assert await not_on_list(store) == {}
    assert await adopt(store) == {IdKind.LIST}
    assert await not_on_list(store) == {}


async def test_with_another_tag_id_no_tag_is_known(store: Store) -> None:
    ann, due = await linked(store, 5, ANN), DueTags(store, 1)
    await due.record_tag(ann, ac_id=AcId(5), tag=WeekTag.OPEN, link=8)
    assert await adopt(store, tags={WeekTag.OPEN: 9}) == {IdKind.TAGS}
    (record,) = await ContactLinks(store, 1).records([ann])
    assert (record.tag, record.tag_link) == (None, None)
