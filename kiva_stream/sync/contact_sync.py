"""Contact sync: ActiveCampaign shows the site's contacts, and their orders, as the shop has them now.

It is level-triggered: an entry only says that something may have changed. The desired state of a contact
follows from the current rows, which are read for many contacts at once, and only what differs from what
ActiveCampaign last confirmed is sent. So repeats, replays and restarts are harmless. An import starts no
automations if everything that asked for it happened more than `realtime_max_age_s` ago: the entries of all
its contacts, or the moves. The snapshot of a run that is not live starts none either.

| part               | what it does                                                                  |
|--------------------|-------------------------------------------------------------------------------|
| `contact_snapshot` | writes all contacts, before the first event                                   |
| `pending_contacts` | writes the contacts that batches at the sender wait for                       |
| `contact_upserts`  | writes the contacts of moves and of given needs; for these and for pending    |
|                    | contacts it then upserts the orders and resubscribes                          |
| `contact_changes`  | finds which contacts differ, and how                                          |
| `contact_writes`   | sends changes, by imports or one by one                                       |
| `contact_refusals` | decides what follows when a contact is refused, and when a kind is paused     |
| `contact_imports`  | starts imports, waits for their ends                                          |
| `import_refusals`  | finds the contacts that an import is refused for                              |
| `untaken_contacts` | writes the contacts that imports did not take                                 |
| `list_imports`     | puts contacts on the list that came by a request of their own                 |
| `lone_tries`       | tries contacts that imports did not take, of many five first                  |
| `contact_moves`    | moves customers whose address changed, dissolves contacts that all left       |
| `subscriptions`    | unsubscribes contacts from the list, and resubscribes them                    |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.model.site import Site
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_changes import ContactChanges
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.contact_snapshot import ContactSnapshot
from kiva_stream.sync.contact_upserts import ContactUpserts
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.dirty_contacts import DirtyContacts
from kiva_stream.sync.order_kind import OrderKind
from kiva_stream.sync.pending_contacts import PendingContacts
from kiva_stream.sync.subscriptions import Subscriptions

NEVER_REWOUND = datetime.min.replace(tzinfo=UTC)
RESUBSCRIBED = "email_resubscribed"  # the one event after which an unsubscribed contact is subscribed again


class ContactSync:
    """Implements ContactDelivery, and the snapshot of all contacts.

    `is_live`: the entries are current, not history. Then an entry may resubscribe a contact, and a
    customer who has just joined starts automations.
    Its coroutines raise AccountRefused, SourceError, CheckpointError, HeldError, or ExceptionGroups of them.
    """

    def __init__(
        self,
        site: Site,
        ports: ContactPorts,
        *,
        writes: ContactWrites,
        refusals: ContactRefusals,
        order_kind: OrderKind,
        moves: ContactMoves,
        settings: ActiveCampaignSettings,
        is_live: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._resubscribe_max_age = timedelta(seconds=settings.resubscribe_max_age_s)
        self._is_live, self._now = is_live, now
        self._writes, self._moves = writes, moves
        self._refusals, self._order_kind = refusals, order_kind
        self._dirty, self._rewound_at = DirtyContacts(), NEVER_REWOUND
        self._floor = DAY1  # since the snapshot, ActiveCampaign shows what entries up to here changed
        self._links, self._held = ports.links, ports.held
        self._changes = changes = ContactChanges(site, ports, now=now)
        self._pending = PendingContacts(
            links=ports.links,
            changes=changes,
            writes=writes,
            import_min_contacts=settings.import_min_contacts,
        )
        self._subscriptions = Subscriptions(ports, changes=changes, writes=writes)
        self._upserts = ContactUpserts(
            ports,
            changes=changes,
            writes=writes,
            moves=moves,
            subscriptions=self._subscriptions,
            dirty=self._dirty,
        )
        self._snapshot = ContactSnapshot(
            ports,
            changes=changes,
            writes=writes,
            moves=moves,
            upserts=self._upserts,
            dirty=self._dirty,
            is_live=is_live,
        )

    # --- all contacts ---

    async def snapshot(self, covers: Position, on_done: Callable[[int], None]) -> None:
        """Upsert all contacts, and mark every week tag due.

        `on_done` is called after each part that is written, with its number of contacts. The entries up to
        `covers` were in the log before the snapshot: after it, they need no comparison of their contacts.
        """
        await self._snapshot.take(on_done)
        self._floor = covers

    def note_rewind(self, rewound_at: datetime | None) -> None:
        """Note when the log was last rewound, so that entries inserted before may be read again."""
        self._rewound_at = rewound_at or NEVER_REWOUND

    async def finish_imports(self) -> None:
        """Wait until the imports that an earlier run began have ended."""
        await self._writes.resume()

    # --- the contacts of entries ---

    def need(self, batch: Batch) -> Need | None:
        """Decide what a batch waits for.

        | the contact, or an entry of the batch                    | the batch waits for                    |
        |----------------------------------------------------------|----------------------------------------|
        | ActiveCampaign refuses the contact, which is not dirty   | nothing: its entries are dead          |
        | the contact is not linked                                | the contact, then all its orders       |
        | the contact is dirty                                     | the contact, then its dirty orders     |
        | an entry above the floor names an order                  | the contact, then this order           |
        | the run is live, and a recent entry resubscribes         | the contact, then the list             |
        | an entry is above the floor and above `synced_to`        | the contact                            |
        | none of these                                            | nothing                                |

        The first row excludes all others; otherwise the batch waits for what every row that applies names.
        The need of a contact that is not linked has only its named and its dirty orders;
        `ContactUpserts.complete` finds the rest of its paid orders.
        """
        contact, deliveries = batch.contact, batch.deliveries
        if contact.is_refused and contact not in self._dirty:
            return None
        newest = max(each.position for each in deliveries)
        named = {each.order for each in deliveries if each.order and each.position > self._floor}
        orders = frozenset(named.union(self._dirty.orders(contact)))
        resubscribes = self._is_live and any(map(self._resubscribes, deliveries))
        if not (orders or resubscribes) and self._is_up_to_date(contact, newest):
            return None
        inserted_at = max(each.inserted_at for each in deliveries)
        need = Need(contact, newest, inserted_at, orders=orders, resubscribes=resubscribes)
        return need._replace(is_late=partial(self._is_late, deliveries)) if resubscribes else need

    def mark_dirty(self, contact: Contact, orders: Collection[OrderId]) -> None:
        """Mark a contact dirty, and these orders."""
        self._dirty.mark(contact, orders)

    async def retry_refused(self, contacts: Collection[Contact], *, is_asked: bool) -> None:
        """See ContactDelivery.retry_refused."""
        retried = [each.id for each in contacts if is_asked or each.is_refused]
        if retried and not is_asked:
            current = await self._changes.current(await self._links.records(retried))
            retried = [change.id for change in await self._changes.of(current)]
        if retried:
            await self._links.retry_refused(retried)

    @property
    def has_due(self) -> bool:
        """See ContactDelivery.has_due."""
        return self._refusals.has_due or self._order_kind.has_due

    def take_due(self) -> Collection[ContactId]:
        """See ContactDelivery.take_due."""
        orders = self._order_kind.take_due()
        due = self._refusals.take_due() | self._held.contacts_of(HeldKind.ORDER, orders)
        if orders:
            due |= self._dirty.with_orders(orders)
        self._held.try_now(due)
        return due

    def working(self) -> AbstractAsyncContextManager[None]:
        """Serve the calls of `ensure` while this lasts."""
        return self._pending.working()

    async def ensure(self, need: Need) -> None:
        """Write the contact, unsubscribe it if it must be, upsert its orders, resubscribe it if asked.

        It may have to be unsubscribed if none of its customers counts any more: see `Subscriptions`. It is
        resubscribed if an entry asks for that.

        Contacts that differ at the same moment are written together. Each then has a call of its own for its
        orders; such calls share batches: see `OrderSync.upsert`. Needs `working`.
        """
        need = self._dirty.take(need)
        # The fingerprint in the record of `found` is the one from before the write, as `complete` requires.
        try:
            found = await self._pending.wait_for(need)
            await self._subscriptions.unsubscribe([found])
            await self._upserts.complete([found.record], {found.id: need})
        except RecordsHeld as error:
            held = map(OrderId, error.why if error.what == "orders" else ())
            self._dirty.mark(need.contact, {*need.orders, *held})
            raise

    # --- given contacts ---

    async def move(self, customers: Mapping[CustomerId, Email]) -> None:
        """See ContactDelivery.move."""
        await self._upserts.move(customers, self._now())

    async def upsert(self, needs: Collection[Need]) -> None:
        """Upsert contacts, then their orders, then resubscribe the contacts that asked for it."""
        await self._upserts.upsert(needs)

    async def dissolve(self, records: Iterable[ContactRecord]) -> None:
        """Dissolve those of these contacts that are linked and have no customers any more."""
        await self._moves.dissolve_left(records)

    # --- what an entry means ---

    def _is_up_to_date(self, contact: Contact, position: Position) -> bool:
        """Return whether a contact shows what entries up to a position changed."""
        if not contact.is_linked or contact in self._dirty:
            return False
        return position <= self._floor or position <= contact.synced_to

    def _resubscribes(self, delivery: Delivery) -> bool:
        age = self._now() - delivery.inserted_at
        is_asked = delivery.event_line is not None and delivery.event_line.slug == RESUBSCRIBED
        return is_asked and age < self._resubscribe_max_age

    def _is_late(self, deliveries: Iterable[Delivery]) -> bool:
        """Return whether each entry that resubscribes was parked, dead or found late, or is read again.

        Parking replaces deliveries of a batch that waits, so the answer may change meanwhile.
        """
        asking = filter(self._resubscribes, deliveries)
        return all(each.is_reopened or each.inserted_at <= self._rewound_at for each in asking)
