"""The rows of the dirty-data catalogue that the pure parts decide, one test a row.

Rows 11 to 18 and 32 to 41, 47 and 48 are about contacts, orders, tags and a live log; rows 31 and 46 about
the batcher. They are tested where they are decided.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kiva_stream.model.addresses import parse_email
from kiva_stream.model.classifications import Event, Noise, Reject, SyncOnly
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.source.identity import claimed
from kiva_stream.sync.desired_contact import countable, desired_contact
from tests.support.ann import (
    ANN,
    LINES,
    MOMENT,
    SITE,
    TAIL,
    account,
    classify,
    customer,
    event,
    legacy,
    structured,
)

ANNS = Email("ann@example.com")


def customer_with(address: str | None) -> Customer:
    """Return a customer as the source adapter reads one with this address field."""
    return customer(email=parse_email(address).email)


def test_row_1_a_number_in_the_text_names_the_customer() -> None:
    message = "Customer #5123 (Ann Lee) made a substitution: Kale -> Apples"
    assert claimed(None, message, None) == 5123
    assert event(legacy(message, customer=ANN)).event_line == LINES[8]


def test_row_2_an_address_in_data_or_text_names_the_customer() -> None:
    assert claimed("contact.form", "", '{"email": "Ann@Example.com"}') == ANNS
    assert claimed(None, "Unsubscribed email Ann@Example.com", None) == ANNS


def test_row_3_accounts_that_share_an_address_are_one_contact() -> None:
    both = [account(id=2), account(id=1)]
    assert countable(both, SITE.id, ANNS) == both
    assert desired_contact(ANNS, both, is_new=True, today=MOMENT.date()).email == ANNS


def test_row_4_an_erased_customer_is_skipped_and_makes_no_contact() -> None:
    assert classify(structured("order.paid", customer=None)) == Noise(Reason.ERASED)
    assert classify(structured("order.closed", customer=None)) == Noise(Reason.ERASED)


def test_row_5_a_customer_of_another_site_is_a_dead_letter() -> None:
    assert classify(structured("order.paid", customer=customer(site_id=2))) == Reject(Reason.WRONG_SITE)


@pytest.mark.parametrize("address", [None, "", "   ", "\t"])
def test_row_6_no_address_is_a_dead_letter(address: str | None) -> None:
    assert classify(structured("order.paid", customer=customer_with(address))) == Reject(Reason.NO_EMAIL)


@pytest.mark.parametrize("address", ["n/a", "none", "ann.example.com", "ann@@example.com"])
def test_row_7_an_address_without_exactly_one_sign_is_no_address(address: str) -> None:
    assert classify(structured("order.paid", customer=customer_with(address))) == Reject(Reason.NO_EMAIL)


def test_row_8_blanks_capitals_and_a_trailing_dot_do_not_matter_and_a_comma_is_not_repaired() -> None:
    assert parse_email(" Ann@Example.COM. ").email == ANNS
    assert classify(structured("order.paid", customer=customer_with("ann@x,com"))) == Reject(Reason.NO_EMAIL)


def test_row_9_of_two_addresses_in_a_field_the_first_valid_one_counts() -> None:
    assert parse_email("a@x.com; b@x.com") == ("a@x.com", True)
    assert parse_email("a@x; b@x.com") == ("b@x.com", True)


def test_row_10_a_foreign_domain_is_written_in_ascii_and_a_long_address_is_a_dead_letter() -> None:
    assert parse_email("ann@bücher.example").email == "ann@xn--bcher-kva.example"
    long = customer_with("a" * 243 + "@example.com")
    assert classify(structured("order.paid", customer=long)) == Reject(Reason.NO_EMAIL)


def test_row_19_an_unknown_action_is_noise_without_a_customer_and_a_sync_with_one() -> None:
    notes = ("unknown_action:order.teleport",)
    assert classify(structured("order.teleport", customer=None, customer_id=None)) == Noise(notes=notes)
    assert classify(structured("order.teleport")) == SyncOnly(notes)


def test_row_20_the_action_wins_over_the_message() -> None:
    assert (
        event(structured("order.paid", message="Customer cancelled: too expensive")).event_line == LINES[41]
    )
    assert classify(structured("email.menu", message="Logged in")) == Noise()


@pytest.mark.parametrize("text", ["made an un-substition", "made an un-substitution", "unsubbed"])
def test_row_21_every_spelling_of_an_un_substitution_is_the_one_event(text: str) -> None:
    assert event(legacy(f"Ann Lee {text}: Kale restored")).event_line.ac_name == "Made an un-substition"


def test_row_22_a_note_that_quotes_a_cancellation_is_noise() -> None:
    assert classify(legacy("Called Ann, she said she cancelled")) == Noise(notes=("unknown_text",))
    assert classify(structured("customer.note.add", message="Customer cancelled")) == Noise()


def test_row_23_staff_logging_in_as_a_customer_is_noise() -> None:
    message = "wayne logged in as customer #5123"
    assert classify(legacy(message)) == Noise(notes=("unknown_text",))
    assert claimed(None, message, None) is None
    assert classify(structured("admin.login_as", actor_type="admin")) == Noise()


@pytest.mark.parametrize(
    ("data", "pairs", "notes"),
    [
        (None, "", ()),
        ("null", "", ("bad_data",)),
        ('"a string"', "", ("bad_data",)),
        ("[]", "", ("bad_data",)),
        ('{"order_id": "12a", "total_cents": 4250}', "total=42.50; ", ("bad_data",)),
    ],
)
def test_row_24_bad_data_costs_only_its_bad_part(
    data: str | None, pairs: str, notes: tuple[str, ...]
) -> None:
    assert event(structured("order.paid", data)) == Event(LINES[41], pairs + TAIL, notes)


def test_row_25_a_long_message_and_long_data_do_not_reach_the_eventdata() -> None:
    long = structured("order.skip", {"reason": "x" * 2_000_000}, message="#0 trace\n" * 2_000)
    assert event(long) == Event(LINES[15], TAIL, ("cut",))
    assert classify(legacy("Undefined index\n" + "#0 order.php(12): logged in\n" * 700)) == Noise(
        notes=("unknown_text",)
    )


def test_row_26_control_characters_are_stripped_and_emoji_kept() -> None:
    data = '{"reason": "a\\\\u0000b\\u0007c 💚"}'
    assert event(structured("order.skip", data)).eventdata == f"reason=abc 💚; {TAIL}"
    contact = desired_contact(
        ANNS, [account(first_name="A\\u0000nn \ud800💚\x07")], is_new=True, today=MOMENT.date()
    )
    assert contact.first_name == "Ann 💚"


def test_row_27_wrongly_decoded_text_is_sent_as_it_is() -> None:
    assert event(structured("order.skip", {"reason": "JosÃ©"})).eventdata == f"reason=JosÃ©; {TAIL}"
    assert event(legacy("JosÃ© Lee logged in", customer=customer(name="JosÃ© Lee"))).event_line == LINES[4]


def test_row_28_html_is_sent_as_plain_text() -> None:
    classification = event(structured("discount.apply", {"code": "<b>FALL10</b>"}))
    assert classification.eventdata == f"code=<b>FALL10</b>; {TAIL}"


@pytest.mark.parametrize(
    "occurred",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2038, 1, 20, tzinfo=UTC),
        MOMENT + timedelta(hours=3),
    ],
)
def test_row_29_a_clock_that_cannot_be_right_is_not_believed(occurred: datetime) -> None:
    assert event(structured("logout", occurred_at=occurred)) == Event(LINES[7], TAIL, ("clock",))


def test_row_30_a_legacy_time_in_a_repeated_hour_is_sent_as_stored() -> None:
    first, second = (datetime(2018, 11, 4, hour, 30, tzinfo=UTC) for hour in (6, 7))
    rows = [legacy("Logged out", occurred_at=moment, inserted_at=moment) for moment in (second, first)]
    assert [event(row).eventdata[:23] for row in rows] == [
        "at=2018-11-04T07:30:00Z",
        "at=2018-11-04T06:30:00Z",
    ]


def test_row_42_a_test_account_is_skipped_before_the_batcher() -> None:
    assert classify(structured("order.paid", customer=customer(is_test=True))) == Noise(Reason.TEST)
    assert classify(structured("order.closed", customer=customer(is_test=True))) == Noise(Reason.TEST)


def test_row_43_a_contact_form_of_a_visitor_without_an_account_is_skipped() -> None:
    form = structured("contact.form", actor_type="visitor", customer=None, customer_id=None)
    assert classify(form) == Noise(Reason.NO_ACCOUNT)
    old = legacy("Submitted Contact Form: hello", customer=None, customer_id=None)
    assert classify(old) == Noise(Reason.NO_ACCOUNT)


def test_row_44_an_expired_magic_link_is_resolved_by_its_address_or_skipped() -> None:
    assert claimed("login.magic_link.expired", "", '{"email": "ann@example.com"}') == ANNS
    unknown = structured("login.magic_link.expired", customer=None, customer_id=None)
    assert classify(unknown) == Noise(Reason.NO_ACCOUNT)


def test_row_45_a_long_or_broken_value_is_cleaned_and_cut_at_a_pair() -> None:
    long = event(structured("discount.apply", {"code": "F" * 256, "amount_cents": 1000}))
    assert (long.eventdata, long.notes) == (f"amount=10.00; {TAIL}", ("cut",))
    broken = event(structured("contact.form", {"topic": "delivery; late\nagain"}))
    assert broken == Event(LINES[20], f"topic=delivery, late again; {TAIL}")
