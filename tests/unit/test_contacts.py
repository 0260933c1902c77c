"""The contact that ActiveCampaign should show for an address."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations, permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.contacts import MAX_NAME, MAX_PHONE, countable, desired_contact, fingerprint
from kiva_stream.model import DesiredContact, Email, ListStatus
from tests.shop import ANN, SITE, account

EMAIL = Email("ann@example.com")
MAX_ROW_BYTES = 1599  # 399,999 bytes of an import, shared by 250 contacts


def test_a_contact_shows_its_account() -> None:
    assert desired_contact(EMAIL, [account()], is_new=True) == DesiredContact(
        email=EMAIL,
        first_name="Ann",
        last_name="Lee",
        phone="+1 555 0100",
        customer_id="5123",
        list_status=ListStatus.SUBSCRIBE,
    )


STATUSES_BEST_FIRST = ["active", "paused", "pending", "cancelled", "expired", "dead", "a word never seen"]
OLD, NEW = datetime(2018, 3, 4, tzinfo=UTC), datetime(2018, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(("better", "worse"), list(combinations(STATUSES_BEST_FIRST, 2)))
def test_of_accounts_that_share_an_address_the_best_status_is_shown(better: str, worse: str) -> None:
    best = account(id=9, status=better, newest_order_at=OLD)
    other = account(id=1, status=worse, newest_order_at=NEW)
    for accounts in permutations([best, other]):
        assert desired_contact(EMAIL, accounts, is_new=False).customer_id == "9"


@pytest.mark.parametrize("newest", [NEW, datetime.max])  # noqa: DTZ901  so asyncpg reads infinity
@pytest.mark.parametrize("older", [OLD, None, datetime.min])  # noqa: DTZ901
def test_of_equal_statuses_the_newest_order_is_shown(newest: datetime, older: datetime | None) -> None:
    best, other = account(id=9, newest_order_at=newest), account(id=1, newest_order_at=older)
    for accounts in permutations([best, other]):
        assert desired_contact(EMAIL, accounts, is_new=False).customer_id == "9"


@pytest.mark.parametrize("newest", [NEW, None])
def test_of_accounts_alike_in_both_the_lower_id_is_shown(newest: datetime | None) -> None:
    accounts = [account(id=number, newest_order_at=newest) for number in (11, 9, 10)]
    assert desired_contact(EMAIL, accounts, is_new=False).customer_id == "9"


@pytest.mark.parametrize(
    ("others", "new", "linked"),
    [
        ({}, ListStatus.SUBSCRIBE, ListStatus.LEAVE),
        ({"email_opt_in": False}, ListStatus.UNSUBSCRIBE, ListStatus.UNSUBSCRIBE),
        ({"email_blacklisted": True}, ListStatus.UNSUBSCRIBE, ListStatus.UNSUBSCRIBE),
    ],
)
def test_any_account_that_opted_out_or_complained_keeps_the_contact_off_the_list(
    others: dict[str, bool], new: ListStatus, linked: ListStatus
) -> None:
    for accounts in permutations([account(id=1), account(id=2, status="dead", **others)]):
        assert desired_contact(EMAIL, accounts, is_new=True).list_status is new
        assert desired_contact(EMAIL, accounts, is_new=False).list_status is linked


def test_names_and_phone_are_clean_and_short() -> None:
    odd = account(first_name=" A\x00n\\u0000n\n\ud800Mary ", last_name="é" * 200, phone="5" * 39 + " " + "5")
    contact = desired_contact(EMAIL, [odd], is_new=False)
    assert contact.first_name == "Ann Mary"
    assert contact.last_name == "é" * MAX_NAME
    assert contact.phone == "5" * (MAX_PHONE - 1)


def row_of_an_import(contact: DesiredContact) -> bytes:
    """Return the row as the client sends it, with ids longer than any account has."""
    return msgspec.json.encode(
        {
            "email": contact.email,
            "first_name": contact.first_name,
            "last_name": contact.last_name,
            "phone": contact.phone,
            "fields": [{"id": 9_999_999_999, "value": contact.customer_id}],
            "unsubscribe": [{"listid": 9_999_999_999}],
        }
    )


@pytest.mark.parametrize("letter", ["😀", '"', "\\", "é", "x", "\x01", "\u2028"])
def test_a_full_row_of_an_import_stays_below_its_share_of_the_body(letter: str) -> None:
    email = Email("a" * 242 + "@example.com")
    longest = account(id=2**63 - 1, first_name=letter * 500, last_name=letter * 500, phone=letter * 500)
    assert len(email) == 254
    assert len(row_of_an_import(desired_contact(email, [longest], is_new=False))) + len(",") < MAX_ROW_BYTES


@given(st.text(), st.text(), st.text())
def test_no_name_is_too_odd_to_be_sent(first: str, last: str, phone: str) -> None:
    contact = desired_contact(EMAIL, [account(first_name=first, last_name=last, phone=phone)], is_new=True)
    assert len(row_of_an_import(contact)) < MAX_ROW_BYTES


def test_accounts_of_another_site_or_address_and_those_gone_or_for_testing_do_not_count() -> None:
    ours = [account(id=1), account(id=2, status="dead")]
    others = [
        account(site_id=2),
        account(email=Email("bob@example.com")),
        account(email=None),
        account(erased=True),
        account(is_test=True),
    ]
    assert countable([*others, *ours], SITE.id, EMAIL) == ours


BASE = desired_contact(EMAIL, [account()], is_new=False)


@pytest.mark.parametrize(
    "change",
    [
        {"email": "bob@example.com"},
        {"first_name": "Anna"},
        {"last_name": "Leee"},
        {"phone": ""},
        {"customer_id": "5124"},
        {"list_status": ListStatus.UNSUBSCRIBE},
    ],
)
def test_a_fingerprint_differs_when_something_would_be_sent(change: dict[str, object]) -> None:
    assert set(change) <= set(DesiredContact.__struct_fields__)
    assert fingerprint(msgspec.structs.replace(BASE, **change)) != fingerprint(BASE)


def test_a_fingerprint_does_not_say_whether_the_contact_was_new() -> None:
    assert fingerprint(desired_contact(EMAIL, [account()], is_new=True)) == fingerprint(BASE)


def test_text_that_moves_from_one_field_to_the_next_changes_the_fingerprint() -> None:
    moved = msgspec.structs.replace(BASE, first_name="AnnLee", last_name="")
    assert fingerprint(moved) != fingerprint(msgspec.structs.replace(BASE, first_name="Ann", last_name="Lee"))


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert fingerprint(BASE).hex() == "37b6af2eff62853e1fd878fb54ab2fb0"


def test_the_account_above_is_of_the_site_and_address_above() -> None:
    assert countable([account()], SITE.id, EMAIL) == [account()]
    assert ANN.email == EMAIL
