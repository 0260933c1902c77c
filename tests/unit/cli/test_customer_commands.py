"""`sync` and `forget` on the command line."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace

from kiva_stream.commands import forget as erasures
from kiva_stream.commands import sync_customer as sync_command
from kiva_stream.commands.forget import Receipt
from kiva_stream.commands.sync_customer import CustomerSyncReport
from kiva_stream.model.ids import CustomerId
from kiva_stream.settings.sections import Settings
from tests.unit.cli.command_line import MOMENT, Result, Run, words

REPORT = CustomerSyncReport(
    customer="1001",
    contact="linked",
    why="",
    sent=True,
    ac_contact_id=17,
    url="https://account.activehosted.com/app/contacts/17",
    fields={"Kiva Status": "active", "Kiva Cancel Date": ""},
    list_status="subscribed",
    tag="open order",
    orders={"sent": 33, "refused": 1},
    refusals={"4711": "422 finalAmount"},
    requests={"POST /ecom/graphql": 1},
)


class FakeSync:
    """Stands for the sync of a customer: notes which one, and returns `answer`."""

    def __init__(self) -> None:
        self.customers: list[CustomerId] = []
        self.answer = REPORT

    async def sync(self, _: Settings, customer: CustomerId) -> CustomerSyncReport:
        self.customers.append(customer)
        return self.answer


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> FakeSync:
    fake = FakeSync()
    monkeypatch.setattr(sync_command, "sync_customer", fake.sync)
    return fake


def test_sync_needs_a_customer(run: Run) -> None:
    result = run("sync")
    assert (result.code, result.out) == (2, "")
    assert "Missing option '--customer'" in result.err


@pytest.mark.parametrize(("text", "customer"), [("1", 1), ("1001", 1001), (str(2**63 - 1), 2**63 - 1)])
def test_sync_is_of_the_customer_that_was_named(
    run: Run, synced: FakeSync, text: str, customer: CustomerId
) -> None:
    assert run("sync", "--customer", text).code == 0
    assert synced.customers == [customer]


def test_sync_shows_what_became_of_the_customer(run: Run, synced: FakeSync) -> None:
    result = run("sync", "--customer", "1001")
    assert (result.code, result.err) == (0, "")
    assert [words(line) for line in result.out.splitlines()] == [
        "customer 1001",
        "contact sent, contact 17 at ActiveCampaign",
        "at https://account.activehosted.com/app/contacts/17",
        "Kiva Status active",
        "Kiva Cancel Date (empty)",
        "all customers subscribed",
        "week tag open order",
        "orders 33 sent, 1 refused",
        "order 4711 refused 422 finalAmount",
        "",
        "Requests",
        "POST /ecom/graphql 1",
    ]


def test_sync_of_a_contact_in_step_says_unchanged(run: Run, synced: FakeSync) -> None:
    synced.answer = replace(REPORT, sent=False, orders={"unchanged": 33}, refusals={}, tag=None, requests={})
    text = words(run("sync", "--customer", "1001").out)
    assert "contact unchanged, contact 17 at ActiveCampaign" in text
    assert text.endswith("week tag not known orders 33 unchanged")


def test_sync_of_a_customer_without_paid_orders_says_none(run: Run, synced: FakeSync) -> None:
    synced.answer = replace(REPORT, orders={}, refusals={})
    assert "orders none that is paid" in words(run("sync", "--customer", "1001").out)


@pytest.mark.parametrize(("why", "said"), [("ac_rejected", "rejected: ac_rejected"), ("", "rejected")])
def test_sync_of_a_contact_that_is_refused_says_why(run: Run, synced: FakeSync, why: str, said: str) -> None:
    synced.answer = replace(
        REPORT, contact="rejected", why=why, ac_contact_id=None, url=None, fields={}, list_status="", tag=None
    )
    result = run("sync", "--customer", "1001")
    assert result.code == 0
    assert [words(line) for line in result.out.splitlines()][1:3] == [f"contact {said}", "week tag not known"]


def test_sync_as_json_is_one_object(run: Run, synced: FakeSync) -> None:
    assert json.loads(run("sync", "--customer", "1001", "--json").out) == msgspec.to_builtins(REPORT)


RECEIPT = Receipt("1001", MOMENT, "deleted", is_address_barred=True, deleted={"orders at ActiveCampaign": 33})


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[CustomerId]:
    """Stand for the erasure of a customer; return the list of those erased."""
    customers: list[CustomerId] = []

    async def forget(_: Settings, customer: CustomerId) -> Receipt:
        customers.append(customer)
        return RECEIPT

    monkeypatch.setattr(erasures, "forget", forget)
    return customers


def test_forget_shows_a_receipt(run: Run, forgotten: list[CustomerId]) -> None:
    result = run("forget", "--customer", "1001")
    assert (result.code, forgotten) == (0, [1001])
    assert [words(line) for line in result.out.splitlines()] == [
        "customer 1001",
        "forgotten at 2018-03-04 17:02:10+00:00",
        "contact deleted",
        "address barred",
        "",
        "Deleted",
        "orders at ActiveCampaign 33",
    ]


def test_on_a_terminal_forget_asks_first(
    run: Run, forgotten: list[CustomerId], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda _: next(replies))
    assert run("forget", "--customer", "1001", on_terminal=True) == Result(0, "", "")
    assert forgotten == []
    assert "deleted" in run("forget", "--customer", "1001", on_terminal=True).out
    assert forgotten == [1001]
