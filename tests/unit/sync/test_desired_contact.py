"""The contact that ActiveCampaign should show for an address."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.contacts import Contact, ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.customers import CustomerAccount
from kiva_stream.model.ids import ContactId, CustomerId, Email
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.sync.desired_contact import (
    FINGERPRINT_BYTES,
    MAX_FIELD,
    MAX_NAME,
    MAX_PHONE,
    cleared,
    countable,
    customers_to_move,
    desired_contact,
    fingerprint,
    is_same,
    obstacle,
    wants_emails,
)
from kiva_stream.sync.desired_week_tag import week_tag
from tests.support.ann import ANN, SITE, account

EMAIL = Email("ann@example.com")
TODAY = date(2018, 11, 24)
YESTERDAY, TOMORROW = TODAY - timedelta(days=1), TODAY + timedelta(days=1)


def desired(accounts: Sequence[CustomerAccount], *, is_new: bool = False) -> DesiredContact:
    """Return the contact of Ann's address as these accounts want it today."""
    return desired_contact(EMAIL, accounts, is_new=is_new, today=TODAY)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"site_id": 2}, "is of site 2, and source.site_id is 1"),
        ({"erased": True}, "is erased at the shop"),
        ({"is_test": True}, "is a test account"),
        ({"email": None}, "has no usable e-mail address"),
    ],
)
def test_an_obstacle_says_why_a_customer_does_not_belong_at_activecampaign(
    changes: dict[str, object], why: str
) -> None:
    customer = msgspec.structs.replace(account().customer, **changes)
    assert obstacle(customer, SITE.id).startswith(why)
    assert bool(obstacle(customer, SITE.id)) is bool(why)


def test_a_contact_shows_its_account() -> None:
    assert desired([account()], is_new=True) == DesiredContact(
        email=EMAIL,
        first_name="Ann",
        last_name="Lee",
        phone="+1 555 0100",
        customer_id="5123",
        list_status=ListStatus.SUBSCRIBE,
        status="active",
    )


def test_a_contact_shows_status_box_next_delivery_and_birthday_of_its_account() -> None:
    shown = desired([account(box_type="Medium", next_delivery=TOMORROW, birthday=date(1980, 5, 2))])
    assert (shown.status, shown.box_type) == ("active", "Medium")
    assert (shown.next_delivery, shown.birthday) == ("2018-11-25", "1980-05-02")


def test_fields_without_a_value_are_cleared() -> None:
    shown = desired([account()])
    assert (shown.next_delivery, shown.cancel_date, shown.birthday, shown.box_type) == ("", "", "", "")


@pytest.mark.parametrize("status", ["active", "paused", "pending", "cancelled", "expired", "dead"])
def test_the_next_delivery_is_empty_while_the_status_is_cancelled_only(status: str) -> None:
    shown = desired([account(status=status, next_delivery=TOMORROW)])
    assert shown.next_delivery == ("" if status == "cancelled" else "2018-11-25")


@pytest.mark.parametrize("status", ["active", "paused", "pending", "cancelled", "expired", "dead"])
def test_the_cancel_date_is_sent_only_of_customers_who_left(status: str) -> None:
    shown = desired([account(status=status, cancel_date=YESTERDAY, box_type="Small")])
    assert shown.cancel_date == ("2018-11-23" if status in {"cancelled", "expired", "dead"} else "")
    assert shown.box_type == "Small"


@pytest.mark.parametrize(
    ("statuses", "tag"),
    [
        ([], WeekTag.NONE),
        ([set()], WeekTag.NONE),
        ([{"skipped", "cancelled"}], WeekTag.NONE),
        ([{"closed"}], WeekTag.CLOSED),
        ([{"complete", "cancelled"}], WeekTag.CLOSED),
        ([{"closed", "open"}], WeekTag.OPEN),
        ([{"closed"}, {"skipped"}], WeekTag.CLOSED),
        ([{"complete"}, {"open"}], WeekTag.OPEN),
    ],
)
def test_the_week_tag_follows_from_the_orders_of_all_customers_of_a_contact(
    statuses: list[set[str]], tag: WeekTag
) -> None:
    assert week_tag(statuses) is tag
    assert week_tag(reversed(statuses)) is tag


def test_only_a_linked_contact_is_moved_and_only_to_another_address() -> None:
    other = Email("bob@example.com")
    contacts = {
        CustomerId(number): Contact(ContactId(number), address, status)
        for number, (address, status) in enumerate(
            [
                (EMAIL, ContactStatus.LINKED),
                (other, ContactStatus.LINKED),
                (other, ContactStatus.NEW),
                (other, ContactStatus.REJECTED),
            ]
        )
    }
    assert customers_to_move(contacts, dict.fromkeys(contacts, EMAIL)) == {CustomerId(1): EMAIL}


@pytest.mark.parametrize(
    ("change", "wants"),
    [({}, True), ({"email_opt_in": False}, False), ({"email_blacklisted": True}, False)],
)
def test_a_contact_wants_emails_only_if_all_of_its_accounts_do(
    change: dict[str, bool], *, wants: bool
) -> None:
    for accounts in permutations([account(id=1), account(id=2, **change)]):
        assert wants_emails(accounts) is wants


STATUSES_BEST_FIRST = ["active", "paused", "pending", "cancelled", "expired", "dead", "a word never seen"]
OLD, NEW = datetime(2018, 3, 4, tzinfo=UTC), datetime(2018, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(("better", "worse"), list(combinations(STATUSES_BEST_FIRST, 2)))
def test_of_accounts_that_share_an_address_the_best_status_is_shown(better: str, worse: str) -> None:
    best = account(id=9, status=better, newest_order_at=OLD)
    other = account(id=1, status=worse, newest_order_at=NEW)
    for accounts in permutations([best, other]):
        assert desired(accounts, is_new=False).customer_id == "9"


@pytest.mark.parametrize("newest", [NEW, datetime.max])  # noqa: DTZ901  so asyncpg reads infinity
@pytest.mark.parametrize("older", [OLD, None, datetime.min])  # noqa: DTZ901
def test_of_equal_statuses_the_newest_order_is_shown(newest: datetime, older: datetime | None) -> None:
    best, other = account(id=9, newest_order_at=newest), account(id=1, newest_order_at=older)
    for accounts in permutations([best, other]):
        assert desired(accounts, is_new=False).customer_id == "9"


@pytest.mark.parametrize("newest", [NEW, None])
def test_of_accounts_alike_in_both_the_lower_id_is_shown(newest: datetime | None) -> None:
    accounts = [account(id=number, newest_order_at=newest) for number in (11, 9, 10)]
    assert desired(accounts, is_new=False).customer_id == "9"


@pytest.mark.parametrize(
    ("others", "new", "linked"),
    [
        ({}, ListStatus.SUBSCRIBE, ListStatus.KEEP),
        ({"email_opt_in": False}, ListStatus.UNSUBSCRIBE, ListStatus.UNSUBSCRIBE),
        ({"email_blacklisted": True}, ListStatus.UNSUBSCRIBE, ListStatus.UNSUBSCRIBE),
    ],
)
def test_any_account_that_opted_out_or_complained_keeps_the_contact_off_the_list(
    others: dict[str, bool], new: ListStatus, linked: ListStatus
) -> None:
    for accounts in permutations([account(id=1), account(id=2, status="dead", **others)]):
        assert desired(accounts, is_new=True).list_status is new
        assert desired(accounts, is_new=False).list_status is linked


def test_names_and_phone_are_clean_and_short() -> None:
    odd = account(first_name=" A\x00n\\u0000n\n\ud800Mary ", last_name="é" * 200, phone="5" * 39 + " " + "5")
    contact = desired([odd], is_new=False)
    assert contact.first_name == "Ann Mary"
    assert contact.last_name == "é" * MAX_NAME
    assert contact.phone == "5" * (MAX_PHONE - 1)


@given(st.text(), st.text(), st.text())
def test_no_text_is_too_odd_or_too_long_to_be_sent(first: str, last: str, other: str) -> None:
    odd = account(first_name=first, last_name=last, phone=other, status=other, box_type=other)
    shown = desired([odd], is_new=True)
    assert msgspec.json.encode(shown)
    assert max(len(shown.first_name or ""), len(shown.last_name or "")) <= MAX_NAME
    assert len(shown.phone or "") <= MAX_PHONE
    assert max(len(shown.status), len(shown.box_type or "")) <= MAX_FIELD


def test_accounts_of_another_site_or_address_erased_or_for_testing_do_not_count() -> None:
    ours = [account(id=1), account(id=2, status="dead")]
    others = [
        account(site_id=2),
        account(email=Email("bob@example.com")),
        account(email=None),
        account(erased=True),
        account(is_test=True),
    ]
    assert countable([*others, *ours], SITE.id, EMAIL) == ours


BASE = desired([account()], is_new=False)


@pytest.mark.parametrize(
    "change",
    [
        {"email": "bob@example.com"},
        {"first_name": "Anna"},
        {"last_name": "Leee"},
        {"phone": ""},
        {"customer_id": "5124"},
        {"list_status": ListStatus.UNSUBSCRIBE},
        {"status": "paused"},
        {"next_delivery": "2018-11-27"},
        {"cancel_date": "2018-11-27"},
        {"birthday": "1904-05-02"},
        {"box_type": "Small"},
        {"box_type": None},
    ],
)
def test_a_fingerprint_differs_when_something_would_be_sent(change: dict[str, object]) -> None:
    assert set(change) <= set(DesiredContact.__struct_fields__)
    assert fingerprint(msgspec.structs.replace(BASE, **change)) != fingerprint(BASE)


def test_a_fingerprint_does_not_say_whether_the_contact_was_new() -> None:
    assert fingerprint(desired([account()], is_new=True)) == fingerprint(BASE)


def test_a_fingerprint_does_not_speak_of_tag_and_notes_which_no_later_sending_carries() -> None:
    other = msgspec.structs.replace(BASE, tag=WeekTag.OPEN, notes=("odd",))
    assert fingerprint(other) == fingerprint(BASE)


def test_text_that_moves_from_one_field_to_the_next_changes_the_fingerprint() -> None:
    moved = msgspec.structs.replace(BASE, first_name="AnnLee", last_name="")
    assert fingerprint(moved) != fingerprint(msgspec.structs.replace(BASE, first_name="Ann", last_name="Lee"))


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert fingerprint(BASE).hex() == "d952e7d4b29fe533c822400878bc90a507"


def test_a_fingerprint_of_an_earlier_version_is_that_of_the_same_contact() -> None:
    assert is_same(BASE, fingerprint(BASE))
    assert is_same(BASE, fingerprint(BASE)[:FINGERPRINT_BYTES])
    assert not is_same(BASE, None)
    assert not is_same(msgspec.structs.replace(BASE, phone=""), fingerprint(BASE))


@pytest.mark.parametrize("name", ["first_name", "last_name", "phone"])
def test_a_name_or_phone_that_is_gone_is_to_be_cleared_if_it_was_sent_before(name: str) -> None:
    gone, sent = msgspec.structs.replace(BASE, **{name: ""}), fingerprint(BASE)
    assert cleared(gone, sent) == {name}
    assert cleared(msgspec.structs.replace(BASE, **{name: "x"}), sent) == set()
    assert cleared(gone, fingerprint(gone)) == set()
    assert cleared(gone, None) == cleared(gone, sent[:FINGERPRINT_BYTES]) == set()


def test_the_account_above_is_of_the_site_and_address_above() -> None:
    assert countable([account()], SITE.id, EMAIL) == [account()]
    assert ANN.email == EMAIL
