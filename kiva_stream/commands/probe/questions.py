"""The questions, in the order in which they are asked: the first one needs an address without a contact."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from kiva_stream.activecampaign.responses.orders import parse_upserted_orders
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.responses.statuses import SUCCESS
from kiva_stream.commands.probe import findings
from kiva_stream.commands.probe.bench import ACCENTED, ORDER_ID, ORDER_STATUS, PLAIN, Bench
from kiva_stream.commands.probe.findings import RefusedBatch
from kiva_stream.commands.probe.report import Finding
from kiva_stream.errors import BatchTooLarge, DeliveryError
from kiva_stream.model.ids import OrderId
from kiva_stream.settings.sections import ActiveCampaignSettings

BATCHES = (50, 100, 200)  # orders of one request


class Question(NamedTuple):
    """One question: how it is asked, and what kiva_stream assumes."""

    ask: Callable[[Bench], Awaitable[Finding]]
    assumed: Callable[[ActiveCampaignSettings], str]


async def unknown_contact(bench: Bench) -> Finding:
    """Send an event of an address without a contact."""
    name = await bench.scratch.registered_name()
    bench.scratch.note_contact()
    reply = await bench.calls.event(bench.scratch.email, name, "unknown")
    return findings.unknown_contact(reply, is_created=await bench.scratch.find_contact() is not None)


async def eventdata_cut(bench: Bench) -> Finding:
    """See where eventdata is cut."""
    shown = await bench.shown()
    if shown.delay_s is None:
        return findings.unknown("eventdata-cut", findings.EVENTDATA_CUT, "no tracking log shows the events")
    return findings.eventdata_cut((PLAIN, ACCENTED), (shown.plain, shown.accented))


async def log_delay(bench: Bench) -> Finding:
    """See how soon a tracking log shows an event."""
    shown = await bench.shown()
    settle_s = bench.settings.lookup_settle_s
    return findings.log_delay(shown.delay_s, waited_s=shown.waited_s, settle_s=settle_s)


async def unknown_event_name(bench: Bench) -> Finding:
    """Send an event with a name that is not registered, and see whether it arrived."""
    delay_s, name = (await bench.shown()).delay_s, bench.scratch.unknown_event_name
    bench.scratch.note_name(name)
    reply = await bench.calls.event(bench.scratch.email, name, "unknown")
    if delay_s is None:
        why = "no tracking log shows whether its event arrived"
        return findings.unknown("unknown-event-name", findings.UNKNOWN_NAME, why)
    await asyncio.sleep(2 * delay_s)
    rows = await bench.tracking_log(await bench.scratch.contact_id())
    return findings.unknown_name(reply, is_shown=any(row.name == name for row in rows))


async def repeated_tag(bench: Bench) -> Finding:
    """Tag the contact twice."""
    body = {"contactTag": {"contact": await bench.scratch.contact_id(), "tag": await bench.scratch.tag_id()}}
    first = _link_of(await bench.calls.call("POST", "/contactTags", body))
    reply = await bench.calls.call("POST", "/contactTags", body)
    again = _link_of(reply) if reply.status in SUCCESS else None
    return findings.repeated_tag(first, again, reply)


class _Link(msgspec.Struct):
    id: int


def _link_of(reply: Response) -> int:
    return parse_rest(reply, _Link, key="contactTag").id


async def empty_logo(bench: Bench) -> Finding:
    """Create the connection with empty URLs, and if it is refused, with others."""
    empty = await bench.scratch.connect(with_urls=False)
    filled = None if empty.status in SUCCESS else await bench.scratch.connect(with_urls=True)
    return findings.empty_logo(empty, filled)


async def order_source(bench: Bench) -> Finding:
    """Send an order as REAL_TIME that was sent as HISTORICAL."""
    return findings.order_source((await bench.resent_order()).creation_source or "")


async def order_update(bench: Bench) -> Finding:
    """Send an order without the status that it had."""
    return findings.order_update((await bench.resent_order()).store_status, before=ORDER_STATUS)


async def order_batch(bench: Bench) -> Finding:
    """Send the one order 50, 100 and 200 times by one request."""
    accepted, refused = 0, None
    for size in BATCHES:
        answer = await bench.upsert("HISTORICAL", copies=size)
        try:
            parse_upserted_orders(answer, {OrderId(int(ORDER_ID))})
        except DeliveryError as error:
            refused = RefusedBatch(size, answer.excerpt(), isinstance(error, BatchTooLarge))
            break
        accepted = size
    return findings.order_batch(accepted, refused, per_batch=bench.settings.orders_per_batch)


async def rate_limit_headers(bench: Bench) -> Finding:
    """See which headers a throttled request gets."""
    return findings.rate_limit_headers((await bench.bursts()).reply)


async def one_bucket(bench: Bench) -> Finding:
    """See whether requests of different kinds are counted together."""
    return findings.one_bucket((await bench.bursts()).throttled)


async def exclude_automations(bench: Bench) -> Finding:
    """Create the contact by an import with automations, and if it enters any, by one without."""
    without = await bench.automations_after_import(exclude=False)
    excluded = await bench.automations_after_import(exclude=True) if without else 0
    return findings.exclusion(without, excluded)


QUESTIONS: dict[str, Question] = {
    "unknown-contact": Question(unknown_contact, lambda _: findings.UNKNOWN_CONTACT),
    "eventdata-cut": Question(eventdata_cut, lambda _: findings.EVENTDATA_CUT),
    "log-delay": Question(log_delay, lambda settings: findings.log_delay_assumed(settings.lookup_settle_s)),
    "unknown-event-name": Question(unknown_event_name, lambda _: findings.UNKNOWN_NAME),
    "repeated-tag": Question(repeated_tag, lambda _: findings.REPEATED_TAG),
    "empty-logo": Question(empty_logo, lambda _: findings.FILLED_URLS),
    "order-source": Question(order_source, lambda _: findings.ORDER_SOURCE),
    "order-update": Question(order_update, lambda _: findings.ORDER_UPDATE),
    "order-batch": Question(
        order_batch, lambda settings: findings.order_batch_assumed(settings.orders_per_batch)
    ),
    "rate-limit-headers": Question(rate_limit_headers, lambda _: findings.RATE_LIMIT_HEADERS),
    "one-bucket": Question(one_bucket, lambda _: findings.ONE_BUCKET),
    "exclude-automations": Question(exclude_automations, lambda _: findings.EXCLUSION),
}
