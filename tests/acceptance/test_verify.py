"""`verify` as a user runs it: nothing to find after a backfill, every planted gap found, some closed.

The tests of this module are one story, told in their order: one shop, one account, the gaps planted once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from tests.acceptance.stages import PATIENCE_S, SITE_ID, Stage, until
from tests.support.postgres import connected

QUICK = {
    "KIVA_STREAM__SOURCE__POLL_INTERVAL_S": "0.2",
    "KIVA_STREAM__SOURCE__DELAY_S": "0",
    "KIVA_STREAM__ACTIVECAMPAIGN__ORDER_SETTLE_S": "0.1",
    "KIVA_STREAM__ACTIVECAMPAIGN__LOOKUP_SETTLE_S": "0.1",
}
ALL = ("--sample", "10000")
WEEK_TAGS = {"open order", "closed order", "no order"}
OF_EVENTS = {"no event", "not listed", "repeated", "out of order", "unexpected"}

Gaps = set[tuple[str, str | None]]  # kinds, each with the id of its contact, or of its customer


class Answer(NamedTuple):
    """What `verify --json` said, and its exit code."""

    code: int
    report: dict[str, Any]

    def found(self, what: str = "gaps") -> Gaps:
        """Return the gaps that are left, or those that were closed."""
        return {(gap["kind"], gap["ac_contact_id"] or gap["customer"]) for gap in self.report[what]}


def verify(stage: Stage, *arguments: str) -> Answer:
    ended = stage.ended("verify", *arguments, "--json", **QUICK)
    assert ended.out, ended.err
    return Answer(ended.code, msgspec.json.decode(ended.out))


@pytest.fixture(scope="module")
def stage(shared: Stage) -> Stage:
    shared.run("backfill", "--since", "day1", "--yes")
    return shared


# --- the account, as somebody may have changed it -------------------------------------------------------


async def call(stage: Stage, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  any JSON
    account = stage.activecampaign
    headers = {"Api-Token": account.accounts[0].api_token}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{account.api_url}/api/3{path}", json=body) as reply,
    ):
        reply.raise_for_status()
        return await reply.json()


async def post_event(stage: Stage, email: str, name: str, eventdata: str) -> None:
    keys = stage.activecampaign.accounts[0]
    visit = msgspec.json.encode({"email": email}).decode()
    form = {"actid": keys.event_actid, "key": keys.event_key, "event": name, "eventdata": eventdata}
    async with (
        aiohttp.ClientSession() as session,
        session.post(stage.activecampaign.event_url, data={**form, "visit": visit}) as reply,
    ):
        assert (await reply.json())["success"] == 1


async def numbers(stage: Stage, path: str, rows: str, name: str) -> dict[str, int]:
    """Return the ids of a listing by a name of its rows."""
    listing = await call(stage, "GET", f"{path}?limit=100")
    return {row[name]: int(row["id"]) for row in listing[rows]}


class Choice:
    """Contacts to plant gaps on, each once: those of one customer who has orders and events."""

    def __init__(self, contacts: Iterable[dict[str, Any]], events: Iterable[dict[str, Any]]) -> None:
        self._contacts = [each for each in contacts if len(each["order_customers"]) == 1]
        self._events: dict[int, list[dict[str, Any]]] = {}
        for event in events:
            self._events.setdefault(event["contact_id"], []).append(event)

    def take(self, *, is_subscribed: bool = True) -> dict[str, Any]:
        """Take a contact that has at least five events."""
        place = next(
            place
            for place, each in enumerate(self._contacts)
            if each["events"] >= 5 and (each["lists"]["all customers"] == 1) is is_subscribed
        )
        return self._contacts.pop(place)

    def events(self, contact: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events of a contact, in the order of arrival."""
        return self._events[contact["id"]]


async def rows(stage: Stage, what: str) -> list[dict[str, Any]]:
    return [row async for row in stage.activecampaign.rows(what)]


async def orders_of(stage: Stage, contact: dict[str, Any]) -> list[dict[str, Any]]:
    return [order for order in await rows(stage, "orders") if order["contact_email"] == contact["email"]]


async def plant(stage: Stage) -> Gaps:
    """Plant a gap of each kind; return them."""
    choice = Choice(await rows(stage, "contacts"), await rows(stage, "events"))
    fields, tags = (
        await numbers(stage, "/fields", "fields", "title"),
        await numbers(stage, "/tags", "tags", "tag"),
    )
    (list_id,) = (await numbers(stage, "/lists", "lists", "name")).values()
    planted: Gaps = set()

    gone = choice.take()
    await call(stage, "DELETE", f"/contacts/{gone['id']}")
    planted.add(("no contact", str(gone["id"])))

    renamed = choice.take()
    body = {"contact": {"email": "somebody.else@example.com"}}
    await call(stage, "PUT", f"/contacts/{renamed['id']}", body)
    planted.add(("address", str(renamed["id"])))

    changed = choice.take()
    value = {"field": str(fields["Kiva Status"]), "value": "a status of another time"}
    await call(stage, "PUT", f"/contacts/{changed['id']}", {"contact": {"fieldValues": [value]}})
    planted.add(("fields", str(changed["id"])))

    opted_out = choice.take(is_subscribed=False)
    place = {"list": list_id, "contact": opted_out["id"], "status": 1}
    await call(stage, "POST", "/contactLists", {"contactList": place})
    planted.add(("list", str(opted_out["id"])))

    untagged = choice.take()
    links = (await call(stage, "GET", f"/contacts/{untagged['id']}/contactTags"))["contactTags"]
    for link in links:
        await call(stage, "DELETE", f"/contactTags/{link['id']}")
    planted.add(("tag", str(untagged["id"])))

    twice_tagged = choice.take()
    other = next(tag for tag in WEEK_TAGS if tag not in twice_tagged["tags"])
    link = {"contact": twice_tagged["id"], "tag": tags[other]}
    await call(stage, "POST", "/contactTags", {"contactTag": link})
    planted.add(("tag", str(twice_tagged["id"])))

    without_order = choice.take()
    lost = (await orders_of(stage, without_order))[0]["storeOrderId"]
    await stage.activecampaign.lose(orders=[lost])
    planted.add(("no order", str(without_order["id"])))

    with_wrong_order = choice.take()
    order = (await orders_of(stage, with_wrong_order))[0]
    kept = ("storeOrderId", "legacyConnectionId", "storeCreatedDate", "email", "creationSource")
    wrong = {name: order[name] for name in (*kept, "orderNumber", "currency")} | {"finalAmount": 0.01}
    query = "mutation M($order: OrderInput) { upsertOrder(order: $order) { id } }"
    await call(stage, "POST", "/ecom/graphql", {"query": query, "variables": {"order": wrong}})
    planted.add(("order", str(with_wrong_order["id"])))

    without_event = choice.take()
    await stage.activecampaign.lose(events=[choice.events(without_event)[2]["seq"]])
    planted.add(("no event", str(without_event["id"])))

    without_first = choice.take()
    await stage.activecampaign.lose(events=[choice.events(without_first)[0]["seq"]])
    planted.add(("not listed", str(without_first["id"])))

    doubled = choice.take()
    event = choice.events(doubled)[1]
    await post_event(stage, doubled["email"], event["name"], event["eventdata"])
    planted.add(("repeated", str(doubled["id"])))

    late = choice.take()
    event = choice.events(late)[1]
    await stage.activecampaign.lose(events=[event["seq"]])
    await post_event(stage, late["email"], event["name"], event["eventdata"])
    planted.add(("out of order", str(late["id"])))

    with_another = choice.take()
    name = choice.events(with_another)[0]["name"]
    await post_event(stage, with_another["email"], name, "at=2018-03-04T17:02:10Z; log=999999999")
    planted.add(("unexpected", str(with_another["id"])))

    unlinked = choice.take()
    (customer,) = unlinked["order_customers"]
    async with connected(stage.dsn) as connection:
        await connection.execute("DELETE FROM kiva_stream.customer WHERE customer_id = $1", int(customer))
    planted |= {("no link", customer), ("no customer", str(unlinked["id"]))}

    unknown = choice.take()
    async with connected(stage.dsn) as connection:
        await connection.execute(
            "UPDATE kiva_stream.contact SET ac_id = NULL WHERE ac_id = $1", unknown["id"]
        )
    planted.add(("contact id", str(unknown["id"])))
    return planted


def of_events(gaps: Gaps) -> Gaps:
    return {gap for gap in gaps if gap[0] in OF_EVENTS}


async def by_id(stage: Stage) -> dict[int, dict[str, Any]]:
    return {contact["id"]: contact for contact in await rows(stage, "contacts")}


def is_on_list(contact: dict[str, Any]) -> bool:
    return bool(contact["lists"].get("all customers") == 1)


# --- the story ------------------------------------------------------------------------------------------


class Story(msgspec.Struct):
    """The gaps that are there at this point of it."""

    gaps: Gaps = set()


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


async def test_verify_finds_nothing_after_a_backfill_and_leaves_no_trace(stage: Stage) -> None:
    before = await stage.activecampaign.state()
    answer = verify(stage, *ALL)
    assert (answer.code, answer.report["gaps"]) == (0, [])
    assert answer.report["contacts"] == answer.report["contacts_total"] == stage.generated.contacts
    assert not answer.report["is_sample"]
    after = await stage.activecampaign.state()
    assert (after["changing_requests"], after["breaches"]) == (before["changing_requests"], {})
    assert after["events"] == before["events"]


async def test_verify_finds_each_planted_discrepancy_and_nothing_else(stage: Stage, story: Story) -> None:
    story.gaps = await plant(stage)
    assert len({kind for kind, _ in story.gaps}) > 10
    answer = verify(stage, *ALL)
    assert (answer.code, answer.found()) == (7, story.gaps)
    assert not [gap for gap in answer.report["gaps"] if "@" in gap["what"]]


async def test_a_repair_corrects_contacts_tags_and_orders_and_subscribes_no_contact(
    stage: Stage, story: Story
) -> None:
    before, was_there = await stage.activecampaign.state(), await by_id(stage)
    answer = verify(stage, *ALL, "--repair")
    now, after = await by_id(stage), await stage.activecampaign.state()
    (anew,) = now.keys() - was_there.keys()  # the one that was deleted, and its events with it
    assert answer.found("closed") == story.gaps - of_events(story.gaps)
    story.gaps = of_events(story.gaps) | {("not listed", str(anew))}
    assert (answer.code, answer.found()) == (7, story.gaps)
    assert now[anew]["lists"] == {}
    assert {number for number in now if is_on_list(now[number])} < {
        number for number in was_there if is_on_list(was_there[number])
    }
    assert (after["resubscribed"], after["events"]) == (before["resubscribed"], before["events"])
    comparison = await stage.compare()
    assert (comparison.orders_lost, comparison.orders_changed, comparison.tags_wrong) == (0, 0, 0)
    assert (comparison.contacts_wrong, comparison.contacts_unexpected) == (1, 0)  # the one not on the list


async def test_missing_events_are_sent_only_when_asked_for_each_once_and_kept_in_the_ledger(
    stage: Stage, story: Story
) -> None:
    missing = {gap for gap in story.gaps if gap[0] == "no event"}
    before = (await stage.activecampaign.state())["events"]
    answer = verify(stage, *ALL, "--repair", "--events")
    story.gaps -= missing
    assert (answer.code, answer.found("closed"), answer.found()) == (7, missing, story.gaps)
    assert (await stage.activecampaign.state())["events"] == before + len(missing)
    async with connected(stage.dsn) as connection:
        assert await connection.fetchval("SELECT count(*) FROM kiva_stream.ledger WHERE attempts = 2") == 1


async def test_verify_beside_a_running_process_compares_and_repairs_nothing(
    stage: Stage, story: Story
) -> None:
    async def is_following() -> bool:
        return bool(stage.status()["phase"] == "follow")

    with stage.start("follow", **QUICK) as process:
        await until(is_following)
        assert verify(stage, *ALL).found() == story.gaps  # and what was sent late is not out of order
        assert "held" in stage.run("verify", "--repair", code=6)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


async def test_one_customer_is_compared_alone_and_repaired_alone(stage: Stage, story: Story) -> None:
    wrong = {contact for _, contact in story.gaps}
    contact, customer = next(
        (contact["id"], contact["order_customers"][0])
        for contact in (await by_id(stage)).values()
        if len(contact["order_customers"]) == 1 and str(contact["id"]) not in wrong
    )
    alone = verify(stage, "--customer", customer)
    assert (alone.code, alone.report["contacts"], alone.report["is_sample"]) == (0, 1, False)
    async with connected(stage.dsn) as connection:
        await connection.execute(
            "UPDATE kiva.customers SET email = 'moved@example.org' WHERE id = $1", int(customer)
        )
    alone = verify(stage, "--customer", customer, "--repair")
    assert (alone.code, alone.found("closed")) == (0, {("moved", str(contact))})
    assert (await by_id(stage))[contact]["email"] == "moved@example.org"
    assert "nothing to look at" in stage.run("verify", "--customer", "987654321", code=2)
    assert "--repair" in stage.run("verify", "--events", code=2)


async def test_a_sample_is_reported_as_one_and_finds_an_entry_without_an_outcome_all_the_same(
    stage: Stage,
) -> None:
    async with connected(stage.dsn) as connection:
        await connection.execute(
            "INSERT INTO kiva.system_log (site_id, txid, occurred_at, inserted_at, action, message) "
            "SELECT site_id, txid, occurred_at, inserted_at, action, message FROM kiva.system_log "
            "WHERE site_id = $1 AND customer_id IS NULL ORDER BY txid LIMIT 1",
            SITE_ID,
        )
    with stage.start("verify", KIVA_STREAM__VERIFY__SAMPLE="4", **QUICK) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 7
    assert "gap: outcome  1 entries at or below the watermark" in said
    assert "4 contacts were looked at, a sample of " in said
