"""List imports: a contact that came by a request of its own gets its place on the list by an import.

Such a request neither subscribes the contact nor tags it. The import that follows carries its address, the
list and its tag. An import does not subscribe a contact that has unsubscribed at ActiveCampaign; a request
with the ids of contact and list would.

| the contact                                            | then                                             |
|--------------------------------------------------------|--------------------------------------------------|
| is on the list there, or has left it                   | its place is known                               |
| has no place, and an import with its address, the list | its place is known                               |
| and its tag is confirmed                               |                                                  |
| has no place, and that import does not take it         | it counts as not on the list, until a later try  |
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import ContactRecord, NotOnList
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_imports import ContactImports
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.import_refusals import address_alone


class ListImports:
    """Puts contacts on the list by imports."""

    def __init__(self, ports: ContactPorts, imports: ContactImports) -> None:
        self._ports = ports
        self._imports = imports

    async def put(self, changes: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """Put those of these contacts on the list that came by a request of their own and are to be there.

        A contact that no import takes still counts as not on the list. Raises AccountRefused,
        CheckpointError, HeldError.
        """
        if not changes:
            return
        async with self._ports.locks.hold([each.id for each in changes]):
            left = await self._without_place(changes)
            while left:
                size = self._ports.contacts.count_fitting([each.desired for each in left])
                await self._import(left[:size], exclude_automations=exclude_automations)
                left = left[size:]

    async def _import(self, imports: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """Import the places of contacts; record that those which are confirmed are on the list."""
        links, due = self._ports.links, self._ports.due
        tags = {each.id: tag for each in imports if (tag := each.desired.tag)}
        await links.record_import_tags(tags)
        result = await self._imports.run(
            imports, exclude_automations=exclude_automations, detects_refused_kind=False
        )
        missed = {each.id for each in result.unconfirmed} | result.held.keys()
        missed |= {row.change.id for row in result.refused}
        await links.record_on_list([each.id for each in imports if each.id not in missed])
        await due.record_tags_unknown(tags.keys() & missed)

    async def _without_place(self, changes: Sequence[ContactChange]) -> list[ContactChange]:
        """Return the imports for contacts that have no place; record that the others have one."""
        by_id = {each.id: each for each in changes}
        records = await self._ports.links.records(by_id)
        waiting = [each for each in records if is_to_be_put(each, by_id[each.contact.id])]
        placed = [each.contact.id for each in waiting if await self._has_place(each)]
        if placed:
            await self._ports.links.record_on_list(placed)
        return [
            import_of_place(each, by_id[each.contact.id]) for each in waiting if each.contact.id not in placed
        ]

    async def _has_place(self, record: ContactRecord) -> bool:
        try:
            return record.ac_id is not None and await self._ports.alone.list_place(record.ac_id) is not None
        except RecordsHeld:
            return False


def is_to_be_put(record: ContactRecord, change: ContactChange) -> bool:
    """Return whether a contact came by a request of its own, and is to be on the list.

    False while a change of it is refused: the confirmation of the import would clear the refusal, and the
    change would be sent again.
    """
    came_alone = record.contact.is_linked and record.not_on_list is NotOnList.CAME_ALONE
    return came_alone and record.refused_fingerprint is None and change.wants_list


def import_of_place(record: ContactRecord, change: ContactChange) -> ContactChange:
    """Return the change that an import of the place carries: address, list, and the tag if none is known.

    Its confirmation keeps the fingerprint of what ActiveCampaign confirmed before.
    """
    alone = address_alone(change)
    desired = replace(alone.desired, tag=change.desired.tag if record.tag is None else None)
    return ContactChange(record, desired, confirms=record.fingerprint)
