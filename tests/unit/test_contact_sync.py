"""Contact sync: which contacts are imported when, and what becomes of those that ActiveCampaign refuses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kiva_stream.contact_sync import ContactSync
from kiva_stream.errors import AccountRefused, CheckpointError
from kiva_stream.model import (
    Account,
    Contact,
    ContactStatus,
    Customer,
    Email,
    ImportReport,
    ImportState,
    ListStatus,
    OpenImport,
    Reason,
)
from tests.fakes import (
    SITE,
    FakeContacts,
    FakeCustomers,
    FakeLinks,
    account,
    activecampaign_settings,
    customer,
    raises_one,
    until,
)
from tests.virtual_time import run

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
YESTERDAY = NOW - timedelta(days=1)
RUNNING, LOST = ImportReport(ImportState.RUNNING), ImportReport(ImportState.LOST)
LINKED = (ContactStatus.LINKED, "")
REFUSED = (ContactStatus.REJECTED, Reason.AC_REJECTED)
NEW = (ContactStatus.NEW, "")


class Bench:
    """Contact sync with what stands around it. State, shop and ActiveCampaign outlive a `restart`."""

    def __init__(self, accounts: Iterable[Account] = (), **changes: object) -> None:
        self.customers = FakeCustomers(accounts)
        self.links = FakeLinks()
        self.contacts = FakeContacts()
        self.slept: list[float] = []
        self.done: list[int] = []
        self.changes = {"contacts_per_import": 3, "import_poll_s": 2, **changes}
        self.restart()

    def restart(self) -> None:
        """Begin a new process."""
        self.sync = ContactSync(
            SITE.id,
            self.customers,
            self.links,
            self.contacts,
            activecampaign_settings(**self.changes),
            self._sleep,
            lambda: NOW,
        )

    async def snapshot(self) -> None:
        with anyio.fail_after(10):
            await self.sync.snapshot(self.done.append)

    async def wanted(self, *customers: Customer) -> list[Contact]:
        """Return the contacts of customers, linked in the state but not yet at ActiveCampaign."""
        links = await self.links.link({each.id: each.email for each in customers if each.email})
        return list(links.values())

    def statuses(self, customers: Iterable[Customer]) -> list[tuple[ContactStatus, str]]:
        return [self.links.status_of(each) for each in customers]

    def imported(self) -> list[Email]:
        """Return all addresses that were imported, in no order."""
        return sorted(email for addresses in self.contacts.addresses() for email in addresses)

    async def _sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        await anyio.lowlevel.checkpoint()


def shop(count: int) -> tuple[list[Customer], list[Account]]:
    """Return so many customers, and their accounts."""
    customers = [customer(number) for number in range(1, count + 1)]
    return customers, [account(each) for each in customers]


def emails(customers: Iterable[Customer]) -> list[Email]:
    return [each.email for each in customers if each.email]


async def test_the_snapshot_imports_every_customer_once_and_links_them() -> None:
    customers, accounts = shop(7)
    bench = Bench(accounts)
    await bench.snapshot()
    assert bench.imported() == emails(customers)
    assert sorted(map(len, bench.contacts.addresses())) == [1, 3, 3]
    assert sorted(bench.done) == [1, 3, 3]
    assert bench.statuses(customers) == [LINKED] * 7
    assert bench.links.imports == {}


async def test_a_snapshot_of_nobody_imports_nothing() -> None:
    bench = Bench()
    await bench.snapshot()
    assert bench.contacts.imports == {}


async def test_a_snapshot_of_many_pages_leaves_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kiva_stream.contact_sync.PAGE_ROWS", 2)
    customers, accounts = shop(7)
    bench = Bench(accounts)
    await bench.snapshot()
    assert bench.imported() == emails(customers)
    assert sorted(map(len, bench.contacts.addresses())) == [1, 3, 3]


async def test_a_second_snapshot_sends_only_what_changed() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.imports.clear()
    bench.customers.rows[customers[1].id] = account(customers[1], phone="+1 555 0100")
    await bench.snapshot()
    assert bench.contacts.addresses() == [[customers[1].email]]


async def test_only_the_import_that_creates_a_contact_subscribes_it() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.customers.rows[customers[0].id] = account(customers[0], phone="+1 555 0100")
    await bench.snapshot()
    sent = [each.list_status for contacts in bench.contacts.imports.values() for each in contacts]
    assert sent == [ListStatus.SUBSCRIBE, ListStatus.LEAVE]


@pytest.mark.parametrize("change", [{"erased": True}, {"is_test": True}, {"email": None}])
async def test_the_erased_test_accounts_and_those_without_an_address_never_become_contacts(
    change: dict[str, Any],
) -> None:
    bench = Bench([account(customer(1, **change)), account(customer(2))])
    await bench.snapshot()
    assert bench.imported() == [customer(2).email]
    assert list(bench.links.by_customer) == [2]


async def test_customers_of_one_address_are_one_contact() -> None:
    ann = customer(1)
    bench = Bench([account(ann), account(customer(2, email=ann.email))])
    await bench.snapshot()
    assert bench.contacts.addresses() == [[ann.email]]


async def test_a_contact_that_was_refused_is_not_sent_by_a_later_snapshot() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.refused = {emails(customers)[0]}
    await bench.snapshot()
    bench.contacts.imports.clear()
    bench.contacts.refused = set()  # it would come now
    bench.customers.rows[customers[0].id] = account(customers[0], phone="+1 555 0100")
    await bench.snapshot()
    assert bench.contacts.imports == {}


async def test_a_running_import_is_asked_for_until_it_ended() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.reports = [RUNNING, RUNNING]
    await bench.snapshot()
    assert bench.contacts.asked == ["import 1"] * 3
    assert bench.slept == [2] * 3
    assert bench.statuses(customers) == [LINKED]


async def test_nobody_is_linked_while_the_import_runs() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    statuses: list[tuple[ContactStatus, str]] = []

    async def look(_seconds: float, /) -> None:
        statuses.extend(bench.statuses(customers))

    bench._sleep = look  # type: ignore[method-assign]
    bench.restart()
    bench.contacts.reports = [RUNNING]
    await bench.snapshot()
    assert statuses == [NEW, NEW]


async def test_a_lost_import_is_sent_again() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.reports = [RUNNING, LOST]
    await bench.snapshot()
    assert bench.contacts.addresses() == [emails(customers)] * 2
    assert bench.statuses(customers) == [LINKED] * 2
    assert bench.links.imports == {}


async def test_a_lost_import_is_told_once_and_not_before() -> None:
    bench = Bench(shop(2)[1])
    bench.contacts.reports = [RUNNING, LOST, RUNNING]
    with capture_logs() as lines:
        await bench.snapshot()
    told = [(line["log_level"], line["import_id"]) for line in lines]
    assert told == [("warning", "import 1")]


@pytest.mark.parametrize("way", [("refused",), ("failing", "refused_alone"), ("excluded", "refused_alone")])
async def test_a_linked_contact_whose_change_is_refused_stays_as_it_was(way: tuple[str, ...]) -> None:
    customers, accounts = shop(2)
    ann = customers[0]
    bench = Bench(accounts)
    await bench.snapshot()
    before = dict(bench.links.fingerprints)
    bench.customers.rows[ann.id] = account(ann, phone="+1 555 0100")
    for name in way:
        setattr(bench.contacts, name, {ann.email})
    with capture_logs() as lines:
        await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 2
    assert bench.links.fingerprints == before
    assert [(line["log_level"], line["contact"]) for line in lines] == [("warning", 1)]
    assert "example.org" not in str(lines)


@pytest.mark.parametrize("is_linked", [True, False])
async def test_an_opt_out_that_came_alone_without_the_list_is_sent_by_the_next_run(
    *, is_linked: bool
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts if is_linked else ())
    await bench.snapshot()
    bench.contacts.imports.clear()
    bench.customers.rows[ann.id] = account(ann, email_opt_in=False)
    bench.contacts.failing = set(emails([ann]))
    await bench.snapshot()
    assert bench.statuses([ann]) == [LINKED]
    bench.contacts.failing = set()
    await bench.snapshot()
    await bench.snapshot()
    sent = [each.list_status for contacts in bench.contacts.imports.values() for each in contacts]
    assert sent == [ListStatus.UNSUBSCRIBE] * 2


async def test_refused_rows_are_left_out_and_the_rest_goes_again() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.refused = {emails(customers)[1]}
    await bench.snapshot()
    assert bench.contacts.addresses() == [[customers[0].email, customers[2].email]]
    assert bench.statuses(customers) == [LINKED, REFUSED, LINKED]


async def test_an_import_of_which_every_row_is_refused_is_no_import() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.refused = set(emails(customers))
    await bench.snapshot()
    assert bench.contacts.imports == {}
    assert bench.statuses(customers) == [REFUSED] * 2


async def test_failures_are_tried_alone_without_the_list() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.failing = set(emails(customers[:2]))
    bench.contacts.refused_alone = {emails(customers)[1]}
    await bench.snapshot()
    assert bench.contacts.synced == emails(customers[:2])
    assert bench.statuses(customers) == [LINKED, REFUSED, LINKED]
    assert bench.links.imports == {}


async def test_who_came_alone_is_known_as_sent() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.failing = set(emails(customers))
    await bench.snapshot()
    bench.contacts.imports.clear()
    await bench.snapshot()
    assert bench.contacts.imports == {}
    assert bench.contacts.synced == emails(customers)


async def test_nobody_is_looked_up_when_an_import_is_whole() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.failing = {emails(customers)[0]}
    await bench.snapshot()
    assert bench.contacts.looked_up == []


async def test_of_a_short_import_who_is_not_found_is_tried_alone() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.excluded = set(emails(customers[:2]))
    bench.contacts.refused_alone = {emails(customers)[1]}
    await bench.snapshot()
    assert sorted(bench.contacts.looked_up) == emails(customers)
    assert bench.contacts.synced == emails(customers[:2])
    assert bench.statuses(customers) == [LINKED, REFUSED, LINKED]


async def test_that_an_import_was_short_is_known_after_a_restart() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.excluded = {emails(customers)[0]}
    bench.contacts.refused_alone = {emails(customers)[0]}
    async with anyio.create_task_group() as group:  # stopped while its import runs
        bench.contacts.reports = [RUNNING] * 1_000
        group.start_soon(bench.snapshot)
        await until(lambda: bench.contacts.asked)
        group.cancel_scope.cancel()
    bench.contacts.reports = []
    bench.restart()
    await bench.snapshot()
    assert bench.statuses(customers) == [REFUSED, LINKED]
    assert len(bench.contacts.imports) == 1


@pytest.mark.parametrize("way", ["refused", "failing", "excluded"])
@pytest.mark.parametrize(("bad", "is_refusal"), [(3, False), (4, True)])
async def test_more_than_the_share_failing_is_about_the_account_and_rejects_nobody(
    way: str, bad: int, is_refusal: bool
) -> None:
    customers, accounts = shop(10)
    bench = Bench(accounts, contacts_per_import=10, import_failure_share=0.3, import_failure_min=2)
    setattr(bench.contacts, way, set(emails(customers[:bad])))
    bench.contacts.refused_alone = set(emails(customers))
    if is_refusal:
        with raises_one(AccountRefused):
            await bench.snapshot()
        assert REFUSED not in bench.statuses(customers)
        assert bench.contacts.synced == []
    else:
        await bench.snapshot()
        assert bench.statuses(customers) == [REFUSED] * bad + [LINKED] * (10 - bad)


@pytest.mark.parametrize("way", ["refused", "failing", "excluded"])
@pytest.mark.parametrize(("least", "is_refusal"), [(3, True), (4, False)])
async def test_fewer_than_the_least_failing_are_about_themselves_whatever_their_share(
    way: str, least: int, is_refusal: bool
) -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts, import_failure_share=0.2, import_failure_min=least)
    setattr(bench.contacts, way, set(emails(customers)))
    bench.contacts.refused_alone = set(emails(customers))
    if is_refusal:
        with raises_one(AccountRefused):
            await bench.snapshot()
    else:
        await bench.snapshot()
    assert bench.statuses(customers) == [NEW if is_refusal else REFUSED] * 3


async def test_when_the_account_is_put_right_those_who_failed_are_imported_again() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts, contacts_per_import=4, import_failure_min=2)
    bench.contacts.failing = set(emails(customers[:2]))
    with raises_one(AccountRefused):
        await bench.snapshot()
    reports = {each: await bench.contacts.import_report(each) for each in bench.contacts.imports}
    bench.contacts.failing = set()
    past = bench.contacts.import_report

    async def report(import_id: str) -> ImportReport:  # what an import once said of its end stays
        return reports.get(import_id) or await past(import_id)

    bench.contacts.import_report = report  # type: ignore[method-assign]
    bench.restart()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 4
    assert bench.contacts.addresses()[1:] == [emails(customers[:2])]


async def test_an_open_import_of_an_earlier_run_is_finished_first_and_not_sent_again() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts[:3])
    async with anyio.create_task_group() as group:  # stopped while its import runs
        bench.contacts.reports = [RUNNING] * 1_000
        group.start_soon(bench.snapshot)
        await until(lambda: bench.contacts.asked)
        group.cancel_scope.cancel()
    bench.contacts.reports, bench.contacts.asked = [RUNNING], []
    bench.contacts.gate = anyio.Event()
    bench.customers.rows[customers[3].id] = accounts[3]
    bench.restart()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.snapshot)
        await anyio.wait_all_tasks_blocked()
        assert bench.contacts.asked == ["import 1"] * 2
        assert bench.statuses(customers) == [LINKED] * 3 + [NEW]
        bench.contacts.gate.set()
    assert bench.contacts.addresses() == [emails(customers[:3]), [customers[3].email]]
    assert bench.statuses(customers) == [LINKED] * 4
    assert bench.done == [3, 1]


async def test_an_open_import_that_is_lost_is_sent_again_as_it_should_look_now() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    (ann,) = await bench.wanted(*customers)
    await bench.links.keep_import(OpenImport("import 0", {ann.id: b"as it was"}, is_short=False))
    bench.contacts.reports = [LOST]
    await bench.snapshot()
    assert bench.contacts.addresses() == [emails(customers)]
    assert bench.done == [1]
    assert bench.statuses(customers) == [LINKED]


async def test_a_refused_account_ends_the_snapshot_and_rejects_nobody() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.refuses_account = True
    with raises_one(AccountRefused):
        await bench.snapshot()
    assert bench.statuses(customers) == [NEW] * 4


async def test_a_failing_state_ends_the_snapshot() -> None:
    bench = Bench(shop(1)[1])
    bench.links.fails = True
    with raises_one(CheckpointError):
        await bench.snapshot()


async def test_contacts_that_are_ensured_at_the_same_time_share_an_import() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.gate = anyio.Event()
    contacts = await bench.wanted(*customers)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.sync.ensure, contacts[0], YESTERDAY)
        await anyio.wait_all_tasks_blocked()
        for each in contacts[1:]:
            group.start_soon(bench.sync.ensure, each, YESTERDAY)
        await anyio.wait_all_tasks_blocked()
        bench.contacts.gate.set()
    assert bench.contacts.addresses() == [[customers[0].email], emails(customers[1:])]
    assert bench.statuses(customers) == [LINKED] * 4


async def test_more_than_an_import_takes_are_several_imports() -> None:
    customers, accounts = shop(5)
    bench = Bench(accounts)
    contacts = await bench.wanted(*customers)
    async with anyio.create_task_group() as group:
        for each in contacts:
            group.start_soon(bench.sync.ensure, each, YESTERDAY)
    assert sorted(map(len, bench.contacts.addresses())) in ([1, 1, 3], [1, 2, 2], [2, 3])
    assert bench.imported() == emails(customers)


async def test_ensure_returns_only_when_the_import_completed() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    (ann,) = await bench.wanted(*customers)
    bench.contacts.gate = anyio.Event()
    bench.contacts.reports = [RUNNING] * 3
    seen: list[ContactStatus] = []

    async def ensure() -> None:
        await bench.sync.ensure(ann, YESTERDAY)
        seen.append(ann.status)

    async with anyio.create_task_group() as group:
        group.start_soon(ensure)
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        bench.contacts.gate.set()
        await until(lambda: bench.contacts.asked)
        assert seen == []
    assert seen == [ContactStatus.LINKED]
    assert len(bench.contacts.asked) == 4


async def test_a_linked_contact_is_ensured_without_a_request() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.imports.clear()
    (ann,) = await bench.wanted(*customers)
    await bench.sync.ensure(ann, YESTERDAY)
    assert bench.contacts.imports == {}


async def test_the_snapshot_starts_no_automations() -> None:
    bench = Bench(shop(4)[1])
    await bench.snapshot()
    assert set(bench.contacts.automations.values()) == {False}


@pytest.mark.parametrize(("age_s", "starts_automations"), [(3600, True), (3601, False), (-60, True)], ids=str)
async def test_a_contact_that_only_old_entries_wait_for_starts_no_automations(
    age_s: float, *, starts_automations: bool
) -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts, realtime_max_age_s=3600)
    (ann,) = await bench.wanted(*customers)
    await bench.sync.ensure(ann, NOW - timedelta(seconds=age_s))
    assert bench.contacts.automations == {"import 1": starts_automations}


async def test_one_young_entry_among_those_that_wait_for_an_import_starts_automations() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.gate = anyio.Event()
    contacts = await bench.wanted(*customers)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.sync.ensure, contacts[0], datetime.min.replace(tzinfo=UTC))
        await anyio.wait_all_tasks_blocked()
        old, young = datetime.min.replace(tzinfo=UTC), NOW
        for each, newest in zip(contacts[1:], (YESTERDAY, young, old), strict=True):
            group.start_soon(bench.sync.ensure, each, newest)
        await anyio.wait_all_tasks_blocked()
        bench.contacts.gate.set()
    assert bench.contacts.automations == {"import 1": False, "import 2": True}


@pytest.mark.parametrize("change", [{"erased": True}, {"is_test": True}, {"email": Email("new@example.org")}])
async def test_a_contact_of_whose_address_nobody_is_left_is_rejected(change: dict[str, Any]) -> None:
    ann = customer(1)
    bench = Bench()
    (wanted,) = await bench.wanted(ann)
    bench.customers.rows[ann.id] = account(customer(1, **change))
    await bench.sync.ensure(wanted, YESTERDAY)
    assert bench.statuses([ann]) == [(ContactStatus.REJECTED, Reason.NO_CONTACT)]
    assert bench.contacts.imports == {}


async def test_a_contact_whose_customers_are_gone_is_rejected() -> None:
    ann = customer(1)
    bench = Bench()
    (wanted,) = await bench.wanted(ann)
    await bench.sync.ensure(wanted, YESTERDAY)
    assert bench.statuses([ann]) == [(ContactStatus.REJECTED, Reason.NO_CONTACT)]


async def test_nobody_who_is_ensured_returns_new_when_the_account_is_refused() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    contacts = await bench.wanted(*customers)
    bench.contacts.refuses_account = True
    refused: list[str] = []

    async def ensure(wanted: Contact) -> None:
        with pytest.raises(AccountRefused):
            await bench.sync.ensure(wanted, YESTERDAY)
        refused.append(wanted.email)

    async with anyio.create_task_group() as group:
        for each in contacts:
            group.start_soon(ensure, each)
    assert sorted(refused) == emails(customers)
    assert bench.statuses(customers) == [NEW] * 3


async def test_a_contact_is_ensured_again_after_a_failure() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    (ann,) = await bench.wanted(*customers)
    bench.contacts.refuses_account = True
    with pytest.raises(AccountRefused):
        await bench.sync.ensure(ann, YESTERDAY)
    bench.contacts.refuses_account = False
    await bench.sync.ensure(ann, YESTERDAY)
    assert bench.statuses(customers) == [LINKED]


@settings(max_examples=60)
@given(st.data())
def test_every_contact_ends_linked_or_refused_whatever_imports_do(data: st.DataObject) -> None:
    customers, accounts = shop(data.draw(st.integers(1, 9)))
    some = st.sets(st.sampled_from(emails(customers)))
    bench = Bench(accounts, contacts_per_import=data.draw(st.integers(1, 4)))
    bench.contacts.reports = data.draw(st.lists(st.sampled_from([RUNNING, LOST]), max_size=6))
    refused, failing, excluded, alone = (data.draw(some) for _ in range(4))
    bench.contacts.refused, bench.contacts.refused_alone = refused, alone
    bench.contacts.failing, bench.contacts.excluded = failing, excluded
    run(bench.snapshot())
    dead = refused | ((failing | excluded) & alone)
    expected = [REFUSED if each.email in dead else LINKED for each in customers]
    assert bench.statuses(customers) == expected
    assert bench.links.imports == {}
    assert not refused & set(bench.imported())
