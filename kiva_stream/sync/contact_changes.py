"""Contact changes: the contacts that ActiveCampaign does not show as the shop has them.

A contact differs if the fingerprint of what its current rows ask for is not the fingerprint of what
ActiveCampaign confirmed last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from kiva_stream.model.contacts import ContactRecord, DesiredContact, ListStatus, NotOnList
from kiva_stream.model.ids import ContactId
from kiva_stream.model.site import Site
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.current_contacts import CurrentContact, counted_customers, read_current
from kiva_stream.sync.desired_contact import cleared, desired_contact, fingerprint, is_same
from kiva_stream.sync.refused_fields import left_out, without


class ContactChange(NamedTuple):
    """A contact that ActiveCampaign does not show as the shop has it."""

    record: ContactRecord
    desired: DesiredContact
    is_off: bool = False  # it was unsubscribed for this change
    refused_place: str = ""  # the reply if ActiveCampaign refused to unsubscribe it
    confirms: bytes | None = None  # a fingerprint; None: that of `desired`

    @property
    def id(self) -> ContactId:
        """The contact's id."""
        return self.record.contact.id

    @property
    def contact_id(self) -> ContactId:
        """Whose entries wait for it."""
        return self.id

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of what is to be sent."""
        return fingerprint(self.desired)

    @property
    def needs_import(self) -> bool:
        """Whether the contact is not linked: then the change is sent by an import first.

        Only if the contact fails there is it sent by itself, and then without a subscription and a tag.
        """
        return not self.record.contact.is_linked

    def without_clearing(self) -> ContactChange:
        """Return the change that leaves names and phone as they are where the shop has none."""
        return self._replace(record=replace(self.record, fingerprint=None))

    @property
    def is_known(self) -> bool:
        """Whether ActiveCampaign is known to have the contact."""
        return self.record.contact.is_linked or self.record.ac_id is not None

    def without(self, field: str) -> ContactChange:
        """Return the change without the value of a field."""
        return self._replace(desired=without(self.desired, [field]))

    @property
    def clears(self) -> frozenset[str]:
        """The names, the phone among them, that ActiveCampaign shows and the shop has no more."""
        return (
            cleared(self.desired, self.record.fingerprint) if self.record.contact.is_linked else frozenset()
        )

    @property
    def wants_list(self) -> bool:
        """Whether the change puts the contact on the list, if an import sends it."""
        return self.desired.list_status is ListStatus.SUBSCRIBE

    @property
    def unsubscribes(self) -> bool:
        """Whether the change takes the contact off the list."""
        return self.desired.list_status is ListStatus.UNSUBSCRIBE


class ContactChanges:
    """Reads contacts' rows and finds which contacts differ. Every call raises SourceError."""

    def __init__(
        self,
        site: Site,
        ports: ContactPorts,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._site = site
        self._ports = ports
        self._now = now

    async def current(self, records: Collection[ContactRecord]) -> list[CurrentContact]:
        """Read the rows of contacts' customers."""
        return await read_current(self._ports.customers, self._site.id, records)

    async def of(self, contacts: Iterable[CurrentContact]) -> list[ContactChange]:
        """Return the changes of those contacts that ActiveCampaign does not show as their rows have them."""
        today = self._today()
        found = [(contact, change) for contact in contacts if (change := self._change(contact, today))]
        # Tags are looked up only for contacts that differ, and are no part of the difference.
        tags = await self._first_tags([contact for contact, _ in found])
        return [
            change._replace(desired=replace(change.desired, tag=tags.get(change.id))) for _, change in found
        ]

    def not_on_list(self, contacts: Iterable[CurrentContact]) -> list[ContactChange]:
        """Return changes that subscribe those of these contacts that an import is to put on the list."""
        today = self._today()
        return [
            ContactChange(
                contact.record,
                desired_contact(contact.record.contact.email, contact.counted, is_new=True, today=today),
            )
            for contact in contacts
            if contact.record.not_on_list is NotOnList.CAME_ALONE and contact.counted
        ]

    def _today(self) -> date:
        return self._now().astimezone(ZoneInfo(self._site.timezone)).date()

    def _change(self, contact: CurrentContact, today: date) -> ContactChange | None:
        """Return the change of a contact.

        None: it does not differ, none of its customers counts, or ActiveCampaign refused exactly this change.
        """
        record, counted = contact.record, contact.counted
        if not counted:
            return None
        desired = desired_contact(
            record.contact.email, counted, is_new=not record.contact.is_linked, today=today
        )
        desired = without(desired, left_out(record, desired))
        is_known = is_same(desired, record.fingerprint) or is_same(desired, record.refused_fingerprint)
        return None if is_known else ContactChange(record, desired)

    async def _first_tags(self, contacts: Iterable[CurrentContact]) -> dict[ContactId, WeekTag]:
        """Return the week tags that imports put on the contacts they create.

        Left out are linked contacts, and those that are not linked but whose id at ActiveCampaign is known:
        they exist there already, so an import does not create them.

        The tag of an import is recorded before the import is sent. If that import was lost, it may still have
        put its tag on the contact. So the same tag is sent again: another one would be a second tag.
        """
        newcomers = [
            each for each in contacts if not each.record.contact.is_linked and each.record.ac_id is None
        ]
        if not newcomers:
            return {}
        weeks = self._ports.weeks
        statuses = await weeks.statuses(counted_customers(newcomers), await weeks.current())
        return {each.id: each.record.tag or each.week_tag(statuses) for each in newcomers}
