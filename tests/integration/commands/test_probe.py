"""`probe` against the sandbox: each question with two personalities, and what is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from kiva_stream.commands.probe.probe import probe
from kiva_stream.commands.probe.questions import QUESTIONS
from kiva_stream.commands.probe.report import ProbeReport
from kiva_stream.errors import SettingsError
from kiva_stream.model.ids import Email
from kiva_stream.sandbox.activecampaign import Account, Fault, FaultKind, Running
from kiva_stream.settings.sections import PipelineSettings
from tests.support.sandbox import SHOP, sandbox, shop
from tests.support.settings import settings
from tests.support.waiting import until

PROBE = Email("probe@shop.example")
QUICK: dict[str, Any] = {"import_duration_s": 0, "order_delay_s": 0}
PATIENT = {"lookup_settle_s": 1.5, "order_settle_s": 0.05}  # as long as the sandbox needs


@asynccontextmanager
async def account(*faults: Fault, **changes: object) -> AsyncIterator[tuple[Running, Account]]:
    async with sandbox(shop(**{**QUICK, **changes}), faults=faults) as running:
        yield running, running.account("shop")


async def probed(running: Running, *only: str) -> ProbeReport:
    account_settings = {
        "api_url": running.api_url,
        "event_url": running.event_url,
        "api_token": SHOP.api_token,
        "event_actid": SHOP.event_actid,
        "event_key": SHOP.event_key,
    }
    loaded = settings(PipelineSettings(), **account_settings, **PATIENT)
    return await probe(loaded, PROBE, only or tuple(QUESTIONS))


def contents(found: Account) -> dict[str, object]:
    """Return what an account holds, apart from its events."""
    return {
        "contacts": len(found.contacts),
        "orders": len(found.orders),
        "tags": list(found.tags.rows),
        "lists": list(found.lists.rows),
        "connections": list(found.connections.rows),
        "event names": list(found.event_names),
        "tracking": found.settings.tracking_enabled,
    }


PERSONALITIES: list[tuple[str, dict[str, Any], bool, str]] = [
    ("unknown-contact", {}, True, "no contact was created"),
    ("unknown-contact", {"events_create_contacts": True}, False, "a contact was created"),
    ("unknown-contact", {"unknown_contact_refusal": "Unknown account."}, False, "Unknown account."),
    ("eventdata-cut", {}, True, "not cut at 600 characters"),
    ("eventdata-cut", {"tracking_log_characters": 250}, True, "cut after 250 characters"),
    ("eventdata-cut", {"tracking_log_bytes": 255}, True, "cut after 255 bytes"),
    ("eventdata-cut", {"tracking_log_bytes": 240}, False, "cut after 240 bytes"),
    ("eventdata-cut", {"tracking_log_characters": 100}, False, "cut after 100 characters"),
    ("log-delay", {}, True, "shown within"),
    ("log-delay", {"tracking_log_delay_s": 2.0}, False, "shown within"),
    ("log-delay", {"tracking_log_delay_s": 9.0}, False, "not within"),
    ("unknown-event-name", {}, True, "refused: 200"),
    ("unknown-event-name", {"unknown_event_names": "registered"}, True, "recorded, the name is not needed"),
    ("unknown-event-name", {"unknown_event_names": "dropped"}, False, "answered as received, and dropped"),
    ("repeated-tag", {}, True, "the same link: status 200"),
    ("repeated-tag", {"repeated_tag_refused": True}, False, "no link: status 422"),
    ("empty-logo", {}, True, "empty URLs are refused: 422"),
    ("empty-logo", {"empty_urls_accepted": True}, True, "empty URLs are accepted"),
    ("order-source", {}, True, "REAL_TIME after HISTORICAL is taken"),
    ("order-source", {"order_source_is_kept": True}, True, "it stays HISTORICAL"),
    ("order-update", {}, True, "an update keeps what it does not name"),
    ("order-update", {"orders_are_replaced": True}, True, "an update clears what it does not name"),
    ("order-batch", {}, True, "200 orders at once are accepted"),
    ("order-batch", {"max_orders_per_batch": 100}, True, "100 orders at once are accepted, 200 are not"),
    ("order-batch", {"max_orders_per_batch": 30}, False, "none was accepted, 50 are not"),
    ("rate-limit-headers", {}, True, "429 with RateLimit-Limit: 5, RateLimit-Remaining: 0, Retry-After: 1"),
    ("one-bucket", {}, True, "one bucket holds REST, GraphQL and imports"),
    ("one-bucket", {"separate_buckets": True}, False, "REST and GraphQL have a bucket each"),
    ("exclude-automations", {"automation_starts": True}, True, "entered 1 automations without it, 0 with it"),
    (
        "exclude-automations",
        {"automation_starts": True, "exclusion_is_ignored": True},
        False,
        "entered 1 automations without it, 1 with it",
    ),
]


@pytest.mark.parametrize(("question", "personality", "ok", "found"), PERSONALITIES)
async def test_a_question_is_answered_by_the_account_as_it_is(
    question: str, personality: dict[str, Any], *, ok: bool, found: str
) -> None:
    async with account(**personality) as (running, there):
        before = contents(there)
        report = await probed(running, question)

        (finding,) = report.findings
        assert (finding.question, finding.ok, found in finding.found) == (question, ok, True), finding
        assert report.ok == ok
        assert bool(finding.change) == (not ok)
        assert report.left == []
        assert contents(there) == before


async def test_all_questions_take_less_than_60_calls_and_leave_nothing() -> None:
    async with account(automation_starts=True) as (running, there):
        before = contents(there)
        report = await probed(running)

        assert [(finding.question, finding.ok) for finding in report.findings] == [
            (question, True) for question in QUESTIONS
        ]
        assert report.calls == sum(there.tally.requests.values()) < 60
        assert contents(there) == before


async def test_calls_stay_below_60_also_when_every_assumption_is_wrong() -> None:
    personality = {name: value for _, each, ok, _ in PERSONALITIES if not ok for name, value in each.items()}
    del personality["unknown_contact_refusal"]
    async with account(**personality) as (running, there):
        before = contents(there)
        report = await probed(running)

        assert not report.ok
        assert report.calls == sum(there.tally.requests.values()) < 60
        unasked = [finding for finding in report.findings if "--only" in finding.found]
        assert all(finding.ok is None for finding in unasked)
        assert contents(there) == before


async def test_an_interrupt_ends_the_questions_and_removes_what_was_created() -> None:
    async with account(Fault(path="/contactTags", kind=FaultKind.HANG)) as (running, there):
        before = contents(there)
        reports: list[ProbeReport] = []

        async def ask() -> None:
            reports.append(await probed(running))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await until(lambda: bool(running.faults.drawn))
            assert contents(there) != before
            os.kill(os.getpid(), signal.SIGINT)

        (report,) = reports
        assert report.stopped_by == signal.SIGINT
        assert report.left == []
        assert contents(there) == before


async def test_what_cannot_be_removed_is_listed() -> None:
    refused = Fault(path="/tags/*", method="DELETE", kind=FaultKind.ANSWER_BEFORE, status=422, text="{}")
    async with account(refused) as (running, there):
        report = await probed(running, "repeated-tag")

        (tag,) = there.tags.where()
        assert report.left == [f"the tag {tag['tag']}"]
        assert not report.ok
        assert len(there.contacts) == 0


async def test_a_contact_that_is_there_already_is_refused_and_kept() -> None:
    async with account() as (running, there):
        there.contacts.create(PROBE, 0.0)

        with pytest.raises(SettingsError, match=r"probe@shop\.example has a contact"):
            await probed(running)

        assert len(there.contacts) == 1
        assert sum(there.tally.requests.values()) == 1


async def test_a_question_that_is_not_answered_costs_no_other_one() -> None:
    refused = Fault(path="/tags", method="POST", kind=FaultKind.ANSWER_BEFORE, status=422, text="{}")
    async with account(refused) as (running, _):
        report = await probed(running, "repeated-tag", "empty-logo")

        assert [finding.ok for finding in report.findings] == [None, True]
        assert "not known" in report.findings[0].found


async def test_an_account_that_lets_nothing_be_found_out_is_not_called_wrong() -> None:
    async with account(requests_per_second=0) as (running, there):
        before = contents(there)
        report = await probed(running, "one-bucket", "rate-limit-headers", "exclude-automations")

        assert [finding.ok for finding in report.findings] == [None, None, None]
        assert report.ok
        assert contents(there) == before
