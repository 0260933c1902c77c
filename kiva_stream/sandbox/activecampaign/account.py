"""One account: its settings, its contents, and its counts."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection
from enum import StrEnum
from itertools import count
from typing import Any, Literal

import msgspec

from kiva_stream.sandbox.activecampaign.contacts import SUBSCRIBED, UNSUBSCRIBED, AddressBook, Contact, Table
from kiva_stream.sandbox.activecampaign.events import EventLog, ReceivedEvent, StrayEvent
from kiva_stream.sandbox.activecampaign.order_requests import OrderRequests
from kiva_stream.sandbox.activecampaign.orders import OrderBook
from kiva_stream.sandbox.activecampaign.rate_limits import Peak, SlidingWindow
from kiva_stream.sandbox.activecampaign.responses import contact_limit_reached, iso_time
from kiva_stream.sandbox.activecampaign.watch import WEEK_TAGS, Watch


class SandboxAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an account. A limit of 0 is switched off; addresses are compared in lower case."""

    name: str
    api_token: str
    event_actid: str
    event_key: str
    tracking_enabled: bool = False  # as in a new account
    event_names: tuple[str, ...] = ()  # registered from the start
    requests_per_second: int = 5  # REST and GraphQL together
    separate_buckets: bool = False  # that many for REST, for GraphQL and for imports each
    retry_after_s: int = 1  # in the header of a 429
    rate_limit_headers: bool = True  # of a 429
    bulk_imports_per_minute: int = 100
    single_imports_per_minute: int = 20  # of imports with one contact
    import_duration_s: float = 3.0  # from the POST to `completed`, `false` in the first second of it
    tracking_log_delay_s: float = 0.0  # until a contact's tracking log shows an event
    order_delay_s: float = 2.0  # until an order accepted asynchronously is written
    unknown_event_names: Literal["refused", "dropped", "registered"] = (
        "refused"  # dropped: answered as received
    )
    unknown_contact_refusal: str = ""  # the text that refuses an event of an address without contact
    events_create_contacts: bool = False  # an event of an address without contact creates one
    contact_limit: int = 0
    empty_urls_accepted: bool = False  # of a connection
    automation_starts: bool = False  # for each contact that an import creates, unless it excludes automations
    exclusion_is_ignored: bool = False  # automations start also then
    repeated_tag_refused: bool = False  # 422 for a contact that has the tag
    order_source_is_kept: bool = False  # of the first version of an order
    orders_are_replaced: bool = False  # an order loses what its newest version does not say
    ecommerce_enabled: bool = True  # off: GraphQL refuses everything
    max_orders_per_batch: int = 0  # a larger batch is refused like a document of too many tokens
    max_order_batch_bytes: int = 0  # the same for the JSON of the variables
    invalid_orders: frozenset[str] = frozenset()  # store ids that are refused as invalid and named
    unnamed_orders: frozenset[str] = frozenset()  # store ids whose batch is refused without a name
    most_rows_per_page: int = (
        0  # of a listing, also when more are asked for; its total still says how many there are
    )
    names_ignore_case: bool = False  # a tag, and the title of a field, is found in other letters too
    tracking_log_characters: int = (
        0  # a tracking log shows the beginning of eventdata, cut to so many characters,
    )
    tracking_log_bytes: int = 0  # and to so many bytes
    invalid_emails: frozenset[str] = frozenset()  # 422 in contact/sync, a bad row in an import
    failing_emails: frozenset[str] = frozenset()  # 422 in contact/sync, `failure` in an import
    # `failure` in an import that subscribes them, else accepted
    excluded_emails: frozenset[str] = frozenset()
    excluded_are_not_queued: bool = False  # an import leaves out excluded addresses without naming them
    interrupting_emails: frozenset[str] = frozenset()  # an import with one of them ends `interrupted`
    invalid_values: frozenset[str] = frozenset()  # of name, phone or field: 422 in contact/sync, a bad row
    rows_counted_from: int = 1  # where an import that names bad rows begins to count
    plain_event_replies: bool = False  # /event answers 1 and 0 instead of JSON


class Breach(StrEnum):
    """A client's request that a real account would refuse or silently ignore."""

    RATE_LIMIT = "rate_limit"
    IMPORT_LIMIT = "import_limit"
    UNKNOWN_OPERATION = "unknown_operation"
    CONTENT_TYPE = "content_type"
    SCHEMA = "schema"
    GRAPHQL = "graphql"
    UNKNOWN_FIELD = "unknown_field"  # a value for a custom field that does not exist


class Tally:
    """Counts of requests, responses and breaches."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()  # by operation
        self.responses: Counter[str] = Counter()  # by status, or by the kind of silence
        self.breaches: Counter[str] = Counter()
        self.examples: deque[str] = deque(maxlen=20)  # the newest breaches in words
        self.refused_events: Counter[str] = Counter()  # by message

    def breach(self, kind: Breach, example: str) -> None:
        """Count a breach."""
        self.breaches[kind] += 1
        self.examples.append(f"{kind}: {example}")


class Agenda:
    """Asynchronous writes that are due later. They are done at the first look at the account after that."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def add(self, at: float, action: Callable[[], None]) -> None:
        """Schedule `action`."""
        heapq.heappush(self._due, (at, next(self._order), action))

    def advance(self, now: float) -> None:
        """Do what is due, in the order of the times."""
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()


class Import(msgspec.Struct):
    """An accepted bulk import, under way or completed."""

    id: str
    accepted_at: float
    duration_s: float
    contacts: int
    created: list[int] = []
    failures: list[str] = []
    interrupted: bool = False

    def status(self, now: float) -> str | bool:
        """Return its status: `false` in the first second, then `waiting`, `active`, `completed`."""
        if self.interrupted:
            return "interrupted"
        elapsed_s = now - self.accepted_at
        if elapsed_s >= self.duration_s:
            return "completed"
        if elapsed_s < 1.0:
            return False
        return "waiting" if elapsed_s < (1.0 + self.duration_s) / 2 else "active"

    def is_under_way(self, now: float) -> bool:
        """Return whether it may still write contacts."""
        return not self.interrupted and now < self.accepted_at + self.duration_s


class Account:
    """The state of one account. Its methods never block; the caller gives the time."""

    def __init__(self, settings: SandboxAccount) -> None:
        self.settings = settings
        self.tally = Tally()
        self.watch = Watch()
        self.peak = Peak()
        self.requests_windows: defaultdict[str, SlidingWindow] = defaultdict(lambda: SlidingWindow(1.0))
        self.bulk_imports_window = SlidingWindow(60.0)
        self.single_imports_window = SlidingWindow(60.0)
        self.agenda = Agenda()
        self.contacts = AddressBook()
        self.events = EventLog()
        self.events_without_contact: list[StrayEvent] = []
        self.event_names = dict.fromkeys(settings.event_names)
        self.tags = Table()
        self.contact_tags = Table()
        self.fields = Table()
        self.field_relations = Table()
        self.lists = Table()
        self.connections = Table()
        self.imports: dict[str, Import] = {}
        self.orders = OrderBook()
        self.order_requests = OrderRequests()

    def change(self, **settings: object) -> None:
        """Change settings. Raises TypeError for an unknown one."""
        self.settings = msgspec.structs.replace(self.settings, **settings)

    def admit_request(self, now: float, bucket: str) -> bool:
        """Count a REST or GraphQL request. Return False if it is over the limit of its bucket, or of all."""
        self.peak.count(now)
        window = self.requests_windows[bucket if self.settings.separate_buckets else ""]
        return window.admit(now, self.settings.requests_per_second)

    def admit_import(self, now: float, contacts: int) -> bool:
        """Count a bulk import. Return False if it is over its limit."""
        if contacts == 1:
            return self.single_imports_window.admit(now, self.settings.single_imports_per_minute)
        return self.bulk_imports_window.admit(now, self.settings.bulk_imports_per_minute)

    def record_event(self, now: float, email: str, *, name: str, eventdata: str) -> None:
        """Add an event to its contact's log, or to the strays when no contact has that address."""
        contact = self.contacts.find(email)
        if contact is None and self.settings.events_create_contacts:
            contact = self.contacts.create(email, now)
        if contact is None:
            self.events_without_contact.append(StrayEvent(now, email, name=name, eventdata=eventdata))
        else:
            contact.events.append(self.events.add(now, contact.id, name=name, eventdata=eventdata))

    def lose(self, events: Collection[int], orders: Collection[str]) -> None:
        """Remove events from their contacts' logs, and orders by the shop's ids of them."""
        for contact in self.contacts:
            for seq in set(events) & set(contact.events):
                contact.events.remove(seq)
        self.orders.lose(orders)

    def disconnect(self, connection_id: int) -> None:
        """Delete a connection and its orders."""
        self.connections.rows.pop(connection_id, None)
        self.orders.disconnect(connection_id)

    def events_of(self, email: str) -> list[ReceivedEvent]:
        """Return the events of the contact with that address, in arrival order."""
        contact = self.contacts.find(email)
        return [self.events[seq] for seq in contact.events] if contact else []

    def upsert(self, email: str, now: float) -> tuple[Contact, bool]:
        """Return the contact of an address, and whether it is new. Raises RefusedError at the limit."""
        contact = self.contacts.find(email)
        if contact:
            contact.updated_at = now
            return contact, False
        if self.is_full:
            raise contact_limit_reached()
        return self.contacts.create(email, now), True

    @property
    def is_full(self) -> bool:
        """Whether the contact limit is reached."""
        return 0 < self.settings.contact_limit <= len(self.contacts)

    def untag(self, link_id: int) -> None:
        """Remove the link of a tag with a contact. Raises KeyError when there is none."""
        link = self.contact_tags.rows.pop(link_id)
        contact = self.contacts.get(int(link["contact"]))
        if contact:
            del contact.tags[int(link["tag"])]

    def set_fields(self, contact: Contact, values: dict[int, str]) -> None:
        """Set custom fields. As at ActiveCampaign, unknown ones are ignored; here they count as a breach."""
        for field_id, value in values.items():
            if field_id in self.fields:
                contact.fields[field_id] = value
            else:
                self.tally.breach(Breach.UNKNOWN_FIELD, f"no field {field_id}")

    def set_list(self, contact: Contact, list_id: int, status: int) -> None:
        """Set a contact's status on a list."""
        if status == SUBSCRIBED:
            self.watch.count_subscription(was_unsubscribed=contact.lists.get(list_id) == UNSUBSCRIBED)
        contact.lists[list_id] = status

    def named(self, table: Table, column: str, name: str) -> dict[str, Any] | None:
        """Return the first row with that name, compared without case if the account does that."""
        if not self.settings.names_ignore_case:
            return table.find(**{column: name})
        return next((row for row in table.rows.values() if row[column].lower() == name.lower()), None)

    def tag_named(self, name: str, now: float) -> int:
        """Return the id of the tag of that name. Create it if there is none."""
        tag = self.named(self.tags, "tag", name) or self.add_tag(
            name, kind="contact", description="", now=now
        )
        return int(tag["id"])

    def add_tag(self, name: str, *, kind: str, description: str, now: float) -> dict[str, Any]:
        """Create a tag."""
        row = {"tag": name, "tagType": kind, "description": description, "cdate": iso_time(now)}
        return self.tags.add(row)

    def tag(self, contact: Contact, tag_id: int, now: float) -> bool:
        """Link a tag with a contact. Return whether the link is new."""
        if tag_id in contact.tags:
            return False
        link = self.contact_tags.add({"contact": str(contact.id), "tag": str(tag_id), "cdate": iso_time(now)})
        contact.tags[tag_id] = int(link["id"])
        if self.tags.rows[tag_id]["tag"].lower() in WEEK_TAGS:
            self.watch.check_week_tags(name.lower() for name in self.tags_of(contact))
        return True

    def tags_of(self, contact: Contact) -> list[str]:
        """Return the names of a contact's tags."""
        return [self.tags.rows[tag_id]["tag"] for tag_id in contact.tags]
