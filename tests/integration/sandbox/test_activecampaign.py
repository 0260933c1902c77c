"""The sandbox over real HTTP: what only a network shows, and the control paths."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from kiva_stream.sandbox.activecampaign import Fault, FaultKind, Running, Sandbox, run
from tests.support.sandbox import SHOP, event_form, sandbox, shop

ANN = "ann@example.org"
NAMES = ("Customer cancelled",)
TRACKING = shop(tracking_enabled=True, event_names=NAMES, requests_per_second=0)
OTHER = msgspec.structs.replace(SHOP, name="other", api_token="other-token", event_actid="2")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Api-Token": SHOP.api_token}) as opened:
        yield opened


async def sync(session: aiohttp.ClientSession, running: Running, email: str = ANN) -> int:
    body = {"contact": {"email": email}}
    async with session.post(f"{running.api_url}/api/3/contact/sync", json=body) as response:
        return response.status


async def send(
    session: aiohttp.ClientSession, running: Running, email: str = ANN, **changes: str
) -> tuple[int, str]:
    form = event_form(email) | changes
    async with session.post(running.event_url, data=form) as response:
        return response.status, await response.text()


async def read(session: aiohttp.ClientSession, running: Running, path: str) -> str:
    async with session.get(f"{running.api_url}/_sandbox/{path}") as response:
        assert response.status == 200
        return await response.text()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  looked at from outside
            await asyncio.sleep(0.001)


async def control(
    session: aiohttp.ClientSession, running: Running, path: str, body: object
) -> tuple[int, Any]:
    async with session.post(f"{running.api_url}/_sandbox/{path}", json=body) as response:
        return response.status, await response.json()


async def test_an_event_travels_as_a_form_and_is_kept_with_its_contact(
    session: aiohttp.ClientSession,
) -> None:
    async with sandbox(TRACKING) as running:
        assert await sync(session, running) == 201
        answer = await send(session, running, eventdata="topic=Käse & Brot; fee=50%; log=1")

        assert answer == (200, '{"success":1,"message":"Event spawned"}')
        assert [event.eventdata for event in running.account("shop").events] == [
            "topic=Käse & Brot; fee=50%; log=1"
        ]


async def test_a_body_of_two_megabytes_is_refused_by_the_sandbox_not_by_aiohttp(
    session: aiohttp.ClientSession,
) -> None:
    async with sandbox(TRACKING) as running:
        body = json.dumps({"contacts": [{"email": ANN, "first_name": "x" * 2**21}]}).encode()
        url = f"{running.api_url}/api/3/import/bulk_import"
        headers = {"Content-Type": "application/json"}
        async with session.post(url, data=io.BytesIO(body), headers=headers) as response:
            assert response.status == 400
        assert running.account("shop").tally.breaches == {"schema": 1}


async def test_events_sent_one_after_another_are_kept_in_that_order_beside_others(
    session: aiohttp.ClientSession,
) -> None:
    async with sandbox(TRACKING, latency_ms=1, jitter_ms=3) as running:
        emails = [f"c{number}@example.org" for number in range(10)]

        async def history(email: str) -> None:
            await sync(session, running, email)
            for log in range(5):
                await send(session, running, email, eventdata=f"log={log}")

        await asyncio.gather(*(history(email) for email in emails))

        shop = running.account("shop")
        expected = [f"log={log}" for log in range(5)]
        assert all([event.eventdata for event in shop.events_of(email)] == expected for email in emails)
        assert [event.seq for event in shop.events] == list(range(1, 51))


async def test_a_throttled_client_gets_a_retry_after(session: aiohttp.ClientSession) -> None:
    async with sandbox(shop(requests_per_second=1, retry_after_s=30)) as running:
        await sync(session, running)
        async with session.get(f"{running.api_url}/api/3/contacts") as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "30"
            assert response.headers["RateLimit-Limit"] == "1"
            assert response.headers["RateLimit-Remaining"] == "0"


async def test_a_query_reaches_its_operation(session: aiohttp.ClientSession) -> None:
    async with sandbox(shop(requests_per_second=0)) as running:
        await sync(session, running, "ann+box@example.org")
        query = {"email": "ann+box@example.org", "orders[id]": "ASC"}
        async with session.get(f"{running.api_url}/api/3/contacts", params=query) as response:
            assert [row["id"] for row in (await response.json())["contacts"]] == ["1"]


async def test_a_request_without_a_token_is_forbidden() -> None:
    async with sandbox() as running, aiohttp.ClientSession() as nobody:
        assert await sync(nobody, running) == 403


async def test_latency_is_the_round_trip_time(session: aiohttp.ClientSession) -> None:
    async with sandbox(TRACKING, latency_ms=60) as running:
        started = time.monotonic()
        await send(session, running)

        assert time.monotonic() - started >= 0.06


async def test_jitter_delays_a_request_before_it_is_counted() -> None:
    server = Sandbox([SHOP], latency_ms=20, jitter_ms=60, seed=1)

    ways = [server.request_delay_s() for _ in range(1000)]

    assert 0.010 <= min(ways) < 0.015
    assert 0.065 < max(ways) <= 0.070
    assert server.response_delay_s() == 0.010


@pytest.mark.parametrize(
    ("kind", "recorded"),
    [(FaultKind.RESET_BEFORE, 0), (FaultKind.RESET_AFTER, 1), (FaultKind.ERROR_AFTER, 1)],
)
async def test_a_fault_strikes_the_client_and_leaves_the_event_recorded_or_not(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, kind: FaultKind, recorded: int
) -> None:
    async with sandbox(TRACKING) as running:
        await sync(session, running)
        running.faults.set([Fault(path="/event", kind=kind, count=1)])

        if kind is FaultKind.ERROR_AFTER:
            assert (await send(session, running))[0] == 500
        else:
            with pytest.raises(aiohttp.ClientConnectionError):
                await send(session, running)

        assert len(running.account("shop").events) == recorded
        assert (await send(session, running))[0] == 200
        assert caplog.messages == []


@pytest.mark.parametrize(("kind", "status"), [(FaultKind.HTML_503, 503), (FaultKind.HTML_200, 200)])
async def test_a_page_of_html_has_that_content_type(
    session: aiohttp.ClientSession, kind: FaultKind, status: int
) -> None:
    async with (
        sandbox(faults=[Fault(path="*", kind=kind)]) as running,
        session.get(f"{running.api_url}/api/3/contacts") as response,
    ):
        assert (response.status, response.content_type) == (status, "text/html")
        assert (await response.text()).startswith("<")


async def test_a_hanging_request_is_never_answered_and_does_not_keep_the_sandbox_from_stopping(
    session: aiohttp.ClientSession,
) -> None:
    async with asyncio.timeout(10):
        async with sandbox(faults=[Fault(path="/event", kind=FaultKind.HANG)]) as running:
            waiting = asyncio.create_task(send(session, running))
            await until(lambda: bool(running.faults.drawn))
            assert not waiting.done()

        with pytest.raises(aiohttp.ClientConnectionError):
            await waiting


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
async def test_the_sandbox_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match=f"on loopback only, not on {host}"):
        async with Sandbox([SHOP]).serve(host=host):
            pass


async def test_a_sandbox_served_again_on_its_port_still_has_its_state(
    session: aiohttp.ClientSession,
) -> None:
    server = Sandbox([SHOP])
    async with server.serve() as running:
        port = int(running.api_url.rpartition(":")[2])
        await sync(session, running)
    with pytest.raises(aiohttp.ClientConnectionError):
        await sync(session, running)

    async with server.serve(port) as again:
        assert await sync(session, again) == 200


async def test_the_state_is_readable_as_figures(session: aiohttp.ClientSession) -> None:
    async with sandbox(TRACKING, faults=[Fault(path="/tags", kind=FaultKind.THROTTLED)]) as running:
        await sync(session, running)
        await send(session, running, eventdata="é")
        await send(session, running, "eve@example.org")
        await send(session, running, event="Another")
        async with session.get(f"{running.api_url}/api/3/tags") as response:
            assert response.status == 429
        async with session.get(f"{running.api_url}/api/3/nothing") as response:
            assert response.status == 404
        state = json.loads(await read(session, running, "state"))

    assert state["accounts"]["shop"] == {
        "requests": {"syncContact": 1, "trackEvent": 3, "listTags": 1, "unknown": 1},
        "replies": {"201": 1, "200": 3, "429": 1, "404": 1},
        "breaches": {"unknown_operation": 1},
        "breach_examples": ["unknown_operation: GET /api/3/nothing"],
        "refused_events": {"Unknown event name.": 1},
        "most_requests_in_a_second": 3,
        "tracking_enabled": True,
        "event_names": 1,
        "events": 1,
        "events_by_name": {"Customer cancelled": 1},
        "events_without_contact": 1,
        "longest_eventdata_bytes": 2,
        "contacts": 1,
        "imports": 0,
        "orders": 0,
        "orders_overtaken": 0,
        "real_time_orders_received": 0,
        "tag_overlaps": 0,
        "resubscribed": 0,
        "contacts_in_two_requests": 0,
        "changing_requests": 1,
    }
    assert state["faults"] == {"429": 1}


async def test_events_contacts_and_strays_are_readable_as_json_lines(session: aiohttp.ClientSession) -> None:
    async with sandbox(TRACKING) as running:
        await sync(session, running)
        for log in range(2500):  # more than one write takes
            running.account("shop").record_event(float(log), ANN, name=NAMES[0], eventdata=f"log={log}")
        running.account("shop").record_event(7.0, "eve@example.org", name=NAMES[0], eventdata="")
        events = [json.loads(line) for line in (await read(session, running, "events")).splitlines()]
        contacts = [json.loads(line) for line in (await read(session, running, "contacts")).splitlines()]
        strays = [json.loads(line) for line in (await read(session, running, "strays")).splitlines()]
        orders = await read(session, running, "orders")

    assert [event["eventdata"] for event in events] == [f"log={log}" for log in range(2500)]
    assert events[12] == {
        "seq": 13,
        "received_at": 12.0,
        "contact_id": 1,
        "name": NAMES[0],
        "eventdata": "log=12",
        "email": ANN,
        "eventdata_bytes": 6,
    }
    assert [(row["id"], row["email"], row["events"]) for row in contacts] == [(1, ANN, 2500)]
    assert strays == [{"received_at": 7.0, "email": "eve@example.org", "name": NAMES[0], "eventdata": ""}]
    assert orders == ""


async def test_contacts_show_their_fields_lists_and_tags_by_name_and_orders_their_contact(
    session: aiohttp.ClientSession,
) -> None:
    async with sandbox(shop(requests_per_second=0, import_duration_s=0)) as running:
        account = running.account("shop")
        account.fields.add({"title": "Kiva Status"})
        account.lists.add({"name": "all customers"})
        row = {"email": ANN, "fields": [{"id": 1, "value": "active"}], "subscribe": [{"listid": 1}]}
        body = {"contacts": [{**row, "tags": ["no order"]}]}
        async with session.post(f"{running.api_url}/api/3/import/bulk_import", json=body) as response:
            assert response.status == 200
        await session.get(f"{running.api_url}/api/3/contacts")
        account.orders.write((1, "7"), 1, {"storeOrderId": "7", "storeCustomerId": "17"})
        contact = json.loads(await read(session, running, "contacts"))
        order = json.loads(await read(session, running, "orders"))

    assert (contact["fields"], contact["lists"]) == ({"Kiva Status": "active"}, {"all customers": 1})
    assert (contact["tags"], contact["order_customers"]) == (["no order"], ["17"])
    assert order == {"id": "1", "storeOrderId": "7", "storeCustomerId": "17", "contact_email": ANN}


async def test_two_overlapping_writes_of_a_contact_are_counted(
    session: aiohttp.ClientSession,
) -> None:
    async with sandbox(latency_ms=100) as running:
        await sync(session, running)
        await sync(session, running)
        assert running.account("shop").watch.contacts_in_two_requests == 0
        await asyncio.gather(sync(session, running), sync(session, running))
        assert running.account("shop").watch.contacts_in_two_requests == 1


async def test_faults_are_set_while_the_sandbox_runs(session: aiohttp.ClientSession) -> None:
    async with sandbox(TRACKING) as running:
        assert (await control(session, running, "faults", ["/event:500-before:1:1"]))[0] == 200
        assert [(await send(session, running))[0] for _ in range(2)] == [500, 200]

        status, answer = await control(session, running, "faults", ["/event:418:1"])
        assert status == 400
        assert "'418' is none of" in answer["message"]


async def test_settings_are_changed_while_the_sandbox_runs(session: aiohttp.ClientSession) -> None:
    async with sandbox(TRACKING, OTHER) as running:
        body = {"tracking_enabled": False, "failing_emails": [ANN]}
        assert (await control(session, running, "settings?account=shop", body))[0] == 200

        assert "not enabled" in (await send(session, running))[1]
        assert await sync(session, running) == 422
        assert running.account("other").settings == OTHER


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("settings?account=shop", {"speed": 1}, "speed: no such setting"),
        ("settings?account=shop", {"requests_per_second": "many"}, "requests_per_second"),
        ("settings?account=nobody", {}, "account 'nobody' is none of shop, other"),
        ("settings", {}, "account '' is none of shop, other"),
    ],
)
async def test_an_invalid_setting_is_refused_with_a_sentence(
    session: aiohttp.ClientSession, path: str, body: dict[str, object], sentence: str
) -> None:
    async with sandbox(SHOP, OTHER) as running:
        status, answer = await control(session, running, path, body)

    assert status == 400
    assert sentence in answer["message"]


async def test_control_is_outside_the_limits_and_the_contract(session: aiohttp.ClientSession) -> None:
    async with sandbox(shop(requests_per_second=1)) as running:
        for _ in range(5):
            await read(session, running, "state")
        async with session.get(f"{running.api_url}/_sandbox/nothing") as response:
            assert response.status == 404

        assert running.account("shop").tally.requests == {}
        assert running.account("shop").tally.breaches == {}


async def test_the_command_prints_its_addresses_and_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", written := io.StringIO())
    task = asyncio.create_task(run(faults=[Fault(path="/tags", kind=FaultKind.LAPSED)]))
    await until(lambda: written.getvalue().endswith("\n"))
    introduction = json.loads(written.getvalue())
    [account] = introduction["accounts"]

    headers = {"Api-Token": account["api_token"]}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{introduction['api_url']}/api/3/tags") as response,
    ):
        assert response.status == 402
        form = event_form(ANN) | {"actid": account["event_actid"], "key": account["event_key"]}
        async with session.post(introduction["event_url"], data=form) as answer:
            assert "not enabled" in await answer.text()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_parent_process_can_start_a_sandbox_and_read_its_address(
    session: aiohttp.ClientSession,
) -> None:
    program = "import asyncio; from kiva_stream.sandbox.activecampaign import run; asyncio.run(run())"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout
        introduction = json.loads(await child.stdout.readline())
        async with session.get(f"{introduction['api_url']}/_sandbox/state") as response:
            assert list((await response.json())["accounts"]) == ["sandbox"]
    finally:
        child.terminate()
        await child.wait()


async def test_a_fault_by_a_pattern_has_its_own_headers_until_it_is_lifted(
    session: aiohttp.ClientSession,
) -> None:
    fault = {
        "name": "poison",
        "path": "/contact/sync",
        "matching": "ann@",
        "kind": "answer-before",
        "status": 503,
        "headers": {"Content-Type": "text/html", "Retry-After": "7"},
        "text": "<html></html>",
    }
    async with sandbox(TRACKING) as running:
        assert (await control(session, running, "faults", [fault]))[0] == 200
        url = f"{running.api_url}/api/3/contact/sync"
        async with session.post(url, json={"contact": {"email": ANN}}) as response:
            assert (response.status, response.content_type) == (503, "text/html")
            assert response.headers["Retry-After"] == "7"
            assert await response.text() == "<html></html>"
        assert await sync(session, running, "bob@example.org") == 201

        assert (await control(session, running, "lift", ["poison"]))[0] == 200
        assert await sync(session, running) == 201


async def test_a_connection_is_deleted_while_the_sandbox_runs(session: aiohttp.ClientSession) -> None:
    async with sandbox(TRACKING) as running:
        account = running.account("shop")
        account.connections.add({"service": "kiva_logic", "externalid": "1"})

        assert (await control(session, running, "disconnect", [1]))[0] == 200

        assert len(account.connections) == 0


async def test_requests_that_carried_orders_are_readable_as_json_lines(
    session: aiohttp.ClientSession,
) -> None:
    order = {"storeOrderId": "7", "creationSource": "REAL_TIME"}
    async with sandbox(TRACKING) as running:
        body = {"query": "{ __typename }", "variables": {"orders": [order]}}
        async with session.post(f"{running.api_url}/api/3/ecom/graphql", json=body) as response:
            assert response.status == 200

        noted = json.loads(await read(session, running, "order_requests"))

    assert (noted["real_time"], noted["historical"], noted["applied"]) == (["7"], 0, False)
