from __future__ import annotations

from collections import Counter

import pytest

from kiva_stream.sandbox.generator.expected_contacts import expected_contacts
from kiva_stream.sandbox.generator.history import START, History
from kiva_stream.sandbox.generator.population import Address, CustomerAccount
from kiva_stream.sandbox.generator.shop import SITES, Shop


@pytest.fixture(scope="module")
def shop() -> Shop:
    return at_the_end_of_the_year(History(250_000, seed=2))


def at_the_end_of_the_year(history: History) -> Shop:
    for week in history.weeks():
        for _ in week:
            pass
        list(history.finished_orders())
    return history.members[0].shop


def test_customers_have_anomalies_at_their_shares(shop: Shop) -> None:
    customers = shop.population.customers
    assert len(customers) == pytest.approx(2_200, rel=0.02)
    anomalies = Counter(customer.anomaly for customer in customers)
    for anomaly, share in {
        "missing": 0.004,
        "invalid": 0.003,
        "shared": 0.012,
        "erased": 0.003,
        "test": 0.002,
    }.items():
        assert anomalies[anomaly] / len(customers) == pytest.approx(share, abs=0.0008), anomaly
    assert anomalies["deleted"]
    assert anomalies["blacklisted"]


def test_the_statuses_at_the_end_of_the_year_have_their_shares(shop: Shop) -> None:
    customers = shop.population.customers
    regular = [customer for customer in customers if customer.account_type not in {"promo", "gift_purchaser"}]
    statuses = Counter(customer.status for customer in customers if customer.account_type != "gift_purchaser")
    assert statuses["active"] / len(customers) == pytest.approx(10_000 / 22_000, rel=0.1)
    assert statuses["cancelled"] / len(customers) == pytest.approx(5_250 / 22_000, rel=0.1)
    assert statuses["paused"] / len(customers) == pytest.approx(700 / 22_000, rel=0.3)
    assert statuses["dead"] / len(customers) == pytest.approx(1_500 / 22_000, rel=0.2)
    pending = sum(customer.status == "pending" for customer in regular)
    assert pending / len(customers) == pytest.approx(200 / 22_000, rel=0.6)


@pytest.fixture(scope="module")
def subscribers(shop: Shop) -> list[CustomerAccount]:
    """The customers with a subscription at the end of the years of two shops: 2 points are 2.4 sigmas."""
    shops = [shop, at_the_end_of_the_year(History(250_000, seed=3))]
    return [customer for shop in shops for customer in shop.population.customers if customer.box]


def test_a_year_of_changes_leaves_the_frequencies_in_their_shares(subscribers: list[CustomerAccount]) -> None:
    counts = Counter(customer.frequency for customer in subscribers)
    for frequency, percent in {1: 46, 2: 44, 3: 3, 4: 7}.items():
        assert 100 * counts[frequency] / len(subscribers) == pytest.approx(percent, abs=2), frequency


def test_a_year_of_changes_leaves_the_boxes_in_their_shares(subscribers: list[CustomerAccount]) -> None:
    counts = Counter(customer.box.code for customer in subscribers if customer.box)
    for code, percent in {"small": 34, "medium": 41, "large": 18, "fruit": 7}.items():
        assert 100 * counts[code] / len(subscribers) == pytest.approx(percent, abs=2), code


def test_addresses_that_share_a_contact_are_those_of_shared_or_changed_addresses(shop: Shop) -> None:
    by_key: dict[str, list[CustomerAccount]] = {}
    for customer in shop.population.customers:
        if customer.address.key:
            by_key.setdefault(customer.address.key, []).append(customer)
    shared = [customers for customers in by_key.values() if len(customers) > 1]
    assert shared
    for customers in shared:
        assert sum(customer.plain for customer in customers) == 1
        assert all(
            customer.anomaly == "shared" or customer.changes_address
            for customer in customers
            if not customer.plain
        )


def test_only_customers_with_a_usable_address_that_are_neither_test_nor_erased_have_a_contact(
    shop: Shop,
) -> None:
    wanted = {
        customer.address.key
        for customer in shop.population.customers
        if customer.address.key and customer.anomaly not in {"test", "erased", "deleted"}
    }
    assert {contact.email for contact in expected_contacts(shop)} == wanted


def two_customers(**changes: object) -> tuple[Shop, CustomerAccount, CustomerAccount]:
    small = Shop(SITES[0], entries=0, seed=1, start=START, other=SITES[1])
    first, second = small.population.customers[:2]
    del small.population.customers[2:]
    first.address = second.address = Address("ann@example.com", "ann@example.com")
    first.opt_in = second.opt_in = True
    for name, value in changes.items():
        setattr(second, name, value)
    return small, first, second


def test_the_customer_with_the_best_status_gives_the_contact_its_fields() -> None:
    small, first, second = two_customers(status="paused")
    first.status = "cancelled"
    [contact] = expected_contacts(small)
    assert contact.kiva_customer_id == str(second.id)
    assert contact.customer_ids == f"{first.id},{second.id}"
    assert contact.status == "paused"


def test_of_equal_statuses_the_newest_order_then_the_lower_id_wins() -> None:
    small, first, second = two_customers(newest_order_ms=5)
    assert [contact.kiva_customer_id for contact in expected_contacts(small)] == [str(second.id)]
    second.newest_order_ms = 0
    assert [contact.kiva_customer_id for contact in expected_contacts(small)] == [str(first.id)]


@pytest.mark.parametrize("refusal", [{"opt_in": False}, {"blacklisted": True}])
def test_one_refusal_of_a_linked_customer_unsubscribes_the_contact(refusal: dict[str, object]) -> None:
    small, _, second = two_customers()
    assert [contact.list_status for contact in expected_contacts(small)] == ["subscribe"]
    for name, value in refusal.items():
        setattr(second, name, value)
    assert [contact.list_status for contact in expected_contacts(small)] == ["unsubscribe"]
