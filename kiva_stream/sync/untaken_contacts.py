"""Untaken contacts: those that an import did not take are tried by an import of one, and by themselves.

| the import                                               | then the contact is sent                      |
|----------------------------------------------------------|-----------------------------------------------|
| reports that the contact failed, or may have left it out | by itself                                     |
| was refused, perhaps for this contact                    | by an import of one                           |
| of one is refused for the value of an optional field     | by an import of one without the value         |
| of one is refused for a custom field                     | not at all: contacts are paused               |
| of one is refused otherwise                              | by itself: `import_failure_min` contacts of   |
|                                                          | one text at most, the others are held         |

Of many contacts five are tried first: see `lone_tries`. By itself a contact gets neither its place on the
list nor a tag: see `list_imports` for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from kiva_stream.errors import FieldRefused
from kiva_stream.model.ids import ContactId
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_imports import ContactImports, ImportResult
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.import_refusals import FIELD_GONE, LastTries
from kiva_stream.sync.left_out_values import leave_out
from kiva_stream.sync.list_imports import ListImports
from kiva_stream.sync.lone_tries import LoneTries, RefusedRow
from kiva_stream.sync.refused_fields import names_field_id


class UntakenContacts:
    """Writes the contacts that imports did not take. `write_one` sends one by itself; see ContactWrites."""

    def __init__(
        self,
        ports: ContactPorts,
        settings: ActiveCampaignSettings,
        *,
        imports: ContactImports,
        refusals: ContactRefusals,
        write_one: Callable[[ContactChange], Awaitable[dict[ContactId, str]]],
    ) -> None:
        self._ports = ports
        self._imports = imports
        self._write_one = write_one
        self._lone_tries = LoneTries(refusals)
        self._list_imports = ListImports(ports, imports)
        self._last_tries = LastTries(settings.import_failure_min)

    async def write(self, result: ImportResult, *, exclude_automations: bool) -> dict[ContactId, str]:
        """Write what imports left; return the contacts that are held, and why.

        Raises AccountRefused, CheckpointError, HeldError.
        """
        import_one = partial(self._import_one, exclude_automations=exclude_automations)
        unconfirmed = [RefusedRow(change) for change in result.unconfirmed]
        held = await self._lone_tries.each(unconfirmed, self._send_alone)
        await self.put_on_list(result.unconfirmed, exclude_automations=exclude_automations)
        return held | await self._lone_tries.each(result.refused, import_one)

    async def put_on_list(self, changes: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """See ListImports.put."""
        await self._list_imports.put(changes, exclude_automations=exclude_automations)

    async def _send_alone(self, row: RefusedRow) -> dict[ContactId, str]:
        return await self._write_one(row.change)

    async def _import_one(self, row: RefusedRow, *, exclude_automations: bool) -> dict[ContactId, str]:
        """Import one contact whole, then without refused values; at last send it by itself.

        Not so if a custom field is refused: a request of its own would ignore the field.
        """
        try:
            return await self._try_one(row, exclude_automations=exclude_automations)
        except FieldRefused as error:
            return self._imports.field_refused([row.change], str(error))

    async def _try_one(self, row: RefusedRow, *, exclude_automations: bool) -> dict[ContactId, str]:
        async with self._ports.locks.hold([row.change.id]):
            change, said = row.change, row.said
            left = await self._without_refused(change, said) if row.was_alone else change
            while left is not None:
                change, left = left, None
                result = await self._imports.run([change], exclude_automations=exclude_automations)
                if not (result.refused or result.unconfirmed):
                    self._last_tries.taken(change.id)
                    return result.held
                for refused in result.refused:
                    said = refused.said
                    left = await self._without_refused(change, said)
            if change.needs_import:  # the tag was recorded before the first import
                await self._ports.due.record_tags_unknown([change.id])
        if said and self._imports.is_field_refused:
            raise FieldRefused(f"{FIELD_GONE}: {said}")
        if said and not self._last_tries.takes(change.id, said):
            return {change.id: said}
        held = await self._write_one(change)
        await self.put_on_list([change], exclude_automations=exclude_automations)
        return held

    async def _without_refused(self, change: ContactChange, said: str) -> ContactChange | None:
        """Return a change without the field whose value is refused, None if the refusal names none.

        Raises FieldRefused if a custom field is refused.
        """
        if names_field_id(said, change.desired):
            raise FieldRefused(f"{FIELD_GONE}: {said}")
        return await leave_out(self._ports.links, change, said)
