"""An import whose answer was lost does not overtake newer values of its contacts."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from kiva_stream.errors import DeliveryError, Rejected, TryLater
from kiva_stream.model.contacts import DesiredContact, ListStatus
from kiva_stream.model.ids import ContactId, Email
from kiva_stream.model.positions import DAY1
from kiva_stream.sync.carried_contacts import LISTED_S, LONGEST_S, LOOKS, CarriedContacts
from kiva_stream.sync.contact_changes import ContactChange
from tests.fakes.destination_contacts import FakeContacts
from tests.fakes.state_contacts import FakeLinks
from tests.support.orders import linked
from tests.support.virtual_time import run
from tests.unit.sync.builders import LINKED, NEW, Bench, address, shop

ANN = ContactId(1)


class Listing(FakeContacts):
    """Contacts of an account whose list of imports has these numbers of outstanding ones, in turn."""

    def __init__(self, outstanding: list[int]) -> None:
        super().__init__()
        self._each = iter(outstanding)

    async def outstanding_imports(self, *, tries: float = math.inf) -> int:  # noqa: ARG002  it answers
        outstanding = next(self._each)
        await anyio.lowlevel.checkpoint()
        return outstanding


class Account:
    """Carried contacts, and what is around them; the state outlives a `begin`. Waits take no time."""

    def __init__(self) -> None:
        self.links = FakeLinks()
        self.contacts: FakeContacts = FakeContacts()
        self.waits: list[float] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None  # during a wait
        self.now = 0.0
        self.begin()

    def begin(self) -> None:
        self.carried = CarriedContacts(self.links, self.contacts, sleep=self._sleep, clock=lambda: self.now)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        if self.meanwhile:
            await self.meanwhile()

    async def send(self, change: ContactChange, error: DeliveryError | None = None) -> None:
        """Send an import of a change; `error` is the answer to its attempt."""
        prints = {change.id: change.fingerprint}
        try:
            async with self.carried.around(prints)():
                assert change.id in self.links.carried_contacts, "it is recorded before it is sent"
                if error:
                    raise error
        except DeliveryError:
            return
        await self.carried.answered(prints)


def of_ann(name: str) -> ContactChange:
    desired = DesiredContact(
        Email("ann@example.com"),
        first_name=name,
        last_name=None,
        phone=None,
        customer_id="1",
        list_status=ListStatus.KEEP,
    )
    return ContactChange(linked(1), desired)


OLD, NEWER = of_ann("Ann"), of_ann("Anna")
LOST = TryLater("the connection was reset")


async def test_newer_values_wait_while_an_import_without_an_answer_is_outstanding() -> None:
    account = Account()
    await account.send(OLD, LOST)
    account.contacts.outstanding = 1
    assert [*await account.carried.waiting([NEWER])] == [ANN]
    assert account.waits == [LISTED_S] * LOOKS

    account.contacts.outstanding = 0
    assert await account.carried.waiting([NEWER]) == {}
    assert account.links.carried_contacts == {}
    asked = len(account.waits)
    assert await account.carried.waiting([NEWER]) == {}
    assert len(account.waits) == asked


async def test_a_restart_knows_what_was_sent_and_waits_15_minutes_at_the_latest() -> None:
    account = Account()
    await account.send(OLD, LOST)
    account.begin()
    account.contacts.outstanding = 1
    assert [*await account.carried.waiting([NEWER])] == [ANN]
    account.links.carried_age_s = LONGEST_S
    account.begin()
    assert await account.carried.waiting([NEWER]) == {}


async def test_the_same_values_are_sent_again_at_once() -> None:
    account = Account()
    await account.send(OLD, LOST)
    account.contacts.outstanding = 1
    assert await account.carried.waiting([OLD]) == {}
    await account.send(OLD)
    assert account.waits == []
    assert ANN in account.links.carried_contacts, "the first one may still be written"


@pytest.mark.parametrize("answer", [None, Rejected("refused"), TryLater("not sent", was_sent=False)])
async def test_an_import_that_was_answered_or_not_sent_is_not_waited_for(
    answer: DeliveryError | None,
) -> None:
    account = Account()
    await account.send(OLD, answer)
    account.contacts.outstanding = 1
    assert await account.carried.waiting([NEWER]) == {}
    assert account.links.carried_contacts == {}


async def test_what_may_not_be_read_counts_as_outstanding_until_15_minutes_are_over() -> None:
    account = Account()
    await account.send(OLD, LOST)
    account.contacts.outstanding = None
    assert [*await account.carried.waiting([NEWER])] == [ANN]
    account.now = LONGEST_S
    waited = len(account.waits)
    assert await account.carried.waiting([NEWER]) == {}
    assert len(account.waits) == waited


async def test_a_look_forgets_no_import_that_was_sent_after_it_began() -> None:
    account = Account()
    await account.send(OLD, LOST)

    async def send_again() -> None:
        if len(account.waits) == 1:
            await account.send(OLD, LOST)

    account.meanwhile = send_again
    assert await account.carried.waiting([NEWER]) == {}
    assert len(account.waits) == 2


async def test_a_look_forgets_no_contact_that_an_import_carries_now() -> None:
    account = Account()
    await account.send(OLD, LOST)
    async with account.carried.around({ANN: OLD.fingerprint})():
        assert [*await account.carried.waiting([NEWER])] == [ANN]
        assert ANN in account.links.carried_contacts


async def test_two_looks_at_once_forget_a_contact_once() -> None:
    account = Account()
    account.contacts = Listing([0, 1])
    account.meanwhile = anyio.lowlevel.checkpoint
    account.begin()
    await account.send(OLD, LOST)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(account.carried.waiting, [NEWER])
    assert account.links.carried_contacts == {}


def test_an_opt_out_waits_for_no_import() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, import_min_contacts=2, retry_held_s=60)
    ann = customers[0]

    async def play() -> None:
        await bench.sync.snapshot(DAY1, lambda _count: None)
        bench.contacts.silent = {address(ann)}
        for each in customers[:3]:
            bench.customers.change(each, phone="+1 555 0100")
        await bench.sync.snapshot(DAY1, lambda _count: None)
        bench.contacts.silent = set()
        bench.contacts.outstanding = 1
        bench.customers.change(ann, email_opt_in=False)
        await bench.sync.snapshot(DAY1, lambda _count: None)

    run(play())
    assert bench.contacts.list_calls == [(address(ann), False)]
    assert [each.contact for each in bench.held.rows.values()] == [bench.links.by_email[address(ann)].id]


def test_a_contact_whose_import_got_no_answer_is_held_with_newer_values_until_none_is_outstanding() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=9, import_min_contacts=4, retry_held_s=60)
    ann = customers[0]
    bench.contacts.silent = {address(ann)}

    async def play() -> None:
        await bench.sync.snapshot(DAY1, lambda _count: None)
        assert bench.statuses(customers) == [NEW] + [LINKED] * 7
        bench.contacts.silent = set()
        bench.contacts.outstanding = 1
        bench.customers.change(ann, phone="+1 555 0100")
        bench.held_records.make_due()
        await bench.sync.snapshot(DAY1, lambda _count: None)
        assert bench.statuses(customers)[0] == NEW
        (held,) = bench.held.rows.values()
        assert "earlier values" in held.reply

        bench.contacts.outstanding = 0
        bench.held_records.make_due()
        await bench.sync.snapshot(DAY1, lambda _count: None)
        assert bench.statuses(customers)[0] == LINKED

    run(play())
    assert bench.links.carried_contacts == {}
