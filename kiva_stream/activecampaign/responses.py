"""What each answer of ActiveCampaign means: the one place that looks at a status. Pure.

A reader takes a `Reply` and returns what was asked for, or raises the `DeliveryError` that says what to do:

- `event` reads an answer of event tracking, where a repeat is a duplicate: what may have been processed is
  an UnknownOutcome;
- `rest` reads any other answer: those calls are upserts and reads, so the same is a TryLater;
- `of_contact` likewise, where the request named a contact by its id: that may be gone;
- `queued` and `report` read the bulk import's, which has its own ways of saying no;
- `found`, `page`, `synced` and `renamed` read what is asked of contacts, `links`, `linked` and `unlinked`
  of their tags, `logged` of their tracking logs;
- `upserted` and `queried` read GraphQL's, which says no with a 200.

Success is read from the body, never from the status alone: refusals come with 200, throttling with 400.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote_plus

import msgspec

from kiva_stream.errors import (
    AccountRefused,
    AddressTaken,
    BatchTooLarge,
    ContactGone,
    DeliveryError,
    OrdersRejected,
    Rejected,
    RowsRejected,
    TryLater,
    UnknownOutcome,
)
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from kiva_stream.model.ids import AcId, Email, OrderId

T = TypeVar("T")

OK = range(200, 300)
BAD_REQUEST = 400
ACCOUNT_REFUSALS = frozenset({401, 402, 403})  # 402: the account lapsed; 401 is hardly used
NOT_FOUND = 404
TOO_LARGE = 413
UNPROCESSABLE = 422
REFUSED_EVENT = frozenset({BAD_REQUEST, UNPROCESSABLE})
REFUSED_OBJECT = frozenset({BAD_REQUEST, 409, TOO_LARGE, UNPROCESSABLE})
UNANSWERED = frozenset({408, 425, 499})  # a proxy's: it did not wait for the answer, or for the request
TOO_MANY_REQUESTS = 429
SERVER_ERRORS = range(500, 600)  # Cloudflare's 520 to 526 among them
UNAVAILABLE = 503

THROTTLED_S = 30.0  # the wait ActiveCampaign's own example of a Retry-After names
SAID_CHARS = 300  # of an answer, in an error
CHECK_EVENTS = "check event_actid, event_key and that event tracking is on"


class Reply(NamedTuple):
    """An answer, and the secrets that must not be repeated when it is quoted."""

    status: int
    body: bytes
    retry_after: str | None = None  # the header
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Reply {said(self)}>"


class Duplicate(Rejected):
    """What was to be created is there already."""


class UnknownEventName(DeliveryError):  # noqa: N818  named by what to do about it: register it
    """The event's name is not registered; `said` is what ActiveCampaign said, "" when it was a bare 0."""

    def __init__(self, said: str) -> None:
        super().__init__(f"ActiveCampaign does not know the name of the event: {said or 'it answers 0'}")
        self.said = said


_ADDRESS = re.compile(r"[^\s\"'<>(){}\[\],;:=]+(?:@|%40)[^\s\"'<>(){}\[\],;:&]+")


def said(reply: Reply) -> str:
    """Return the answer as an error quotes it: status and the body's beginning, addresses masked."""
    return f"{reply.status} {masked(reply.body.decode(errors='replace'), reply.secrets)}".strip()


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return the beginning of a text without secrets (plain or form-encoded), addresses and line breaks."""
    for secret in secrets:
        text = text.replace(secret, "[secret]").replace(quote_plus(secret), "[secret]")
    return _ADDRESS.sub("[address]", " ".join(text.split()))[:SAID_CHARS]


# --- events ---------------------------------------------------------------------------------------------


class _Tracked(msgspec.Struct):
    """trackcmp's answer, 1 or 0 as number or text; older accounts answer the plain number."""

    success: Literal[0, 1] | Literal["0", "1"]
    message: str = ""


_tracked = msgspec.json.Decoder(_Tracked | Literal[0, 1])

# The texts of its refusals are not documented; these are read from the few that are public, widely. An answer
# that speaks of the key, the account or tracking holds for every event; a name is asked for before the
# account, since "unknown event for this account" is about the name.
_ABOUT_KEY = re.compile(r"\bkey\b", re.IGNORECASE)
_UNKNOWN = (
    r"(unknown|unregistered|invalid|no such|not (be )?(found|registered|known|recogni[sz]ed|allowed)"
    r"|(doesn't|does not|did not) exist)"
)
_ABOUT_NAME = re.compile(rf"\b(event|name)\b.*{_UNKNOWN}|{_UNKNOWN}.*\b(event|name)\b", re.IGNORECASE)
_ABOUT_ACCOUNT = re.compile(r"\b(key|account|actid|tracking|authenticat\w*|authori[sz]\w*)\b", re.IGNORECASE)


def event(reply: Reply) -> None:
    """Return when the event is recorded.

    Raises TryLater when throttled, UnknownOutcome when it may or may not be recorded, UnknownEventName,
    AccountRefused when no event would be, Rejected when this one is not.
    """
    answer = _answer(reply.body)
    if answer is not None and answer.success in (1, "1") and reply.status in OK:
        return
    _raise_if_throttled(reply)
    if reply.status in SERVER_ERRORS or reply.status in UNANSWERED:
        raise UnknownOutcome(f"no word on whether the event was recorded: {said(reply)}")
    _raise_if_account_refused(reply)
    if answer is not None and answer.success in (0, "0"):
        _raise_if_not_its_fault(answer.message, reply)
    elif reply.status < BAD_REQUEST or _is_html(reply) or answer is not None:
        raise UnknownOutcome(f"no word on whether the event was recorded: {said(reply)}")
    if reply.status in OK or reply.status in REFUSED_EVENT:
        raise Rejected("ActiveCampaign refused the event", said(reply))
    raise AccountRefused(f"nobody takes events there; check event_url: {said(reply)}")


def _answer(body: bytes) -> _Tracked | None:
    try:
        answer = _tracked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return answer if isinstance(answer, _Tracked) else _Tracked(answer)


def _raise_if_not_its_fault(message: str, reply: Reply) -> None:
    """Raise what a `success: 0` means that speaks of more than this event."""
    if not message:
        raise UnknownEventName("")
    if _ABOUT_NAME.search(message) and not _ABOUT_KEY.search(message):
        raise UnknownEventName(masked(message, reply.secrets))
    if _ABOUT_ACCOUNT.search(message):
        raise AccountRefused(f"ActiveCampaign takes no events; {CHECK_EVENTS}: {said(reply)}")


def still_unknown(error: UnknownEventName) -> DeliveryError:
    """Return what it means that a name is unknown although it was registered.

    A bare 0 is all that some accounts say, whatever is wrong; that, and what speaks of the account, is no
    fault of this event.
    """
    if error.said and not _ABOUT_ACCOUNT.search(error.said):
        return Rejected("ActiveCampaign does not take the event's name", error.said)
    return AccountRefused(f"ActiveCampaign takes no events ({error.said or 'it answers 0'}); {CHECK_EVENTS}")


# --- everything else ------------------------------------------------------------------------------------


class _Fault(msgspec.Struct):
    """One of `errors`; `title` alone is common."""

    title: Any = ""
    detail: Any = ""
    code: Any = ""


class _Faults(msgspec.Struct):
    """The usual envelope of a 4xx, of which there are several."""

    errors: list[_Fault] = []


def rest(reply: Reply, shape: type[T], *, is_of_one: bool = False) -> T:
    """Return the body of an answer, read as `shape`; `is_of_one`: the request named an object by its id.

    Raises TryLater when throttled, unavailable or of another shape, AccountRefused, also when nobody answers
    at this address, Duplicate when what was to be created is there, Rejected when what was asked is refused
    or the object named is not there.
    """
    _raise_if_throttled(reply)
    _raise_if_account_refused(reply)
    if reply.status in OK:
        return _read(reply, shape)
    is_silent = reply.status < BAD_REQUEST or reply.status in UNANSWERED or reply.status in SERVER_ERRORS
    if is_silent or _is_html(reply):
        raise TryLater(f"ActiveCampaign cannot answer now: {said(reply)}")
    if reply.status == UNPROCESSABLE and "duplicate" in _codes(reply.body):
        raise Duplicate("ActiveCampaign has it already", said(reply))
    if reply.status in REFUSED_OBJECT or (is_of_one and reply.status == NOT_FOUND):
        raise Rejected("ActiveCampaign refused what was asked", said(reply))
    raise AccountRefused(f"ActiveCampaign does not answer there; check api_url: {said(reply)}")


def of_contact(reply: Reply, shape: type[T]) -> T:
    """Return what `rest` does, where the request named a contact by its id. Raises ContactGone besides."""
    try:
        return rest(reply, shape, is_of_one=True)
    except Rejected as refusal:
        if reply.status == NOT_FOUND:
            raise ContactGone("ActiveCampaign has no such contact", refusal.reply) from None
        raise


def _read(reply: Reply, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=shape, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TryLater(f"ActiveCampaign gave an answer that cannot be read: {said(reply)}") from None


def _codes(body: bytes) -> list[Any]:
    try:
        return [fault.code for fault in msgspec.json.decode(body, type=_Faults).errors]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


# --- bulk import ----------------------------------------------------------------------------------------


class _Queued(msgspec.Struct):
    """An accepted import; how many of its contacts will be imported is documented, and not relied on."""

    batch_id: str = msgspec.field(name="batchId")
    contacts: int | None = msgspec.field(name="queued_contacts", default=None)


class _RowFault(msgspec.Struct):
    """A row that ActiveCampaign refuses, counted from 1."""

    contact: int
    reason: str = msgspec.field(name="failureReason", default="")


class _ImportFault(msgspec.Struct):
    """Why an import was refused: rows that are at fault, or texts about the whole of it."""

    message: str = ""
    reasons: list[_RowFault | str] = msgspec.field(name="failureReasons", default=[])


_THROTTLED = re.compile(r"rate limit|per minute", re.IGNORECASE)


def queued(reply: Reply, count: int) -> AcceptedImport:
    """Return the import of `count` contacts that was accepted; it is short of those on the exclusion list.

    Raises RowsRejected with the rows at fault, TryLater (throttling in the disguise of a 400 too), and
    AccountRefused, also when an import is refused for no fault of its rows: then every one would be.
    """
    try:
        accepted = rest(reply, _Queued)
    except Rejected as refusal:
        fault = _import_fault(reply.body)
        if any(map(_THROTTLED.search, [fault.message, *(r for r in fault.reasons if isinstance(r, str))])):
            wait_s = _after_s(reply.retry_after)
            raise TryLater(f"bulk imports are throttled: {said(reply)}", wait_s) from None
        named = [row for row in fault.reasons if isinstance(row, _RowFault) and 1 <= row.contact <= count]
        if rows := {row.contact - 1: masked(row.reason, reply.secrets) for row in named}:
            raise RowsRejected(f"ActiveCampaign refused {len(rows)} contacts of an import", rows) from None
        raise AccountRefused(f"ActiveCampaign refuses bulk imports: {refusal.reply}") from None
    return AcceptedImport(
        accepted.batch_id, is_short=accepted.contacts is not None and accepted.contacts < count
    )


def _import_fault(body: bytes) -> _ImportFault:
    try:
        return msgspec.json.decode(body, type=_ImportFault, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _ImportFault()


class _Info(msgspec.Struct):
    """How far an import has come; `false` in its first second."""

    status: Literal["waiting", "claimed", "active", "completed", "failed", "interrupted"] | bool
    failure: list[str] = []


_STATES = {
    "completed": ImportState.COMPLETED,
    "failed": ImportState.LOST,
    "interrupted": ImportState.LOST,
}


def report(reply: Reply) -> ImportReport:
    """Return how far an import has come; one whose id is unknown is lost. Raises TryLater, AccountRefused."""
    try:
        info = rest(reply, _Info, is_of_one=True)
    except Rejected:
        return ImportReport(ImportState.LOST)
    failures = frozenset(address.strip().lower() for address in info.failure)
    return ImportReport(_STATES.get(str(info.status), ImportState.RUNNING), failures)


# --- contacts -------------------------------------------------------------------------------------------


class _Contact(msgspec.Struct):
    """A contact of a listing; one that was made of a telephone number has no address."""

    id: AcId
    email: str | None = None

    @property
    def address(self) -> Email:
        return Email((self.email or "").strip().lower())


class _ContactPage(msgspec.Struct):
    contacts: list[_Contact]


class _OneContact(msgspec.Struct):
    contact: _Contact


def found(reply: Reply, email: Email) -> AcId | None:
    """Return the id of the contact that a look-up by address found. Raises TryLater, AccountRefused."""
    try:
        contacts = rest(reply, _ContactPage).contacts
    except Rejected:  # an address that it does not take as one
        return None
    return next((contact.id for contact in contacts if contact.address == email), None)


def page(reply: Reply) -> dict[Email, AcId]:
    """Return the contacts of a listing by their addresses, "" where there is none, in the order they came."""
    return {contact.address: contact.id for contact in rest(reply, _ContactPage).contacts}


def synced(reply: Reply) -> AcId:
    """Return the id of the contact that was created or updated. Raises what `rest` does."""
    return rest(reply, _OneContact).contact.id


def renamed(reply: Reply) -> None:
    """Return when a contact has its new address. Raises AddressTaken and what `of_contact` does."""
    try:
        of_contact(reply, _OneContact)
    except Duplicate as refusal:
        raise AddressTaken("another contact has the address", refusal.reply) from None


# --- tags -----------------------------------------------------------------------------------------------


class TagLink(msgspec.Struct):
    """A tag on a contact; `id` is that of the link."""

    id: int
    tag: int


class _TagLinks(msgspec.Struct):
    links: list[TagLink] = msgspec.field(name="contactTags")


class _OneTagLink(msgspec.Struct):
    link: TagLink = msgspec.field(name="contactTag")


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object: what was to go is gone."""


def links(reply: Reply) -> list[TagLink]:
    """Return the tags on a contact. Raises ContactGone, Rejected, TryLater, AccountRefused."""
    return of_contact(reply, _TagLinks).links


def linked(reply: Reply) -> int:
    """Return the id of the link of a tag that was put on a contact, or was there. Raises as `links`."""
    return of_contact(reply, _OneTagLink).link.id


def unlinked(reply: Reply) -> None:
    """Return when a tag is off a contact, as it is when there is no such link. Raises as `links`."""
    with suppress(ContactGone):
        of_contact(reply, _Nothing)


# --- tracking logs --------------------------------------------------------------------------------------


class TrackingLogRow(msgspec.Struct):
    """An event that a contact's tracking log lists; ids grow with the order of arrival."""

    id: int
    name: str = msgspec.field(name="type")
    eventdata: str = msgspec.field(name="value", default="")
    tstamp: Any = None

    @property
    def received_at(self) -> datetime | None:
        """When ActiveCampaign received it; None when it does not say so in a way that can be read."""
        try:
            at = datetime.fromisoformat(str(self.tstamp))
        except ValueError:
            return None
        return at if at.tzinfo else at.replace(tzinfo=UTC)


class _TrackingLogPage(msgspec.Struct):
    rows: list[TrackingLogRow] = msgspec.field(name="trackingLogs")


def logged(reply: Reply) -> list[TrackingLogRow]:
    """Return a page of a contact's tracking log. Raises ContactGone, Rejected, TryLater, AccountRefused."""
    return of_contact(reply, _TrackingLogPage).rows


def deleted(reply: Reply) -> bool:
    """Return whether something was there and is deleted now; False: it was gone. Raises what `rest` does."""
    try:
        rest(reply, dict[str, Any], is_of_one=True)
    except Rejected:
        if reply.status == NOT_FOUND:
            return False
        raise
    return True


# --- orders ---------------------------------------------------------------------------------------------


class _Accepted(msgspec.Struct):
    record: str = msgspec.field(name="recordId")


class _Upserted(msgspec.Struct):
    accepted: _Accepted | None = msgspec.field(name="bulkUpsertOrdersAsync")


class _Upsert(msgspec.Struct):
    """GraphQL's answer; beside errors there may be data, which then are not to be relied on."""

    data: _Upserted | None = None


class _GraphQLFault(msgspec.Struct):
    message: Any = ""
    extensions: Any = None


class _GraphQLFaults(msgspec.Struct):
    errors: list[_GraphQLFault] | None = None


_ORDER_KEY = re.compile(r"[^-]*-storeOrderId-([0-9]{1,19})(?![0-9])")
_LARGE_BATCH = re.compile(
    r"grammar tokens|\b(request|payload|body|entity|document|query|batch)\b.* too (large|big|long)",
    re.IGNORECASE,
)


def upserted(reply: Reply, ids: Collection[OrderId]) -> None:
    """Return when the batch of these orders is accepted.

    Raises OrdersRejected, which names those of them that the answer does; BatchTooLarge; TryLater,
    AccountRefused.
    """
    faults = _graphql_faults(reply.body)
    reasons = _reasons(faults, ids, reply.secrets)
    if not reasons and (reply.status == TOO_LARGE or any(map(_is_about_size, faults))):
        raise BatchTooLarge(f"ActiveCampaign finds a batch of {len(ids)} orders too large: {said(reply)}")
    try:
        answer = rest(reply, dict[str, Any]) if faults else rest(reply, _Upsert)
    except Rejected:
        raise _refused(reasons, reply) from None
    if not isinstance(answer, _Upsert):
        raise _refused(reasons, reply)
    if answer.data is None or answer.data.accepted is None:
        raise TryLater(f"ActiveCampaign does not say whether it took the orders: {said(reply)}")


def _graphql_faults(body: bytes) -> Sequence[_GraphQLFault]:
    try:
        return msgspec.json.decode(body, type=_GraphQLFaults).errors or ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _reasons(
    faults: Iterable[_GraphQLFault], ids: Collection[OrderId], secrets: Iterable[str]
) -> dict[int, str]:
    """Return why orders of the batch were refused: the extensions of an error are by `x-storeOrderId-ID`."""
    extensions = (fault.extensions for fault in faults if isinstance(fault.extensions, dict))
    named = ((_ORDER_KEY.match(key), why) for each in extensions for key, why in each.items())
    reasons = {int(key[1]): masked(str(why), secrets) for key, why in named if key}
    return {order: why for order, why in reasons.items() if order in ids}


def _is_about_size(fault: _GraphQLFault) -> bool:
    return _LARGE_BATCH.search(str(fault.message)) is not None


def _refused(reasons: dict[int, str], reply: Reply) -> OrdersRejected:
    return OrdersRejected(f"ActiveCampaign refused a batch of orders: {said(reply)}", reasons, said(reply))


_NOT_FOUND = re.compile(r"\b(not found|does not exist|no such)\b", re.IGNORECASE)


def queried(reply: Reply, shape: type[T]) -> dict[str, T | None]:
    """Return what a GraphQL query found, each read as `shape`, by the names that it gave; None: not there.

    Raises Rejected when the query is refused, TryLater, AccountRefused.
    """
    faults = [str(fault.message) for fault in _graphql_faults(reply.body)]
    answer = rest(reply, dict[str, Any])
    if not all(map(_NOT_FOUND.search, faults)):
        raise Rejected("ActiveCampaign refuses a query", said(reply))
    try:
        return msgspec.convert(answer["data"], dict[str, shape | None], strict=False)  # type: ignore[valid-type]
    except (msgspec.ValidationError, KeyError):
        raise TryLater(f"ActiveCampaign gave an answer that cannot be read: {said(reply)}") from None


# --- what holds for all ---------------------------------------------------------------------------------


def _raise_if_throttled(reply: Reply) -> None:
    asked = reply.retry_after is not None
    if reply.status == TOO_MANY_REQUESTS or (reply.status == UNAVAILABLE and asked):
        raise TryLater(f"ActiveCampaign is throttling: {said(reply)}", _after_s(reply.retry_after))


def _after_s(retry_after: str | None) -> float:
    """Read a Retry-After; ActiveCampaign sends whole seconds, anything else stands for its usual wait."""
    return float(retry_after) if retry_after and retry_after.strip().isdecimal() else THROTTLED_S


def _raise_if_account_refused(reply: Reply) -> None:
    if reply.status in ACCOUNT_REFUSALS:
        raise AccountRefused(
            f"ActiveCampaign refuses the key or the account; check api_token and the plan: {said(reply)}"
        )


def _is_html(reply: Reply) -> bool:
    return reply.body.lstrip()[:1] == b"<"
