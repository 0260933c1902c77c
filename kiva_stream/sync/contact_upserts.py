"""Contact upserts: contacts are written, then their orders, then those that asked for it are resubscribed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import ContactRecord
from kiva_stream.model.deliveries import Need
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.positions import DAY1
from kiva_stream.sync.contact_changes import ContactChanges
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.current_contacts import CurrentContact
from kiva_stream.sync.dirty_contacts import DirtyContacts
from kiva_stream.sync.subscriptions import Subscriptions


class ContactUpserts:
    """Upserts contacts.

    Every call raises AccountRefused, SourceError, CheckpointError, HeldError, or ExceptionGroups of them.
    """

    def __init__(
        self,
        ports: ContactPorts,
        *,
        changes: ContactChanges,
        writes: ContactWrites,
        moves: ContactMoves,
        subscriptions: Subscriptions,
        dirty: DirtyContacts,
    ) -> None:
        self._ports = ports
        self._changes = changes
        self._writes = writes
        self._moves = moves
        self._subscriptions = subscriptions
        self._dirty = dirty

    async def move(self, customers: Mapping[CustomerId, Email], moment: datetime) -> None:
        """Move customers whose address changed, then upsert the contacts that they joined or left.

        All orders of these customers are upserted too, since they may have another contact now. `moment` is
        taken as that of the moves: if it is too long ago, imports start no automations. Nothing is upserted
        if contacts were only renamed.
        """
        if customers and (contacts := await self._moves.move(customers)):
            orders = frozenset(await self._ports.orders.paid_by(customers))
            # Every need may have the orders of all movers, also those of other contacts: `upsert` makes one
            # set of the orders of all its needs. The position is DAY1, since a move is not an entry: it
            # raises no contact's `synced_to`.
            needs = [Need(contact, DAY1, moment, orders=orders) for contact in contacts]
            with suppress(RecordsHeld):  # the next batch of each contact writes the rest
                await self.upsert(needs)

    async def upsert(self, needs: Collection[Need]) -> None:
        """Upsert contacts, then their orders, then resubscribe the contacts that asked for it.

        Raises RecordsHeld when the others are done. The contacts are dirty then.
        """
        by_id = {need.contact.id: self._dirty.take(need) for need in needs}
        try:
            await self._upsert(by_id)
        except RecordsHeld:
            for need in by_id.values():
                self._dirty.mark(need.contact, need.orders)
            raise

    async def _upsert(self, by_id: Mapping[ContactId, Need]) -> None:
        if not by_id:
            return
        records = await self._ports.links.records(by_id)
        current = await self.read_and_unsubscribe(records)
        changes = await self._changes.of(current)
        held: dict[ContactId, str] = {}
        while changes:
            size = self._writes.fitting(changes)
            part, changes = changes[:size], changes[size:]
            newest = max(by_id[each.id].inserted_at for each in part)
            held |= await self._writes.write(part, exclude_automations=self._writes.is_history(newest))
        await self._writes.put_on_list(self._changes.not_on_list(current), exclude_automations=True)
        written = [record for record in records if record.contact.id not in held]
        for record in written:
            await self._writes.finish(record)
        await self.complete(written, by_id)
        if held:
            raise RecordsHeld("contacts", {int(contact): why for contact, why in held.items()})

    async def read_and_unsubscribe(self, records: Collection[ContactRecord]) -> list[CurrentContact]:
        """Read the rows of contacts' customers; unsubscribe contacts of which no customer counts any more.

        A contact that gets no answer is dirty then.
        """
        current = await self._changes.current(records)
        try:
            await self._subscriptions.unsubscribe(current)
        except RecordsHeld as error:
            for each in current:
                if each.id in error.why:
                    self._dirty.mark(each.record.contact, ())
        return current

    async def complete(self, records: Collection[ContactRecord], needs: Mapping[ContactId, Need]) -> None:
        """Upsert the orders of contacts that are written, then resubscribe those that asked for it.

        From then on the contacts are synced up to the positions of their needs. `records` were read before
        the contacts were written.
        """
        await self._upsert_orders(records, needs)
        ids = [record.contact.id for record in records]
        asking = [each for each in ids if needs[each].resubscribes]
        late = {each for each in asking if needs[each].is_late()}
        await self._subscriptions.resubscribe(asking, late)
        for record in records:
            record.contact.mark_synced(needs[record.contact.id].position)

    async def _upsert_orders(self, records: Iterable[ContactRecord], needs: Mapping[ContactId, Need]) -> None:
        """Upsert the orders of the needs, and all orders of contacts that were just linked.

        A record from before the writes tells of two moments. `contact` is the one object that the process has
        of the contact, so its status is that of now. `fingerprint` is the old one: None if the contact was
        not linked before the writes.
        """
        linked: list[ContactRecord] = []
        held = self._ports.held
        orders: set[OrderId] = set()
        for record in records:
            if record.contact.is_linked:
                linked.append(record)
                orders |= needs[record.contact.id].orders
            else:  # no order is sent, and none is held any more; all are upserted if it is ever linked
                mine = needs[record.contact.id].orders
                orders |= {each for each in mine if held.has(HeldKind.ORDER, each)}
        newcomers = [each for record in linked if record.fingerprint is None for each in record.customers]
        if newcomers:
            orders.update(await self._ports.orders.paid_by(newcomers))
        if orders:
            await self._ports.order_delivery.upsert(orders)
