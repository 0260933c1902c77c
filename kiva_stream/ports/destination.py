"""What the stages need of the ActiveCampaign account."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport
from kiva_stream.model.contacts import DesiredContact, ShownContact
from kiva_stream.model.ids import AcId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, ShownOrder
from kiva_stream.model.tracked_events import LoggedEvent
from kiva_stream.model.week_tags import WeekTag


class Events(Protocol):
    """Event tracking of one ActiveCampaign account."""

    async def send(self, email: Email, name: str, eventdata: str) -> None:
        """Record one event for the contact of `email`; return when ActiveCampaign said it has it.

        Waits out throttling, outages and what was surely not sent. Raises Rejected when ActiveCampaign
        refuses this event, UnknownOutcome when it may or may not have it, AccountRefused when it refuses
        the account.
        """
        ...


class Contacts(Protocol):
    """Contacts of one ActiveCampaign account. Every call waits out throttling and outages.

    Every call raises AccountRefused when ActiveCampaign refuses the key or the account.
    """

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        """Have up to 250 contacts imported, without starting automations or with.

        Raises RowsRejected with the rows that ActiveCampaign refuses: then nothing was imported.
        """
        ...

    async def import_report(self, import_id: str) -> ImportReport:
        """Return how far an import has come."""
        ...

    def fitting(self, contacts: Sequence[DesiredContact]) -> int:
        """Return how many of these, from the first, fit into one import; at least one of one or more."""
        ...

    async def find(self, email: Email) -> AcId | None:
        """Return the id of the contact of this address, None when there is none."""
        ...

    async def page(self, after: AcId) -> dict[Email, AcId]:
        """Return up to 100 contacts with ids above `after`, in the order of their ids."""
        ...

    async def sync(self, contact: DesiredContact) -> AcId:
        """Create or update one contact, leaving its lists alone. Raises Rejected when it is refused."""
        ...

    async def rename(self, contact: AcId, email: Email) -> None:
        """Give a contact another address.

        Raises AddressTaken when another contact has it, ContactGone when there is no contact of this id,
        Rejected when it is refused.
        """
        ...

    async def set_list(self, contact: AcId, *, subscribed: bool) -> None:
        """Subscribe a contact to the list `all customers`, or unsubscribe it; Rejected when it is refused."""
        ...

    async def disown(self, contact: AcId) -> None:
        """Clear the customer id of a contact. Raises ContactGone, or Rejected when it is refused."""
        ...


class WeekTags(Protocol):
    """The week tags of one ActiveCampaign account; these calls yield to all others in the budget, but `add`.

    Every call waits out throttling and outages, raises AccountRefused, and Rejected when it is refused.
    """

    async def on(self, contact: AcId) -> dict[WeekTag, int]:
        """Return the week tags on a contact, with the ids of their links.

        Raises ContactGone when there is no such contact.
        """
        ...

    async def add(self, contact: AcId, tag: WeekTag) -> int:
        """Put a tag on a contact; return the id of the link. Raises ContactGone."""
        ...

    async def remove(self, link: int) -> None:
        """Take a tag off a contact; one that is off already is done."""
        ...


class TrackingLogs(Protocol):
    """What ActiveCampaign has of a contact's events. Waits out throttling and outages."""

    async def of(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:
        """Return all events that a contact's log lists, in the order in which they arrived.

        With `low_priority` the call is made behind all others. Raises ContactGone if there is no such
        contact, AccountRefused, and Rejected if the request is refused.
        """
        ...


class ReadBacks(Protocol):
    """What ActiveCampaign shows of contacts and orders; these calls yield to all others in the budget.

    Every call waits out throttling and outages, raises AccountRefused, and Rejected when it is refused.
    """

    async def contact(self, contact: AcId) -> ShownContact:
        """Return a contact. Raises ContactGone when there is no such contact."""
        ...

    async def orders(self, ids: Collection[OrderId]) -> dict[OrderId, ShownOrder]:
        """Return those of these orders of the shop that are there."""
        ...


class OrderUploads(Protocol):
    """Orders of one ActiveCampaign account. Waits out throttling and outages; raises AccountRefused."""

    async def upsert(self, orders: Sequence[DesiredOrder]) -> None:
        """Have orders written, which ActiveCampaign does some seconds after it accepted them.

        None of them is when this raises OrdersRejected, which names those at fault where ActiveCampaign did,
        or BatchTooLarge.
        """
        ...
