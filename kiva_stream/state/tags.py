"""The contacts whose week tag is due, in the state schema: implements the port TagsDue."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from kiva_stream.model.contacts import DueContact
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.links import contact_from, linked_from
from kiva_stream.state.store import Store


class DueTags:
    """The week tags of one site's contacts. Every call raises CheckpointError.

    Only linked contacts are due: who is linked later is due then.
    """

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def week(self) -> date | None:
        """Return the week that the tags speak of; None before the first."""
        rows = await self._store.fetch("site", self._site_id)
        return next((row["week_start"] for row in rows), None)

    async def begin_week(self, week: date) -> None:
        """Note that the tags are to speak of another week: every linked contact is due."""
        await self._store.fetch("open_week", self._site_id, week)

    async def mark_all_due(self) -> None:
        """Have every linked contact looked at."""
        await self._store.fetch("all_due", self._site_id)

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        """Have these contacts looked at."""
        await self._store.fetch("add_due", self._site_id, list(contacts))

    async def page(self, after: ContactId, count: int) -> list[DueContact]:
        """Return up to `count` due contacts with ids above `after`, by id, as they are stored."""
        rows = await self._store.fetch("due_after", self._site_id, after, count)
        return [DueContact(linked_from(row, contact_from(row)), row["mark"]) for row in rows]

    async def clear_due(self, due: Collection[DueContact]) -> None:
        """Note that these are as they should be; who became due again meanwhile stays due."""
        contacts, marks = [each.record.contact.id for each in due], [each.mark for each in due]
        await self._store.fetch("settle_due", self._site_id, contacts, marks)

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        """Note, before it is changed, that a contact's tag is not known any more."""
        await self._store.fetch("forget_tags", list(contacts))

    async def record_tag(self, contact: ContactId, ac_id: AcId, tag: WeekTag, link: int) -> None:
        """Note which tag a contact has now, and the id of its link."""
        await self._store.fetch("set_tag", contact, ac_id, tag, link)
