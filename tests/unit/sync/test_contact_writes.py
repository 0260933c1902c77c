"""Contact writes: what goes by an import and what alone, and what becomes of those ActiveCampaign refuses."""

from __future__ import annotations

from datetime import date
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kiva_stream.errors import Rejected
from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.contacts import ContactStatus, DesiredContact, ListStatus, NotOnList
from kiva_stream.model.ids import AcId
from kiva_stream.model.week_tags import WeekTag
from tests.fakes.destination_contacts import PHONE
from tests.support.entries import account, customer
from tests.support.virtual_time import run
from tests.support.waiting import until
from tests.unit.sync.builders import (
    LINKED,
    LOST,
    NEW,
    REFUSED,
    RUNNING,
    Bench,
    address,
    emails,
    need_of,
    shop,
)


async def stopped_while_it_imports(bench: Bench) -> None:
    """Have a snapshot stopped while ActiveCampaign works on its import, and begin a new process."""
    async with anyio.create_task_group() as group:
        bench.contacts.reports = [RUNNING] * 1_000
        group.start_soon(bench.snapshot)
        await until(lambda: bench.contacts.asked)
        group.cancel_scope.cancel()
    bench.contacts.reports, bench.contacts.asked = [], []
    bench.restart()


# By an import, or alone


async def test_a_few_changed_contacts_are_sent_one_by_one() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts, contacts_per_import=9, import_min_contacts=4)
    await bench.snapshot()
    for each in customers[:3]:
        bench.customers.change(each, phone=PHONE)
    await bench.snapshot()
    assert sorted(bench.contacts.synced) == emails(customers[:3])
    assert [bench.shown(each).phone for each in customers] == [PHONE, PHONE, PHONE, ""]
    assert len(bench.contacts.imports) == 1


async def test_many_changed_contacts_are_sent_by_an_import() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts, contacts_per_import=9, import_min_contacts=4)
    await bench.snapshot()
    for each in customers:
        bench.customers.change(each, phone=PHONE)
    await bench.snapshot()
    assert bench.contacts.synced == []
    assert bench.contacts.addresses() == [emails(customers)] * 2
    assert [bench.shown(each).phone for each in customers] == [PHONE] * 4


@pytest.mark.parametrize("import_min_contacts", [1, 10])
async def test_a_phone_that_is_cleared_at_the_shop_is_cleared_once_and_alone(
    import_min_contacts: int,
) -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    for each in customers:
        bench.customers.change(each, phone=PHONE)
    await bench.snapshot()
    bench.customers.change(customers[0], phone="")
    for each in customers[1:]:
        bench.customers.change(each, status="paused")
    await bench.snapshot()
    bench.restart()
    bench.customers.change(customers[0], status="paused")
    await bench.snapshot()

    assert bench.contacts.cleared == [(customers[0].email, {"phone"})]
    assert [bench.shown(each).phone for each in customers] == ["", PHONE, PHONE]
    assert (customers[1].email in bench.contacts.synced) == (import_min_contacts == 10)


async def test_where_clearing_a_phone_is_refused_the_rest_of_the_change_goes_through_once() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=9)
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    bench.contacts.refuses_clearing = True
    bench.customers.change(ann, phone="", status="paused")
    await bench.snapshot()
    await bench.snapshot()

    assert bench.contacts.cleared == [(ann.email, {"phone"})]
    assert bench.shown(ann).status == "paused"
    assert bench.contacts.synced == [ann.email] * 2
    assert bench.statuses([ann]) == [LINKED]


async def test_new_contacts_are_imported_however_few_they_are() -> None:
    (ann, bob), accounts = shop(2)
    bench = Bench(accounts[:1], import_min_contacts=3)
    await bench.snapshot()
    bench.customers.change(ann, phone=PHONE)
    bench.customers.rows[bob.id] = accounts[1]
    await bench.snapshot()
    assert bench.contacts.addresses() == [[ann.email], [bob.email]]
    assert bench.contacts.synced == [ann.email]


async def test_a_contact_is_recorded_as_sent_whether_by_itself_or_by_an_import() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts, import_min_contacts=2)
    await bench.snapshot()
    for some in (customers[:1], customers[1:]):
        for each in some:
            bench.customers.change(each, phone=PHONE)
        await bench.snapshot()
    sent = len(bench.contacts.imports), len(bench.contacts.synced)
    await bench.snapshot()
    assert (len(bench.contacts.imports), len(bench.contacts.synced)) == sent == (2, 1)


@pytest.mark.parametrize("import_min_contacts", [1, 2])
async def test_a_customer_who_opts_out_is_unsubscribed_once_alone_or_by_an_import(
    import_min_contacts: int,
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    await bench.snapshot()
    is_subscribed = bench.at_ac(ann).is_on_list
    bench.customers.change(ann, email_opt_in=False)
    await bench.snapshot()
    assert (is_subscribed, bench.at_ac(ann).is_on_list) == (True, False)
    assert bench.linked(ann).unsubscribed
    assert bench.contacts.list_calls == [(ann.email, False)]


@pytest.mark.parametrize("import_min_contacts", [1, 2])
async def test_every_change_of_a_customer_who_opted_out_unsubscribes_them_again(
    import_min_contacts: int,
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    await bench.snapshot()
    bench.customers.change(ann, email_opt_in=False)
    await bench.snapshot()
    bench.at_ac(ann).put_on_list(subscribed=True)
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).unsubscribed


async def test_a_newcomer_who_opted_out_is_never_subscribed() -> None:
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False)])
    await bench.snapshot()
    assert bench.list_statuses() == [ListStatus.UNSUBSCRIBE]
    assert bench.linked(ann).unsubscribed


@pytest.mark.parametrize("import_min_contacts", [1, 2])
async def test_a_customer_who_opts_in_again_is_not_subscribed_by_a_mere_change(
    import_min_contacts: int,
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    await bench.snapshot()
    for opt_in in (False, True):
        bench.customers.change(ann, email_opt_in=opt_in, phone=f"{opt_in}")
        await bench.snapshot()
    assert bench.at_ac(ann).is_on_list is False
    assert not bench.linked(ann).unsubscribed  # it is not we who keep them off


@pytest.mark.parametrize("import_min_contacts", [1, 10])
async def test_a_contacts_notes_are_counted_whenever_it_is_sent(import_min_contacts: int) -> None:
    bench = Bench(
        [account(customer(1), next_delivery=date(2026, 11, 20)), account(customer(2))],
        import_min_contacts=import_min_contacts,
    )
    await bench.snapshot()
    await bench.snapshot()
    assert bench.links.notes == {"stale_next_delivery": 1}


# An import takes its time


async def test_a_running_import_is_asked_for_until_it_ended() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.reports = [RUNNING, RUNNING]
    await bench.snapshot()
    assert bench.contacts.asked == ["import 1"] * 3
    assert bench.slept == [2] * 3
    assert bench.statuses(customers) == [LINKED]


async def test_no_contact_is_linked_while_its_import_runs() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    statuses: list[tuple[ContactStatus, str]] = []

    async def look(_seconds: float, /) -> None:
        statuses.extend(bench.statuses(customers))
        await anyio.lowlevel.checkpoint()

    bench.sleep = look  # type: ignore[method-assign]
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


async def test_a_lost_import_that_was_worked_all_the_same_does_no_harm() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.reports, bench.contacts.works_lost = [LOST], True
    await bench.snapshot()
    assert bench.contacts.addresses() == [[ann.email]] * 2
    assert list(bench.at_ac(ann).tags) == [WeekTag.NONE]


async def test_a_lost_import_is_logged_once_and_not_before() -> None:
    bench = Bench(shop(2)[1])
    bench.contacts.reports = [RUNNING, LOST, RUNNING]
    with capture_logs() as lines:
        await bench.snapshot()
    told = [(line["log_level"], line["import_id"]) for line in lines]
    assert told == [("warning", "import 1")]


async def test_an_open_import_of_an_earlier_run_is_finished_first_and_not_sent_again() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts[:3])
    await stopped_while_it_imports(bench)
    bench.contacts.reports = [RUNNING]
    bench.contacts.gate = anyio.Event()
    bench.customers.rows[customers[3].id] = accounts[3]
    async with anyio.create_task_group() as group:
        group.start_soon(bench.snapshot)
        await anyio.wait_all_tasks_blocked()
        assert bench.contacts.asked == ["import 1"] * 2
        assert bench.statuses(customers) == [LINKED] * 3 + [NEW]
        bench.contacts.gate.set()
    assert bench.contacts.addresses() == [emails(customers[:3]), [customers[3].email]]
    assert bench.statuses(customers) == [LINKED] * 4
    assert bench.done == [3, 1]


async def test_contacts_unsubscribed_by_an_open_import_of_an_earlier_run_are_recorded_as_such() -> None:
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False)])
    await stopped_while_it_imports(bench)
    await bench.snapshot()
    assert bench.linked(ann).unsubscribed
    assert len(bench.contacts.imports) == 1


async def test_an_open_import_that_is_lost_is_sent_again_as_it_should_look_now() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    (ann,) = await bench.link(*customers)
    await bench.links.record_import(OpenImport("import 0", {ann.id: b"as it was"}, is_short=False))
    bench.contacts.reports = [LOST]
    await bench.snapshot()
    assert bench.contacts.addresses() == [emails(customers)]
    assert bench.done == [1]
    assert bench.statuses(customers) == [LINKED]


# Who is refused


@pytest.mark.parametrize(
    ("import_min_contacts", "way"),
    [
        (1, ("refused", "refused_alone")),
        (1, ("failing", "refused_alone")),
        (1, ("excluded", "refused_alone")),
        (2, ("refused_alone",)),
    ],
)
async def test_a_linked_contact_whose_change_is_refused_stays_as_it_was(
    import_min_contacts: int, way: tuple[str, ...]
) -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    await bench.snapshot()
    before = dict(bench.links.fingerprints)
    bench.customers.change(customers[0], phone=PHONE)
    for name in way:
        setattr(bench.contacts, name, {address(customers[0])})
    with capture_logs() as lines:
        await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 2
    assert bench.links.fingerprints == before
    assert [(line["log_level"], line["contact"]) for line in lines] == [("warning", 1)]
    assert "example.org" not in str(lines)


async def test_a_refused_change_is_not_sent_again_until_it_is_another() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.refused_alone = {address(ann)}
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    await bench.snapshot()
    assert len(bench.contacts.synced) == 1
    bench.contacts.refused_alone = set()
    await bench.snapshot()
    assert bench.shown(ann).phone == ""
    bench.customers.change(ann, phone=f"{PHONE}1")
    await bench.snapshot()
    assert bench.shown(ann).phone == f"{PHONE}1"


async def test_a_refused_change_is_sent_again_by_the_next_process_only_when_that_is_asked_for() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.refused_alone = {address(ann)}
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    bench.contacts.refused_alone = set()
    bench.restart()
    await bench.snapshot()
    assert bench.shown(ann).phone == ""
    await bench.sync.retry_refused([bench.contact(ann)], is_asked=True)
    await bench.snapshot()
    assert bench.shown(ann).phone == PHONE


async def test_rows_that_refuse_an_import_are_imported_alone_and_the_rest_goes_again() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.refused_values, bench.contacts.names_next_row = {PHONE: "Phone is invalid."}, True
    bench.customers.change(customers[1], phone=PHONE)
    await bench.snapshot()
    assert bench.contacts.addresses() == [[each.email] for each in customers]
    assert bench.statuses(customers) == [LINKED] * 3
    assert [bench.at_ac(each).is_on_list for each in customers] == [True] * 3
    assert bench.contacts.synced == []


async def test_a_row_that_is_refused_without_a_value_is_at_last_sent_by_itself() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refused = {address(ann)}
    await bench.snapshot()
    assert bench.contacts.synced == [ann.email]
    assert bench.statuses([ann]) == [LINKED]
    assert (bench.linked(ann).tag, bench.at_ac(ann).tags) == (None, {})


@pytest.mark.parametrize("is_linked", [False, True])
async def test_an_optional_value_that_is_refused_is_left_out_and_the_rest_goes_through(
    *, is_linked: bool
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    if is_linked:
        await bench.snapshot()
    bench.contacts.refused_values = {PHONE: f"422 the phone {PHONE} is invalid", "Annabel": "First name: no"}
    bench.customers.change(ann, phone=PHONE, first_name="Annabel", status="paused")
    with capture_logs() as lines:
        await bench.snapshot()
    assert (bench.shown(ann).status, bench.shown(ann).phone, bench.shown(ann).first_name) == (
        "paused",
        None,
        None,
    )
    assert bench.statuses([ann]) == [LINKED]
    assert bench.at_ac(ann).is_on_list
    left_out = bench.linked(ann).left_out
    assert {name: each.reply for name, each in left_out.items()} == {
        "phone": "422 the phone [phone] is invalid",
        "first_name": "First name: no",
    }
    assert bench.links.notes == {"value_left_out": 2}
    assert PHONE not in str(lines)


async def test_a_value_that_was_left_out_is_sent_again_when_it_changes_or_when_that_is_asked_for() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refused_values = {PHONE: "the phone is invalid"}
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    sent = len(bench.contacts.imports)
    bench.contacts.refused_values = {}
    bench.restart()
    await bench.snapshot()
    assert (len(bench.contacts.imports), bench.contacts.synced) == (sent, [])
    bench.customers.change(ann, status="paused")
    await bench.snapshot()
    assert (bench.shown(ann).status, bench.shown(ann).phone) == ("paused", None)
    await bench.sync.retry_refused([bench.contact(ann)], is_asked=True)
    await bench.snapshot()
    assert bench.shown(ann).phone == PHONE
    bench.contacts.refused_values = {f"{PHONE}1": "the phone is invalid"}
    for phone in (f"{PHONE}1", f"{PHONE}2"):
        bench.customers.change(ann, phone=phone)
        await bench.snapshot()
    assert bench.shown(ann).phone == f"{PHONE}2"


async def test_a_contact_refused_without_its_optional_values_is_not_sent_again() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.refused_values = {PHONE: "the phone is invalid", "": "the e-mail is not valid"}
    bench.customers.change(ann, phone=PHONE, first_name="")
    await bench.snapshot()
    sent = len(bench.contacts.synced)
    await bench.snapshot()
    assert len(bench.contacts.synced) == sent == 3  # whole, without the phone, without clearing the name


async def test_a_custom_field_that_an_import_of_one_refuses_pauses_contacts_alone() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refused_values = {"": "Field 4 does not exist"}
    await bench.snapshot()
    assert bench.contacts.synced == []
    assert bench.statuses([ann]) == [NEW]
    assert [each.kind for each in bench.incidents.all()] == ["new_contacts", "contacts"]
    assert "run `kiva-stream setup`" in bench.incidents.all()[0].why


async def test_many_rows_whose_values_are_refused_are_not_about_the_account() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.refused_values = {PHONE: "the phone is invalid"}
    for each in customers:
        bench.customers.change(each, phone=PHONE)
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 3


async def test_refused_rows_are_left_out_and_the_rest_goes_again() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = {address(customers[1])}
    await bench.snapshot()
    assert bench.contacts.addresses() == [[customers[0].email, customers[2].email]]
    assert bench.statuses(customers) == [LINKED, REFUSED, LINKED]


async def test_an_import_of_which_every_row_is_refused_is_no_import() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = set(emails(customers))
    await bench.snapshot()
    assert bench.contacts.imports == {}
    assert bench.statuses(customers) == [REFUSED] * 2


async def test_failures_are_tried_alone_without_the_list_and_without_a_tag() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.failing = set(emails(customers[:2]))
    bench.contacts.refused_alone = {address(customers[1])}
    await bench.snapshot()
    assert bench.contacts.synced == emails(customers[:2])
    assert bench.contacts.list_calls == []
    assert bench.statuses(customers) == [LINKED, REFUSED, LINKED]
    assert bench.links.imports == {}
    assert (bench.at_ac(customers[0]).is_on_list, bench.at_ac(customers[0]).tags) == (None, {})


async def test_the_tag_of_a_contact_that_was_sent_alone_is_not_known_and_is_due() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.failing = {address(ann)}
    await bench.snapshot()
    assert bench.linked(ann).tag is None
    assert list(bench.links.due) == [bench.contact(ann).id]


async def test_a_contact_whose_opt_out_failed_in_an_import_is_unsubscribed_alone() -> None:
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False)])
    bench.contacts.failing = {address(ann)}
    await bench.snapshot()
    assert bench.contacts.calls == [f"sync {ann.email}", f"unsubscribe {ann.email}"]
    assert bench.linked(ann).unsubscribed


async def test_a_contact_that_was_sent_alone_is_recorded_as_sent() -> None:
    customers, accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.failing = set(emails(customers))
    await bench.snapshot()
    bench.contacts.imports.clear()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED]
    assert bench.contacts.synced == emails(customers)
    ((row,),) = bench.contacts.imports.values()  # which puts it on the list
    assert row.list_status is ListStatus.SUBSCRIBE
    assert row.first_name is None


async def test_no_contact_is_looked_up_when_an_import_is_whole() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.failing = {address(customers[0])}
    await bench.snapshot()
    assert bench.contacts.looked_up == []


async def test_contacts_missing_after_a_short_import_are_tried_alone() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.excluded = set(emails(customers[:2]))
    bench.contacts.refused_alone = {address(customers[1])}
    await bench.snapshot()
    assert bench.contacts.looked_up == emails(customers[:2])  # the third was learned by paging
    assert bench.contacts.synced == emails(customers[:2])
    assert bench.statuses(customers) == [LINKED, REFUSED, LINKED]


async def test_contacts_there_before_a_short_import_are_sent_alone() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts, import_min_contacts=1)
    await bench.snapshot()
    for each in customers:
        bench.customers.change(each, phone=PHONE)
    bench.contacts.excluded = set(emails(customers[:1]))
    await bench.snapshot()
    assert bench.contacts.synced == emails(customers)
    assert [bench.shown(each).phone for each in customers] == [PHONE] * 3
    assert bench.contacts.looked_up == []


@pytest.mark.parametrize("import_min_contacts", [1, 2])
async def test_a_customer_who_opted_out_is_unsubscribed_though_the_rest_of_the_change_is_refused(
    import_min_contacts: int,
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    await bench.snapshot()
    bench.customers.change(ann, email_opt_in=False)
    bench.contacts.refused = {address(ann)}
    bench.contacts.upsert = refuse  # type: ignore[assignment, method-assign]
    await bench.snapshot()
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).unsubscribed
    assert bench.contacts.list_calls == [(ann.email, False)]


async def refuse(_wanted: DesiredContact, **_: object) -> AcId:
    """Implement Contacts.upsert of an account that refuses a change."""
    raise Rejected("refused", "the e-mail is not valid")


@pytest.mark.parametrize("import_min_contacts", [1, 2])
async def test_an_opt_out_of_a_contact_that_is_there_goes_before_its_fields(import_min_contacts: int) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=import_min_contacts)
    await bench.snapshot()
    bench.customers.change(ann, email_opt_in=False)
    bench.contacts.gate = anyio.Event()
    bench.contacts.upsert = wait_forever  # type: ignore[assignment, method-assign]
    async with anyio.create_task_group() as group:
        group.start_soon(bench.snapshot)
        await until(lambda: bench.linked(ann).unsubscribed)
        group.cancel_scope.cancel()
    assert bench.at_ac(ann).is_on_list is False


async def wait_forever(_wanted: DesiredContact, **_: object) -> AcId:
    """Implement Contacts.upsert of an account that never answers."""
    await anyio.sleep_forever()
    raise AssertionError


async def test_an_opt_out_of_a_contact_that_was_there_before_it_is_linked_goes_before_its_fields() -> None:
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False)])
    bench.contacts.add(address(ann))
    bench.contacts.at(address(ann)).put_on_list(subscribed=True)
    bench.contacts.gate = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.snapshot)
        await until(lambda: bench.contacts.at(address(ann)).is_on_list is False)
        group.cancel_scope.cancel()
    assert bench.contacts.imports == {}
    assert bench.contacts.list_calls == [(ann.email, False)]


async def test_a_refused_newcomer_who_opted_out_is_looked_up_and_unsubscribed() -> None:
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False)])
    (contact,) = await bench.link(ann)
    bench.contacts.add(address(ann))  # under an id that is not known
    bench.contacts.refused = {address(ann)}
    bench.contacts.upsert = refuse  # type: ignore[assignment, method-assign]
    await bench.ensure(need_of(contact))
    assert bench.statuses([ann]) == [REFUSED]
    assert bench.contacts.at(address(ann)).is_on_list is False


async def test_that_an_import_was_short_is_known_after_a_restart() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.excluded = {address(customers[0])}
    bench.contacts.refused_alone = {address(customers[0])}
    await stopped_while_it_imports(bench)
    await bench.snapshot()
    assert bench.statuses(customers) == [REFUSED, LINKED]


async def test_a_refused_subscription_is_logged_and_not_recorded() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.refused_alone = {address(ann)}
    with capture_logs() as lines:
        await bench.writes.set_list(bench.linked(ann), subscribed=False)
    assert [(line["log_level"], line["contact"]) for line in lines] == [("warning", 1)]
    assert "example.org" not in str(lines)
    assert not bench.linked(ann).unsubscribed


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_contact_whose_place_on_the_list_is_refused_is_taken_and_the_place_tried_when_asked_for(
    *, is_there: bool
) -> None:
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False, phone=PHONE)])
    if is_there:
        bench.contacts.add(address(ann))
        bench.contacts.at(address(ann)).put_on_list(subscribed=True)
    bench.contacts.failing = bench.contacts.refused_places = {address(ann)}
    await bench.snapshot()
    assert bench.statuses([ann]) == [LINKED]
    assert bench.shown(ann).phone == PHONE
    assert bench.links.left_out == {}
    assert bench.held.rows == {}
    assert not bench.linked(ann).unsubscribed
    assert bench.linked(ann).not_on_list is NotOnList.CAME_ALONE
    assert "the list takes no change" in bench.contact(ann).reply

    await bench.snapshot()
    assert bench.contacts.synced == [ann.email]
    assert bench.contacts.list_calls == [(ann.email, False)]
    bench.contacts.refused_places = set()
    await bench.sync.retry_refused([bench.contact(ann)], is_asked=True)
    await bench.snapshot()
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).unsubscribed
    assert bench.contact(ann).reply == ""


async def test_a_refused_change_of_a_contact_whose_place_is_refused_too_asks_for_its_place_once() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.customers.change(ann, email_opt_in=False)
    bench.contacts.refused_places = {address(ann)}
    bench.contacts.upsert = refuse  # type: ignore[assignment, method-assign]
    await bench.snapshot()
    assert bench.contacts.list_calls == [(ann.email, False)]


async def test_a_contact_that_activecampaign_lost_is_not_put_on_the_list() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.there.clear()
    bench.links.ac_ids.clear()
    await bench.writes.set_list(bench.linked(ann), subscribed=False)
    assert bench.contacts.looked_up == [ann.email]
    assert bench.contacts.calls == []
    assert not bench.linked(ann).unsubscribed


async def test_a_contact_whose_number_is_not_known_is_found_by_its_address() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.links.ac_ids.clear()
    await bench.writes.set_list(bench.linked(ann), subscribed=False)
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).unsubscribed


# One request at a time


async def test_a_contact_that_is_in_an_import_is_in_no_other_request_until_it_ended() -> None:
    (ann, bob), accounts = shop(2)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.customers.change(ann, phone=PHONE)
    anns, bobs = bench.wanted(ann, bob)
    bench.contacts.gate = anyio.Event()
    bench.contacts.reports = [RUNNING] * 3
    async with anyio.create_task_group() as group:
        group.start_soon(partial(bench.writes.import_contacts, [anns, bobs], exclude_automations=True))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(bench.writes.write_one, anns)
        group.start_soon(partial(bench.writes.set_list, anns.record, subscribed=False))
        group.start_soon(partial(bench.writes.import_contacts, [bobs], exclude_automations=True))
        await anyio.wait_all_tasks_blocked()
        assert bench.contacts.calls == []
        assert len(bench.contacts.imports) == 1
        bench.contacts.gate.set()
    assert bench.contacts.calls == [f"sync {ann.email}", f"unsubscribe {ann.email}"]
    assert len(bench.contacts.imports) == 3


async def test_requests_for_one_contact_are_sent_one_after_another() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    (wanted,) = bench.wanted(ann)
    async with anyio.create_task_group() as group:
        for subscribed in (False, True):
            group.start_soon(bench.writes.write_one, wanted)
            group.start_soon(partial(bench.writes.set_list, wanted.record, subscribed=subscribed))
    assert bench.contacts.calls == [
        f"{what} {ann.email}" for what in ("sync", "unsubscribe", "sync", "subscribe")
    ]


# Whatever imports do


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

    async def play() -> None:
        await bench.snapshot()
        bench.contacts.reports = []
        bench.held_records.make_due()  # those whose imports were lost again and again
        await bench.snapshot()

    run(play())
    dead = (refused | failing | excluded) & alone
    expected = [REFUSED if each.email in dead else LINKED for each in customers]
    assert bench.statuses(customers) == expected
    assert bench.links.imports == {}
    assert not refused & set(bench.imported())
    for each in customers:
        if each.email not in dead and (tag := bench.linked(each).tag):
            assert list(bench.at_ac(each).tags) == [tag]
