"""The contacts whose week tag is due (the table `tag_due`), and the tags they have."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from kiva_stream.model.contacts import DueContact
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.links import contact_from, record_from
from kiva_stream.state.store import Store


class DueTags:
    """Implements the port TagsDue for one site.

    A row's `mark` grows whenever its contact is marked due, so that clearing an older mark does nothing.
    """

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def week(self) -> date | None:
        """Return the week of the row of the site."""
        rows = await self._store.fetch("site", self._site_id)
        return next((row["week_start"] for row in rows), None)

    async def begin_week(self, week: date) -> None:
        """Record the week and mark all linked contacts due, in one statement."""
        await self._store.fetch("begin_week", self._site_id, week)

    async def mark_all_due(self) -> None:
        """Mark all linked contacts due."""
        await self._store.fetch("mark_all_due", self._site_id)

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        """Mark those of these contacts due that are linked."""
        await self._store.fetch("mark_due", self._site_id, list(contacts))

    async def page(self, after: ContactId, count: int) -> list[DueContact]:
        """Return due contacts as they are stored, each with the mark to clear."""
        rows = await self._store.fetch("due_after", self._site_id, after, count)
        return [DueContact(record_from(row, contact_from(row)), row["mark"]) for row in rows]

    async def clear_due(self, due: Collection[DueContact]) -> None:
        """Delete the rows that still have these marks."""
        contacts, marks = [each.record.contact.id for each in due], [each.mark for each in due]
        await self._store.fetch("clear_due", self._site_id, contacts, marks)

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        """Clear the columns of the tag and of its link."""
        await self._store.fetch("clear_tags", list(contacts))

    async def record_tag(self, contact: ContactId, *, ac_id: AcId, tag: WeekTag, link: int) -> None:
        """Write the columns of the tag, of its link, and of ActiveCampaign's id."""
        await self._store.fetch("set_tag", contact, ac_id, tag, link)
