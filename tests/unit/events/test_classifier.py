"""What the entries of a shop's log are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.events import matching
from kiva_stream.events.classifier import LOG_IN_LINES, VISITOR_LINES
from kiva_stream.model.classifications import Event, Noise, Reject, SyncOnly
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.model.tracked_events import EVENTDATA_BYTES
from tests.support.ann import (
    ANN,
    LINES,
    LOG_ID,
    MOMENT,
    SITE,
    TAIL,
    classify,
    customer,
    entry,
    event,
    legacy,
    structured,
)

ACTIONS = [(line.number, action) for line in CATALOG.events for action in line.actions]

# What legacy rows say, by line, as it stands after a customer's name; the form with which a line's text can
# begin a row by itself has a capital.
LEGACY = {
    1: ["delivery today reminder email sent: order #184201"],
    2: ["new customer signup: Ann Lee, Medium Box"],
    3: ["login via expired magic link failed", "expired magic link"],
    4: ["logged in", "logged in.", "logged in from the welcome page"],
    5: ["logged in via cookie"],
    6: ["logged in via magic link"],
    7: ["logged out"],
    8: ["made a substitution: Kale -> Apples", "subbed Kale for 2 Apples"],
    9: ["made an un-substition: Kale", "made an un-substitution", "made an unsubstition", "unsubbed Kale"],
    10: ["added add-on to order", "added an addon to order", "added add on to order", "added 1 Egg to order"],
    11: ["deleted item from order: Sourdough", "removed 2 Eggs from order #184201"],
    12: ["new promo customer signup: FREEBOX"],
    13: ["created order from welcome page", "customer created an order from welcome page: #184377"],
    14: ["changed box: Medium -> Large", "customer changed box: Medium -> Large"],
    15: ["order skipped: #184201", "skipped order #184201"],
    16: ["customer cancelled: too expensive", "customer canceled", "cancelled their account"],
    17: ["thinking of skipping order #184201", "customer thinking of skipping order"],
    18: ["gift certificate used: $50.00", "gift certificate redeemed"],
    19: ["discount code used: FALL10", "used coupon code FALL10", "used discount code FALL10"],
    20: ["submitted contact form: hello", "submitted the contact form", "submitted a contact form"],
    21: ["gift purchaser account activation", "gift purchaser account activated"],
    22: ["promo account activation", "promo account activated"],
    23: ["updated payment info", "updated credit card"],
    24: ["re-subscribed to emails", "resubscribed to emails"],
    25: ["unsubscribed email ann@example.com", "unsubscribed from all mail"],
    26: ["updated shipping notes", "updated delivery notes"],
    27: ["added delivery to schedule", "added a delivery to schedule: week of 2018-12-10"],
    28: ["shared with friends: 3 emails", "told friends"],
    29: ["skipped delivery on schedule", "skipped a delivery on schedule: week of 2018-12-17"],
    30: ["updated address", "changed address", "changed delivery address"],
    31: ["reset password", "reset his password", "reset her password"],
    32: ["cancelled order #184201", "canceled order", "customer cancelled order #184201"],
    33: ["added birthday", "added a birthday"],
    34: ["changed schedule: every week -> every other week", "updated schedule frequency"],
    35: ["customer cancelled by wayne: moved away", "customer canceled by Wayne"],
    36: ["removed recurring product setting: Eggs"],
    37: ["updated recurring product setting: Eggs x2"],
    38: ["added recurring product setting: Eggs x1"],
    39: ["changed box subscription: Medium -> Small"],
    40: ["gift box purchase: 2 boxes, $70.00"],
    41: ["order completed: #184201 $42.50", "payment successful", "payment of $42.50 successful"],
    42: ["reset schedule: 2 skips"],
}  # fmt: skip
LEGACY_TEXTS = [(line, text) for line, texts in LEGACY.items() for text in texts]
ACTORS = [
    "Ann Lee ",  # G1: the name on the customer's row
    "Bob O'Neil-Smith Jr. ",  # G1: a name it no longer has
    "María de la Cruz ",
    "Customer #5123 (Ann Lee) ",  # G2
]


def by_pair(line: int) -> str:
    """Return what legacy text of a line says of who acted."""
    return "by=admin; " if line == 35 else ""


@pytest.mark.parametrize(("line", "action"), ACTIONS)
def test_a_structured_row_is_the_event_of_its_action(line: int, action: str) -> None:
    classification = event(structured(action, LINES[line].data, message="Something else"))
    pairs = LINES[line].example_eventdata
    if action == "customer.cancel.auto":
        pairs = pairs.replace("by=admin", "by=auto")
    assert (classification.event_line, classification.eventdata) == (
        LINES[line],
        f"{pairs}; {TAIL}" if pairs else TAIL,
    )
    assert (classification.notes, classification.order) == ((), LINES[line].data.get("order_id"))


@pytest.mark.parametrize(("line", "text"), LEGACY_TEXTS)
def test_a_legacy_text_is_the_event_it_begins_with(line: int, text: str) -> None:
    assert event(legacy(text[0].upper() + text[1:])) == Event(LINES[line], by_pair(line) + TAIL)
    assert event(legacy(text.upper().replace("BY WAYNE", "by wayne"))).event_line == LINES[line]


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize(("line", "text"), LEGACY_TEXTS)
def test_a_legacy_text_is_the_same_event_after_an_actor(line: int, text: str, actor: str) -> None:
    assert event(legacy(actor + text)) == Event(LINES[line], by_pair(line) + TAIL)


def test_every_legacy_pattern_of_the_catalog_is_tried_above() -> None:
    for line in CATALOG.events:
        for pattern in line.legacy:
            assert any(re.match(pattern, text, re.IGNORECASE) for text in LEGACY[line.number]), pattern


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Logged in via cookie", 5),
        ("Cancelled order #184201", 32),
        ("Customer cancelled order #184201", 32),
        ("Customer cancelled", 16),
        ("Changed box subscription: Medium -> Small", 39),
        ("Customer changed box: Medium -> Large", 14),
        ("New promo customer signup: FREEBOX", 12),
        ("Order skipped: #184201", 15),
        ("Skipped delivery on schedule", 29),
        ("Customer thinking of skipping order #184201", 17),
        ("Removed recurring product setting: Eggs", 36),
        ("Added recurring product setting: Eggs", 38),
        ("Added delivery to schedule", 27),
        ("Promo account activation", 22),
        ("Gift purchaser account activation", 21),
        ("Gift certificate used", 18),
        ("Gift box purchase", 40),
    ],
)
def test_of_two_event_lines_that_look_alike_the_longest_match_wins(text: str, line: int) -> None:
    assert event(legacy(text)).event_line.number == line
    assert event(legacy(f"Customer #5123 (Ann Lee) {text.lower()}")).event_line.number == line


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "wayne logged in as customer #5123",
        "Wayne logged in as customer #5123",
        "Logged in as customer #5123",
        "Logged in via telephone",
        "Reset password requested",
        "Ann Lee reset her password requested by e-mail",
        "Magic link requested",
        "Called Ann, she said she cancelled",
        "Note: cancelled order 5",
        "Note: Ann Lee cancelled order",
        "Bob Stone\ncancelled order #184201",
        "Ann Lee said: logged in",
        "Ann Lee Logged In Via Cookie",
        "ann lee logged in",
        "Ann Lee Bob Jo Max logged in",
        "Ann 2 logged in",
        "Cust #5123 (Ann Lee) logged in",
        "Customer #5123 logged in",
        "Customer #5123 (Ann Lee) said she logged in",
        "Customer #5123 (Ann Lee): logged in",
        "Menu email sent to ann@example.com",
        "Undefined index: box in order.php\n#0 order.php(12): Logged in",
    ],
)
def test_a_text_that_only_quotes_or_resembles_an_event_is_noise(text: str) -> None:
    assert classify(legacy(text)) == Noise(notes=("unknown_text",))


@pytest.mark.parametrize("name", ["ann lee", "JosÃ© <b>Lee</b>", "Ann 2", "李 小龙", "x", "O\\u0000Neil"])
def test_the_name_stored_for_a_customer_is_an_actor_whatever_it_looks_like(name: str) -> None:
    assert event(legacy(f"{name} logged in", customer=customer(name=name))).event_line.number == 4
    assert classify(legacy(f"{name}s logged in", customer=customer(name=name))) == Noise(
        notes=("unknown_text",)
    )


def test_blanks_within_a_stored_name_do_not_matter() -> None:
    assert event(legacy(" ann \n lee\tlogged in", customer=customer(name="ann lee"))).event_line.number == 4


def test_blanks_between_the_words_of_another_name_do_not_matter() -> None:
    assert event(legacy("Bob  van  der Berg  logged in")).event_line.number == 4


def test_legacy_text_is_read_only_where_there_is_no_action() -> None:
    assert classify(entry(action="order.closed", message="Logged in")) == SyncOnly()
    assert classify(entry(action="", message="Logged in")) == SyncOnly(("unknown_action:",))


@pytest.mark.parametrize("code", CATALOG.noise)
def test_a_known_noise_code_is_noise_whoever_it_names(code: str) -> None:
    assert classify(structured(code.replace("*", "anything"))) == Noise()


@pytest.mark.parametrize("code", ["email", "emailing.list", "admin.logins", "cron"])
def test_a_code_that_only_resembles_noise_is_not_known(code: str) -> None:
    assert classify(structured(code)) == SyncOnly((f"unknown_action:{code}",))


@pytest.mark.parametrize("code", CATALOG.sync_only)
def test_a_code_that_changes_a_customer_syncs_the_contact(code: str) -> None:
    assert classify(structured(code)) == SyncOnly()
    assert classify(structured(code, customer=None, customer_id=None)) == Noise()


def test_an_unknown_action_is_counted_and_syncs_the_customer_it_names() -> None:
    assert classify(structured("order.teleport")) == SyncOnly(("unknown_action:order.teleport",))
    nobodys = structured("order.teleport", customer=None, customer_id=None)
    assert classify(nobodys) == Noise(notes=("unknown_action:order.teleport",))
    assert classify(structured("order.teleport", customer=customer(email=None))) == Reject(
        Reason.NO_EMAIL, ("unknown_action:order.teleport",)
    )


def test_unknown_actions_that_differ_in_their_numbers_alone_share_a_note() -> None:
    for action in ("order.7.line12", "order.4711.line3"):
        assert classify(structured(action)) == SyncOnly(("unknown_action:order.#.line#",))


def test_a_long_unknown_action_is_cut_in_its_note() -> None:
    assert classify(structured("x" * 65)) == SyncOnly(("unknown_action:" + "x" * 64,))


ENTRIES_OF_A_CUSTOMER = [structured("order.paid"), legacy("Order completed"), structured("order.closed")]


@pytest.mark.parametrize("row", ENTRIES_OF_A_CUSTOMER)
def test_a_customer_of_another_site_is_a_dead_letter_before_anything_else(row: Entry) -> None:
    stranger = customer(site_id=2, erased=True, is_test=True, email=None)
    assert classify(msgspec.structs.replace(row, customer=stranger)) == Reject(Reason.WRONG_SITE)


@pytest.mark.parametrize("row", ENTRIES_OF_A_CUSTOMER)
def test_an_entry_of_an_erased_customer_is_skipped(row: Entry) -> None:
    deleted = customer(erased=True, is_test=True, email=None)
    assert classify(msgspec.structs.replace(row, customer=deleted)) == Noise(Reason.ERASED)
    assert classify(msgspec.structs.replace(row, customer=None)) == Noise(Reason.ERASED)


@pytest.mark.parametrize("row", ENTRIES_OF_A_CUSTOMER)
def test_a_test_account_is_skipped_even_without_an_address(row: Entry) -> None:
    tester = customer(is_test=True, email=None)
    assert classify(msgspec.structs.replace(row, customer=tester)) == Noise(Reason.TEST)


@pytest.mark.parametrize("row", ENTRIES_OF_A_CUSTOMER)
def test_a_customer_without_a_usable_address_is_a_dead_letter(row: Entry) -> None:
    assert classify(msgspec.structs.replace(row, customer=customer(email=None))) == Reject(Reason.NO_EMAIL)


@pytest.mark.parametrize(("line", "action"), ACTIONS)
def test_an_event_without_a_customer_is_dead_unless_a_visitor_can_cause_it(line: int, action: str) -> None:
    row = structured(action, customer=None, customer_id=None)
    number = next(line.number for line in CATALOG.events if action in line.actions)
    assert classify(row) == (
        Noise(Reason.NO_ACCOUNT) if number in {3, 20, 40} else Reject(Reason.NO_CUSTOMER)
    )
    visitors = msgspec.structs.replace(row, actor_type="visitor")
    assert classify(visitors) == Noise(Reason.NO_ACCOUNT)


@pytest.mark.parametrize("staff", [{"actor_type": "admin"}, {"admin_user": "wayne"}])
@pytest.mark.parametrize(("line", "action"), ACTIONS)
def test_staff_acting_for_a_customer_are_named_and_their_log_ins_skipped(
    line: int, action: str, staff: dict[str, str]
) -> None:
    classification = classify(structured(action, **staff))
    if line in {3, 4, 5, 6, 7}:
        assert classification == Noise(Reason.STAFF_LOGIN)
    else:
        assert classification == Event(LINES[line], f"by=admin; {TAIL}")


def test_staff_are_named_on_legacy_rows_too() -> None:
    assert classify(legacy("Ann Lee logged in", admin_user="wayne")) == Noise(Reason.STAFF_LOGIN)
    assert event(legacy("Reset schedule", admin_user="wayne")).eventdata == f"by=admin; {TAIL}"


def test_a_blank_admin_user_is_not_staff() -> None:
    assert event(structured("logout", admin_user="")).eventdata == TAIL


def test_a_staff_log_in_comes_before_a_missing_address() -> None:
    row = structured("login.password", actor_type="admin", customer=customer(email=None))
    assert classify(row) == Noise(Reason.STAFF_LOGIN)


def test_events_before_the_date_asked_for_are_skipped_and_syncs_are_not() -> None:
    since = MOMENT + timedelta(microseconds=1)
    assert classify(structured("order.paid"), since) == Noise(Reason.BEFORE_EVENTS_SINCE)
    assert classify(structured("order.closed"), since) == SyncOnly()
    assert isinstance(classify(structured("order.paid"), MOMENT), Event)
    assert classify(structured("order.paid", customer=customer(email=None)), since) == Reject(Reason.NO_EMAIL)


@pytest.mark.parametrize(
    ("action", "data", "by"),
    [
        ("customer.cancel", {"by": "customer"}, "customer"),
        ("customer.cancel", {"by": "spouse"}, "spouse"),
        ("customer.cancel", {}, "customer"),
        ("customer.cancel", {"by": " "}, "customer"),
        ("customer.cancel", None, "customer"),
        ("admin.customer.cancel", {"by": "wayne"}, "wayne"),
        ("admin.customer.cancel", {}, "admin"),
        ("customer.cancel.auto", {"by": "admin"}, "auto"),
        ("customer.cancel.auto", None, "auto"),
    ],
)
def test_a_cancellation_says_by_whom(action: str, data: object, by: str) -> None:
    assert event(structured(action, data, actor_type="system")) == Event(
        event(structured(action)).event_line, f"by={by}; {TAIL}"
    )


@pytest.mark.parametrize("own", [["wayne"], {"name": "wayne"}, True, "w" * 33])
def test_an_unusable_word_for_who_cancelled_is_counted_and_replaced(own: object) -> None:
    classification = event(structured("customer.cancel", {"by": own}))
    assert (classification.eventdata, classification.notes) == (f"by=customer; {TAIL}", ("bad_data",))


def test_other_events_say_who_acted_only_if_staff_did() -> None:
    assert event(structured("order.paid", {"by": "wayne"})).eventdata == TAIL


def test_a_legacy_cancellation_says_by_whom_only_when_the_text_does() -> None:
    assert event(legacy("Customer cancelled: by far too expensive")).eventdata == TAIL
    assert event(legacy("Ann Lee cancelled her account by mistake")).eventdata == TAIL
    assert event(legacy("Customer cancelled by wayne: moved away")).eventdata == f"by=admin; {TAIL}"


def test_legacy_rows_carry_no_domain_pairs_whatever_their_data_holds() -> None:
    classification = event(
        legacy("Order completed: #184201 $42.50", data={"order_id": 184201, "total_cents": "x"})
    )
    assert classification == Event(LINES[41], TAIL)


def at_of(row: Entry) -> tuple[str, tuple[str, ...]]:
    classification = event(row)
    return classification.eventdata.split("; ")[-2], classification.notes


LATER = timedelta(minutes=5)
FIRST, LAST = datetime.min, datetime.max  # noqa: DTZ901  so asyncpg reads infinity: without a zone


@pytest.mark.parametrize(
    ("occurred", "inserted", "at", "notes"),
    [
        (MOMENT, MOMENT + LATER * 9, "2018-11-23T19:25:30Z", ()),
        (MOMENT + LATER, MOMENT, "2018-11-23T19:30:30Z", ()),
        (MOMENT + LATER + timedelta(microseconds=1), MOMENT, "2018-11-23T19:25:30Z", ("clock",)),
        (SITE.launched_at, MOMENT, "2017-12-01T06:00:00Z", ()),
        (SITE.launched_at - timedelta(seconds=1), MOMENT, "2018-11-23T19:25:30Z", ("clock",)),
        (MOMENT.astimezone(timezone(-timedelta(hours=6))), MOMENT, "2018-11-23T19:25:30Z", ()),
        (LAST, MOMENT, "2018-11-23T19:25:30Z", ("clock",)),
        (FIRST, MOMENT, "2018-11-23T19:25:30Z", ("clock",)),
        (FIRST, FIRST, "0001-01-01T00:00:00Z", ("clock",)),
        (LAST, LAST, "9999-12-31T23:59:59Z", ()),
    ],
)
def test_an_event_says_when_it_happened_in_whole_seconds_utc(
    occurred: datetime, inserted: datetime, at: str, notes: tuple[str, ...]
) -> None:
    row = structured("logout", occurred_at=occurred, inserted_at=inserted)
    assert at_of(row) == (f"at={at}", notes)


@pytest.mark.parametrize("extreme", [FIRST, LAST])
@pytest.mark.parametrize("hours", [-14, 14])
def test_the_first_and_the_last_moment_there_is_can_be_in_any_zone(extreme: datetime, hours: int) -> None:
    moment = extreme.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert isinstance(
        classify(structured("logout", occurred_at=moment, inserted_at=moment), MOMENT), Event | Noise
    )


@pytest.mark.parametrize(
    ("sent_at", "age"),
    [
        ("2018-11-23T19:25:30Z", "0"),
        ("2018-11-23T19:24:31Z", "0"),
        ("2018-11-23T19:24:30Z", "1"),
        ("2018-11-23T13:24:30-06:00", "1"),
        ("2018-11-23T19:26:10Z", "0"),  # a web node's clock is 40 s off
        ("2018-11-23T19:24:30.5Z", "0"),
    ],
)
def test_the_age_of_a_link_is_in_whole_minutes(sent_at: str, age: str) -> None:
    classification = event(structured("login.magic_link.expired", {"sent_at": sent_at}))
    assert classification == Event(LINES[3], f"age_min={age}; {TAIL}")


@pytest.mark.parametrize(
    ("cents", "total"), [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (-4250, "-42.50"), (10**6, "10000.00")]
)
def test_money_is_written_with_two_decimals(cents: int, total: str) -> None:
    assert event(structured("order.paid", {"total_cents": cents})).eventdata == f"total={total}; {TAIL}"


@pytest.mark.parametrize(
    ("action", "data"),
    [
        ("order.paid", {"order_id": "12a"}),
        ("order.paid", {"order_id": True}),
        ("order.paid", {"order_id": [184201]}),
        ("order.paid", {"total_cents": "4250"}),
        ("order.paid", {"total_cents": 42.5}),
        ("order.paid", {"total_cents": True}),
        ("order.paid", '{"total_cents": 1e999}'),
        ("order.sub", {"removed": "Kale"}),
        ("order.sub", {"removed": {"name": ["Kale"]}}),
        ("login.magic_link.expired", {"sent_at": "yesterday"}),
        ("login.magic_link.expired", {"sent_at": "2018-11-23T17:02:10"}),
        ("login.magic_link.expired", {"sent_at": 20181123}),
        ("birthday.add", {"date": "May 2"}),
        ("birthday.add", {"date": 19840502}),
        ("birthday.add", {"date": "1984-02-30"}),
        ("order.paid", "null"),
        ("order.paid", '"a string"'),
        ("order.paid", "[]"),
        ("order.paid", "{"),
        ("order.paid", '{"order_id": "\ud800"}'),
        ("order.paid", '{"x": ' + "[" * 100_000),
    ],
)
def test_data_of_the_wrong_type_is_left_out_and_counted(action: str, data: object) -> None:
    classification = event(structured(action, data))
    assert (classification.eventdata, classification.notes) == (TAIL, ("bad_data",))


@pytest.mark.parametrize(
    ("action", "data"),
    [
        ("order.paid", None),
        ("order.paid", {}),
        ("order.paid", {"order_id": None, "total_cents": None}),
        ("order.paid", {"order_id": " "}),
        ("order.sub", {"removed": None, "added": {}}),
        ("order.sub", {"removed": {"name": "\x00\n"}}),
        ("logout", "no JSON, and nothing wanted of it"),
    ],
)
def test_data_that_is_not_there_is_left_out_without_a_count(action: str, data: object) -> None:
    assert event(structured(action, data)) == Event(event(structured(action)).event_line, TAIL)


def test_the_good_part_of_bad_data_is_sent() -> None:
    data = '{"order_id": "12a", "total_cents": 4250, "unused": 1e999}'
    classification = event(structured("order.paid", data))
    assert (classification.eventdata, classification.notes) == (f"total=42.50; {TAIL}", ("bad_data",))


@pytest.mark.parametrize(
    ("number", "written"), [(184201, "184201"), ("184201", "184201"), (1.5, "1.5"), (-1, "-1")]
)
def test_a_number_may_come_as_text(number: object, written: str) -> None:
    assert event(structured("order.paid", {"order_id": number})).eventdata == f"order={written}; {TAIL}"


# The order it is about


@pytest.mark.parametrize("action", ["order.paid", "order.closed", "order.teleport"])
@pytest.mark.parametrize("number", [184201, "184201", " 184201\n", 2**63 - 1])
def test_a_structured_row_says_which_order_it_is_about(action: str, number: object) -> None:
    assert order_and_oddity(structured(action, {"order_id": number})) == (int(str(number)), False)


@pytest.mark.parametrize("action", ["order.paid", "order.closed", "order.teleport"])
@pytest.mark.parametrize(
    "data",
    [f'{{"order_id": {bad}}}' for bad in ('"12a"', "true", "1.5", "[7]", "{}", 2**63, "1e999", '"²"')]
    + ["[]", '"a string"', "{", '{"order_id": "\ud800"}'],
)
def test_an_order_that_is_no_whole_number_is_none_and_counted(action: str, data: str) -> None:
    assert order_and_oddity(structured(action, data)) == (None, True)


@pytest.mark.parametrize("action", ["order.paid", "order.closed", "order.teleport"])
@pytest.mark.parametrize("data", [None, {}, {"order_id": None}, {"order_id": " "}])
def test_a_row_need_not_be_about_an_order(action: str, data: object) -> None:
    assert order_and_oddity(structured(action, data)) == (None, False)


def test_legacy_text_names_no_order() -> None:
    assert event(legacy("Order skipped", data={"order_id": 184201})).order is None


def order_and_oddity(row: Entry) -> tuple[int | None, bool]:
    """Return the order of an entry's classification, and whether its data counts as bad."""
    classification = classify(row)
    assert isinstance(classification, Event | SyncOnly)
    return classification.order, "bad_data" in classification.notes


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("out of town; back soon", "out of town, back soon"),
        ("out\nof\r\ntown\u2028now", "out of town now"),
        (" \tout of\x00 town\x7f\x9b ", "out of town"),
        ("out\\u0000 of town", "out of town"),
        ("💚 José JosÃ© <b>\\o/</b>", "💚 José JosÃ© <b>\\o/</b>"),
        (7, "7"),
        (0.5, "0.5"),
    ],
)
def test_a_value_is_one_clean_line_that_cannot_be_taken_for_another_pair(
    reason: object, written: str
) -> None:
    assert event(structured("order.skip", {"reason": reason})).eventdata == f"reason={written}; {TAIL}"


def test_a_value_with_half_a_character_is_written_without_it() -> None:
    assert event(structured("order.skip", '{"reason": "a\\ud83db"}')).eventdata.isascii()


def test_a_pair_that_does_not_fit_is_left_out_whole_and_the_others_stay() -> None:
    data = {"order_id": 184201, "week_start": "w" * 300, "reason": "out of town"}
    classification = event(structured("order.skip", data))
    assert classification == Event(
        LINES[15], f"order=184201; reason=out of town; {TAIL}", ("cut",), OrderId(184201)
    )


def test_pairs_that_fit_one_by_one_but_not_together_are_kept_in_order_while_there_is_room() -> None:
    data = {"removed": {"name": "x" * 120}, "added": {"name": "y" * 120}, "order_id": 184201}
    classification = event(structured("order.sub", data))
    assert classification == Event(
        LINES[8], f"order=184201; out={'x' * 120}; {TAIL}", ("cut",), OrderId(184201)
    )


def test_the_actor_of_an_event_is_measured_in_bytes_too() -> None:
    data = {"reason": "x" * 180, "stop_date": "2018-11-30", "by": "é" * 16}
    classification = event(structured("customer.cancel", data))
    assert classification == Event(LINES[16], f"stop=2018-11-30; by={'é' * 16}; {TAIL}", ("cut",))


def test_250_bytes_fit_and_251_do_not() -> None:
    room = EVENTDATA_BYTES - len(f"reason=; {TAIL}")
    fits = event(structured("order.skip", {"reason": "é" * (room // 2) + "x" * (room % 2)}))
    assert (len(fits.eventdata.encode()), fits.notes) == (250, ())
    for reason in ("x" * (room + 1), "é" * (room // 2) + "xx"):
        over = event(structured("order.skip", {"reason": reason}))
        assert (over.eventdata, over.notes) == (TAIL, ("cut",))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300)
)
json_texts = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
).map(lambda value: msgspec.json.encode(msgspec.to_builtins(value)).decode("utf-8", "replace"))


def plausible_data(line: int) -> st.SearchStrategy[str]:
    """Data with the fields that a line reads, and anything in them."""
    fields = {pair.path.split(".")[0] for pair in LINES[line].eventdata}
    wide = scalars | st.fixed_dictionaries({"name": scalars, "zip": scalars})
    return st.fixed_dictionaries({}, optional=dict.fromkeys(fields, wide)).map(
        lambda data: msgspec.json.encode(data).decode()
    )


moments = st.datetimes() | st.datetimes(timezones=st.timezones()) | st.datetimes(timezones=st.just(UTC))
customers = st.builds(
    customer,
    site_id=st.sampled_from([1, 1, 1, 2]),
    email=st.sampled_from([ANN.email, ANN.email, None]),
    name=st.just("Ann Lee") | st.text(),
    is_test=st.sampled_from([False, False, True]),
    erased=st.sampled_from([False, False, True]),
)
messages = st.builds(
    str.__add__,
    st.sampled_from(["", "Ann Lee ", "Customer #5123 (Ann Lee) "]) | st.text(),
    st.sampled_from([text for _, text in LEGACY_TEXTS]) | st.text(),
)
actions = st.none() | st.sampled_from([action for _, action in ACTIONS]) | st.text()
rows = st.builds(
    Entry,
    position=st.builds(Position, st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1)),
    occurred_at=moments,
    inserted_at=moments,
    action=actions,
    actor_type=st.none() | st.sampled_from(["customer", "admin", "system", "visitor"]) | st.text(),
    admin_user=st.none() | st.text(),
    message=messages,
    data=st.none() | st.text() | json_texts,
    customer_id=st.none() | st.integers(0, 2**63 - 1).map(CustomerId),
    customer=st.none() | customers,
)
TAIL_PATTERN = re.compile(r"(?:.*; )?(?:by=[^;]+; )?at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ; log=\d+")


@given(rows, st.none() | moments.filter(lambda moment: moment.tzinfo is not None))
def test_every_entry_gets_one_classification(row: Entry, events_since: datetime | None) -> None:
    classification = classify(row, events_since)
    assert isinstance(classification, Event | SyncOnly | Noise | Reject)
    assert classify(row, events_since) == classification


@given(st.data(), st.sampled_from(ACTIONS), st.sampled_from(["customer", "admin"]), moments)
def test_eventdata_never_has_more_than_250_bytes_and_never_loses_its_tail(
    data: st.DataObject, of: tuple[int, str], actor: str, moment: datetime
) -> None:
    line, action = of
    text = data.draw(plausible_data(line) | json_texts)
    row = structured(action, text, actor_type=actor, occurred_at=moment, inserted_at=moment)
    classification = classify(row)
    if isinstance(classification, Event):
        assert len(classification.eventdata.encode()) <= 250
        assert TAIL_PATTERN.fullmatch(classification.eventdata)
        assert classification.eventdata.endswith(f"; log={LOG_ID}")
        assert ("by=admin; at=" in classification.eventdata) == (actor == "admin") or line in {16, 35}
    else:
        assert classification == Noise(Reason.STAFF_LOGIN)


def test_the_event_lines_of_log_ins_and_visitors_have_their_slugs() -> None:
    assert {LINES[number].slug for number in LOG_IN_LINES} == {
        "magic_link_expired", "login", "login_cookie", "login_magic_link", "logout",
    }  # fmt: skip
    assert {LINES[number].slug for number in VISITOR_LINES} == {
        "magic_link_expired", "contact_form", "gift_box_purchased",
    }  # fmt: skip


def test_a_customer_of_the_site_is_what_the_tests_above_start_from() -> None:
    assert (ANN.site_id, ANN.email) == (SITE.id, Email("ann@example.com"))


@pytest.mark.parametrize(
    "pattern", ["[Oo]rder skipped", "o?rder skipped", r"\border skipped", "o|order skipped"]
)
def test_a_pattern_whose_first_letter_is_not_plain_is_refused(
    monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    odd = msgspec.structs.replace(CATALOG.events[0], legacy=(pattern,))
    monkeypatch.setattr(matching, "CATALOG", msgspec.structs.replace(CATALOG, events=(odd,)))
    with pytest.raises(ValueError, match="cannot tell with which letter"):
        matching._by_letter()
