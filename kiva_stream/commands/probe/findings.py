"""What an observation means: whether an assumption of kiva_stream holds, and what to change if not. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kiva_stream.activecampaign.responses.events import UnknownEventName, parse_event
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.statuses import SUCCESS
from kiva_stream.commands.probe.report import Finding
from kiva_stream.errors import AccountRefused, DeliveryError
from kiva_stream.model.tracked_events import EVENTDATA_BYTES

REPORT_IT = "nothing you can set: tell kiva_stream's maintainers this line"


def unknown(question: str, assumed: str, why: str) -> Finding:
    """Return that a question could not be answered."""
    return Finding(question=question, found=f"not known: {why}", assumed=assumed, ok=None)


# --- events ---


UNKNOWN_CONTACT = "an event of an address without contact creates none, and does not refuse the account"


def unknown_contact(reply: Response, *, is_created: bool) -> Finding:
    """Return what an event of an address without a contact gets."""
    refuses_account = isinstance(_error_of(reply), AccountRefused)
    creates = "a contact was created" if is_created else "no contact was created"
    return Finding(
        question="unknown-contact",
        found=f"answered {reply.excerpt()}; {creates}",
        assumed=UNKNOWN_CONTACT,
        ok=not (is_created or refuses_account),
        change=REPORT_IT if is_created or refuses_account else "",
    )


UNKNOWN_NAME = "an event of an unregistered name is refused in words that kiva_stream knows, or recorded"


def unknown_name(reply: Response, *, is_shown: bool) -> Finding:
    """Return what an event with a name that is not registered gets."""
    error = _error_of(reply)
    if error is None:
        found = "recorded, the name is not needed" if is_shown else "answered as received, and dropped"
        ok = is_shown
    else:
        found, ok = "refused", isinstance(error, UnknownEventName)
    change = "delete no event name at ActiveCampaign, and run `kiva-stream setup` before each new version"
    return Finding(
        question="unknown-event-name",
        found=f"{found}: {reply.excerpt()}",
        assumed=UNKNOWN_NAME,
        ok=ok,
        change="" if ok else (change if error is None else REPORT_IT),
    )


def _error_of(reply: Response) -> DeliveryError | None:
    try:
        parse_event(reply)
    except DeliveryError as error:
        return error
    return None


EVENTDATA_CUT = f"a tracking log shows the first {EVENTDATA_BYTES} bytes of eventdata"


def eventdata_cut(sent: tuple[str, str], shown: tuple[str, str]) -> Finding:
    """Return where a tracking log cuts eventdata.

    The first text has characters of one byte, the second of two bytes.
    """
    least = min(len(text.encode()) for text in shown)
    ok = least >= EVENTDATA_BYTES
    return Finding(
        question="eventdata-cut",
        found=_cut_words(sent, shown),
        assumed=EVENTDATA_CUT,
        ok=ok,
        change="" if ok else "activecampaign.lookup = false: a look-up would not know a longer event again",
    )


def _cut_words(sent: tuple[str, str], shown: tuple[str, str]) -> str:
    if shown == sent:
        return f"not cut at {len(sent[0])} characters"
    characters, in_bytes = [len(text) for text in shown], [len(text.encode()) for text in shown]
    if characters[0] == characters[1]:
        return f"cut after {characters[0]} characters"
    if in_bytes[0] - in_bytes[1] in {0, 1}:
        return f"cut after {in_bytes[0]} bytes"
    return f"cut after {characters[0]} plain characters, or {characters[1]} of two bytes each"


def log_delay_assumed(settle_s: float) -> str:
    """Return what is assumed of the time until a tracking log shows an event."""
    return f"a tracking log shows an event within activecampaign.lookup_settle_s, {settle_s:g} s"


def log_delay(delay_s: float | None, *, waited_s: float, settle_s: float) -> Finding:
    """Return how soon a tracking log shows an event; None: not while it was waited for."""
    ok = delay_s is not None and delay_s <= settle_s
    if delay_s is None:
        found, change = f"not within {waited_s:.0f} s", "activecampaign.lookup = false"
    else:
        found = f"shown within {delay_s:.1f} s"
        change = f"activecampaign.lookup_settle_s = {math.ceil(2 * delay_s)}"
    return Finding(
        question="log-delay",
        found=found,
        assumed=log_delay_assumed(settle_s),
        ok=ok,
        change="" if ok else change,
    )


# --- contacts ---


REPEATED_TAG = "a tag that a contact has is answered with its link again"


def repeated_tag(first_link: int, again: int | None, reply: Response) -> Finding:
    """Return what the repeat of a contactTag answers; `again` is the link in its answer."""
    ok = again == first_link
    words = "the same link" if ok else ("another link" if again else "no link")
    return Finding(
        question="repeated-tag",
        found=f"{words}: status {reply.status}",
        assumed=REPEATED_TAG,
        ok=ok,
        change="" if ok else REPORT_IT,
    )


EXCLUSION = "`exclude_automations` beside the contacts of an import keeps automations from starting"
NO_AUTOMATION = (
    "no automation of the account starts for an imported contact; make one that starts when a contact "
    "subscribes to any list, then run `kiva-stream probe` with --only exclude-automations"
)


def exclusion(without: int, excluded: int) -> Finding:
    """Return whether the exclusion of automations works where kiva_stream sends it.

    The counts are of automations entered by an import without the exclusion, and by one with it.
    """
    if not without:
        return unknown("exclude-automations", EXCLUSION, NO_AUTOMATION)
    ok = excluded == 0
    return Finding(
        question="exclude-automations",
        found=f"an import entered {without} automations without it, {excluded} with it",
        assumed=EXCLUSION,
        ok=ok,
        change="" if ok else "switch off, at ActiveCampaign, what starts for new contacts during a backfill",
    )


# --- orders ---


FILLED_URLS = "a connection is accepted with a logo and a link URL, which are never empty"


def empty_logo(empty: Response, filled: Response | None) -> Finding:
    """Return whether a connection may have empty URLs; `filled` is asked for when it may not."""
    is_accepted = empty.status in SUCCESS
    ok = is_accepted or (filled is not None and filled.status in SUCCESS)
    found = "empty URLs are accepted" if is_accepted else f"empty URLs are refused: {empty.excerpt()}"
    refused = "" if ok or filled is None else f"; and so are others: {filled.excerpt()}"
    return Finding(
        question="empty-logo",
        found=found + refused,
        assumed=FILLED_URLS,
        ok=ok,
        change="" if ok else "activecampaign.connection_logo_url and connection_link_url: other ones",
    )


ORDER_SOURCE = "kiva_stream sends an order with the source that it had first, whether another is taken or not"


def order_source(source: str) -> Finding:
    """Return whether an order first sent as HISTORICAL becomes a purchase; `source` is what it has then."""
    is_taken = source == "REAL_TIME"
    found = "REAL_TIME after HISTORICAL is taken" if is_taken else f"REAL_TIME is ignored: it stays {source}"
    return Finding(question="order-source", found=found, assumed=ORDER_SOURCE, ok=True)


ORDER_UPDATE = "kiva_stream sends an order whole, so that it does not matter"


def order_update(status: str | None, *, before: str) -> Finding:
    """Return whether an update keeps what it does not name; `status` is what it did not name."""
    is_kept = status == before
    found = "an update keeps what it does not name" if is_kept else "an update clears what it does not name"
    return Finding(question="order-update", found=found, assumed=ORDER_UPDATE, ok=True)


class RefusedBatch(NamedTuple):
    """A batch of orders that was refused."""

    size: int
    why: str
    is_for_size: bool  # as kiva_stream reads the answer


def order_batch_assumed(per_batch: int) -> str:
    """Return what is assumed of the size of a batch."""
    return f"{per_batch} orders at once are accepted, and more are refused for their size, or accepted"


def order_batch(accepted: int, refused: RefusedBatch | None, *, per_batch: int) -> Finding:
    """Return the largest batch of orders that was accepted, and how the next one was refused."""
    found = f"{accepted} orders at once are accepted" if accepted else "none was accepted"
    if refused:
        found += f", {refused.size} are not: {refused.why}"
    too_small = refused is not None and accepted < per_batch
    ok = not too_small and (refused is None or refused.is_for_size)
    change = f"activecampaign.orders_per_batch = {accepted}" if too_small and accepted else REPORT_IT
    return Finding(
        question="order-batch",
        found=found,
        assumed=order_batch_assumed(per_batch),
        ok=ok,
        change="" if ok else change,
    )


# --- limits ---

ONE_BUCKET = "REST, GraphQL and imports share one limit of requests"
NOT_THROTTLED = "more requests than the limit were all answered"


def one_bucket(throttled: Sequence[bool]) -> Finding:
    """Return whether one bucket holds all requests.

    `throttled` says of each burst whether it was, up to the first that was: all three kinds, each pair within
    the limit; REST and GraphQL, each within it; REST alone, beyond it.
    """
    found = {
        (True,): "one bucket holds REST, GraphQL and imports",
        (False, True): "one bucket holds REST and GraphQL; imports have their own",
        (False, False, True): "REST and GraphQL have a bucket each",
    }.get(tuple(throttled))
    if found is None:
        return unknown("one-bucket", ONE_BUCKET, NOT_THROTTLED)
    ok = throttled[0]
    change = "nothing: kiva_stream is slower than it could be, and keeps every limit"
    return Finding(question="one-bucket", found=found, assumed=ONE_BUCKET, ok=ok, change="" if ok else change)


RATE_LIMIT_HEADERS = "a throttled request is answered by a 429 with a Retry-After in whole seconds"


def rate_limit_headers(reply: Response | None) -> Finding:
    """Return which headers a throttled request gets; None: none was throttled."""
    if reply is None:
        return unknown("rate-limit-headers", RATE_LIMIT_HEADERS, NOT_THROTTLED)
    told = {name: text for name, text in reply.headers.items() if _is_about_rate(name)}
    words = ", ".join(f"{name}: {text}" for name, text in sorted(told.items())) or "none of them"
    ok = (reply.retry_after or "").strip().isdecimal()
    change = "activecampaign.requests_per_second lower than the account's limit: each 429 costs 30 s"
    return Finding(
        question="rate-limit-headers",
        found=f"{reply.status} with {words}",
        assumed=RATE_LIMIT_HEADERS,
        ok=ok,
        change="" if ok else change,
    )


def _is_about_rate(name: str) -> bool:
    return name.lower() == "retry-after" or "ratelimit" in name.lower().replace("-", "")
