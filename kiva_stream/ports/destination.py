"""What the stages need of the ActiveCampaign account.

Every coroutine here outlasts throttling and outages: it returns once ActiveCampaign has answered. It raises
AccountRefused if ActiveCampaign refuses the key or the account, HeldError if the site's lease is lost, and
what its own docstring names. In `follow` calls outlast a refused key or account too. There AccountRefused is
raised only by the sync, when ActiveCampaign refuses so many contacts or week tags that the cause is the
account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport
from kiva_stream.model.contacts import DesiredContact, ShownContact
from kiva_stream.model.ids import AcId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, ShownOrder
from kiva_stream.model.tracked_events import LoggedEvent
from kiva_stream.model.week_tags import WeekTag

# Returns a context in which one attempt of a request is made.
Around = Callable[[], AbstractAsyncContextManager[None]]


class Events(Protocol):
    """Event tracking of one account."""

    async def send(self, email: Email, name: str, eventdata: str, *, is_suspect: bool = False) -> None:
        """Record one event for the contact of `email`; return when ActiveCampaign confirmed it.

        What becomes of an event that `is_suspect` says nothing about the account.
        An event that was surely not sent is sent again. Raises Rejected if ActiveCampaign refuses this event,
        UnknownOutcome if it may have been recorded, and DrainedError if a drain began before it was sent.
        """


class Contacts(Protocol):
    """Contacts of one account."""

    async def answers(self) -> bool:
        """Return whether the service that takes contacts answers a read."""

    async def start_import(
        self,
        contacts: Sequence[DesiredContact],
        *,
        exclude_automations: bool,
        tries: float = math.inf,
        is_suspect: bool = False,
        around: Around = nullcontext,
    ) -> AcceptedImport:
        """Start a bulk import of at most 250 contacts; with `exclude_automations` it starts no automation.

        Raises RowsRejected with the rows that may be at fault, Rejected if none is named; then none of the
        contacts was imported. Raises Unanswered after `tries` attempts without an answer; those of an import
        that `is_suspect` say nothing about the account. Each attempt is made in a context of its own that
        `around` returns, which gets the error of the attempt.
        """

    async def outstanding_imports(self, *, tries: float = math.inf) -> int:
        """Return how many imports of the account have not ended.

        Raises PermissionRefused, Unanswered after `tries` attempts.
        """

    async def import_report(self, import_id: str) -> ImportReport:
        """Return how far an import has come."""

    def count_fitting(self, contacts: Sequence[DesiredContact]) -> int:
        """Return how many of these, from the first, fit into one import: at least one, if there are any."""

    async def find(self, email: Email, *, tries: float = math.inf, is_suspect: bool = False) -> AcId | None:
        """Return the id of the contact with this address, None if there is none.

        Raises PermissionRefused, and Unanswered as `start_import` does.
        """

    async def page(self, after: AcId) -> dict[Email, AcId]:
        """Return the next contacts, up to 100, with ids above `after` and in the order of their ids.

        Raises PermissionRefused.
        """

    async def upsert(
        self,
        contact: DesiredContact,
        *,
        clear: Collection[str] = (),
        tries: float = math.inf,
        is_suspect: bool = False,
    ) -> AcId:
        """Create or update one contact, without changing its lists; return its id.

        Raises Rejected, and Unanswered as `start_import` does. An empty name or phone is left as it is there,
        unless `clear` contains its attribute.
        """

    async def rename(
        self, contact: AcId, email: Email, *, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        """Give a contact another address.

        Raises AddressTaken if another contact has it, ContactGone if there is no contact of this id, and
        Rejected; Unanswered as `start_import` does.
        """

    async def set_list(
        self, contact: AcId, *, subscribed: bool, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        """Subscribe a contact to the list, or unsubscribe it.

        Raises ContactGone, Rejected, and Unanswered as `start_import` does.
        """

    async def list_place(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> bool | None:
        """Return whether a contact is subscribed to the list or unsubscribed; None: neither, or it is gone.

        Raises Unanswered as `start_import` does.
        """

    async def clear_customer_id(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        """Clear the customer id of a contact.

        Raises ContactGone, Rejected, and Unanswered as `start_import` does.
        """


class WeekTags(Protocol):
    """The week tags of one account.

    `links` and `remove` have low priority: every other call to the account is made before them. `add` has the
    usual one, since a contact whose old tag was removed has no tag until its new one is added.
    Each call raises Unanswered as `Contacts.start_import` does.
    """

    async def links(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> dict[WeekTag, int]:
        """Return the week tags on a contact, with the ids of their links. Raises ContactGone, Rejected."""

    async def add(
        self, contact: AcId, tag: WeekTag, *, tries: float = math.inf, is_suspect: bool = False
    ) -> int:
        """Add a tag to a contact; return the id of its link. Raises ContactGone, Rejected."""

    async def remove(self, link: int, *, tries: float = math.inf, is_suspect: bool = False) -> None:
        """Remove a tag from its contact; no-op if the link is gone. Raises Rejected."""


class TrackingLogs(Protocol):
    """The events that ActiveCampaign received, by contact."""

    async def events(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:
        """Return all events in a contact's log, in the order of arrival.

        With `low_priority` all other calls are made before it. Raises ContactGone, Rejected and
        PermissionRefused.
        """


class ReadBacks(Protocol):
    """Contacts and orders as ActiveCampaign shows them, at low priority: all other calls come before."""

    async def contact(self, contact: AcId) -> ShownContact:
        """Return a contact. Raises ContactGone, Rejected."""

    async def orders(self, ids: Collection[OrderId]) -> dict[OrderId, ShownOrder]:
        """Return those of these orders of the shop that ActiveCampaign has. Raises Rejected."""


class OrderUploads(Protocol):
    """Orders of one account."""

    async def answers(self) -> bool:
        """Return whether the service that takes orders answers a read."""

    async def upsert(
        self,
        orders: Sequence[DesiredOrder],
        *,
        around: Around = nullcontext,
        tries: float = math.inf,
        is_suspect: bool = False,
    ) -> None:
        """Upsert a batch of orders; ActiveCampaign writes them some seconds after it accepted them.

        Raises OrdersRejected with the orders that ActiveCampaign names as at fault, if any, and
        BatchTooLarge; then none of the orders is written. Raises Unanswered after `tries` attempts without
        an answer; those of a batch that `is_suspect` say nothing about the account. Each attempt is made in a
        context of its own that `around` returns, which gets the error of the attempt.
        """
