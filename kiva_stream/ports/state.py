"""What the stages need of the state schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Protocol

from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.checkpoint import Commit
from kiva_stream.model.contacts import Contact, ContactRecord, DueContact
from kiva_stream.model.dead_letters import ReplayRequest
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.incidents import Incident
from kiva_stream.model.orders import SentOrder
from kiva_stream.model.outcomes import Outcome, Reason
from kiva_stream.model.positions import IdGap, Position
from kiva_stream.model.week_tags import WeekTag


class FencingCheck(Protocol):
    """Tells whether this process may still write to ActiveCampaign: its lease of the site has not expired."""

    def require(self) -> None:
        """Raise HeldError when another process may have taken the site by now: then nothing may be sent."""
        ...

    async def regained(self) -> None:
        """Return when the lease is renewed, so that `require` passes again."""
        ...


class IdGaps(Protocol):
    """The gaps of ids that the log was read past without a horizon. Every call raises CheckpointError."""

    async def record(self, after: int, until: int, gaps: Sequence[IdGap]) -> None:
        """Have it say just these of the ids above `after` up to `until`, which have been read."""
        ...

    async def page(self, after: int, until: int, count: int) -> list[IdGap]:
        """Return up to `count` gaps above one id that end at or below another, by their ids."""
        ...

    async def record_found(
        self, before: Sequence[IdGap], after: Sequence[IdGap], found: Sequence[Position]
    ) -> None:
        """Put what is left of gaps in their place, and park what was found in them. All of it, or nothing."""
        ...

    async def expire(self, keep_s: float) -> None:
        """Forget the gaps that have been looked at for this long."""
        ...


class ContactDeadLetters(Protocol):
    """Dead letters that a customer's new address may bring back to life."""

    async def without_contact(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        """Return the entries of these customers that died for want of a contact. Raises CheckpointError."""
        ...


class ReplayRequests(Protocol):
    """Dead letters that are to be replayed. Every call raises CheckpointError."""

    async def replay_requests(self) -> dict[Position, ReplayRequest]:
        """Return the entries that are, in log order."""
        ...

    async def order_replay_requests(self) -> list[OrderId]:
        """Return the refused orders that are to be sent again."""
        ...


class Links(Protocol):
    """Which customer is which contact, and how far each contact has come.

    Every call raises CheckpointError.
    """

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return these customers' contacts; a customer without a link joins the contact of its address.

        So does one whose address changed before ActiveCampaign confirmed the contact of the old one.
        """
        ...

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        """Return the contacts of those of these customers who have one."""
        ...

    async def page(self, after: ContactId, count: int) -> list[ContactRecord]:
        """Return up to `count` contacts with ids above `after`, by id."""
        ...

    async def records(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        """Return these contacts, with their customers."""
        ...

    async def open_imports(self) -> list[OpenImport]:
        """Return the imports that ActiveCampaign accepted and whose end is not known yet."""
        ...

    async def record_import(self, started: OpenImport) -> None:
        """Remember an accepted import until its end is known."""
        ...

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        """Forget an import; these contacts of it are linked as they were sent."""
        ...

    async def record_confirmed(
        self, contact: ContactId, fingerprint: bytes, ac_id: AcId, *, unsubscribed: bool
    ) -> None:
        """Note that ActiveCampaign has this contact as it was sent; `unsubscribed` is of the list, by us."""
        ...

    async def record_list_status(self, contact: ContactId, *, unsubscribed: bool) -> None:
        """Note that ActiveCampaign has this contact on the list, or not any more."""
        ...

    async def record_import_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        """Note which tag the import that creates these contacts puts on each, before it is sent."""
        ...

    async def ids_known_up_to(self) -> AcId:
        """Return up to which id ActiveCampaign's contacts have been looked at."""
        ...

    async def find_by_email(self, email: Email) -> ContactRecord | None:
        """Return the contact of an address, None when there is none."""
        ...

    async def record_ids(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        """Note ActiveCampaign's ids of contacts by their address; addresses of no contact are passed over."""
        ...

    async def record_email(self, contact: ContactId, email: Email) -> None:
        """Note that ActiveCampaign's contact has another address now."""
        ...

    async def relink(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        """Have these customers leave their contact for that of an address, which is new if there is none.

        `ac_id` is of the contact that ActiveCampaign has already, None when it has none or is not known to.
        """
        ...

    async def record_orphaned(self, contact: ContactId) -> None:
        """Note that a contact without customers is nobody's: its fields and its tag are taken off."""
        ...

    async def record_erased(self, contact: ContactId) -> None:
        """Note that a contact is still at ActiveCampaign whose customers the shop erased."""
        ...

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        """Add to the counts of what was odd."""
        ...

    async def record_rejected(self, contact: ContactId, why: Reason) -> None:
        """Note that ActiveCampaign refuses this contact."""
        ...


class SentOrders(Protocol):
    """What ActiveCampaign has of the site's orders. Every call raises CheckpointError."""

    async def sent(self, ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        """Return what was last sent of these orders; of those never sent, nothing."""
        ...

    async def ids_between(self, after: OrderId, until: OrderId) -> list[OrderId]:
        """Return the ids of the orders sent that lie above one id, up to and including another."""
        ...

    async def record(self, orders: Collection[SentOrder]) -> None:
        """Note what ActiveCampaign has now, or refused."""
        ...


class TagsDue(Protocol):
    """The contacts whose week tag may differ from what it should be. Every call raises CheckpointError."""

    async def week(self) -> date | None:
        """Return the week that the tags speak of; None before the first."""
        ...

    async def begin_week(self, week: date) -> None:
        """Note that the tags are to speak of another week: every linked contact is due."""
        ...

    async def mark_all_due(self) -> None:
        """Have every linked contact looked at."""
        ...

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        """Have these contacts looked at."""
        ...

    async def page(self, after: ContactId, count: int) -> list[DueContact]:
        """Return up to `count` due contacts with ids above `after`, by id."""
        ...

    async def clear_due(self, due: Collection[DueContact]) -> None:
        """Note that these are as they should be; who became due again meanwhile stays due."""
        ...

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        """Note, before it is changed, that a contact's tag is not known any more."""
        ...

    async def record_tag(self, contact: ContactId, ac_id: AcId, tag: WeekTag, link: int) -> None:
        """Note which tag a contact has now, and the id of its link."""
        ...


class Ledger(Protocol):
    """The checkpoint and what goes with it. Every call raises CheckpointError."""

    async def commit(self, commit: Commit) -> None:
        """Save outcomes and watermark together."""
        ...

    async def earlier_outcomes(self, after: Position, until: Position) -> dict[Position, Outcome]:
        """Return the outcomes kept of entries between two positions, the second included; PARKED is one."""
        ...

    async def unresolved(
        self, positions: Collection[Position], letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that are not delivered, and, of the letters, still dead."""
        ...


class IncidentStore(Protocol):
    """The stored incidents of one site, which `status` shows."""

    async def persist(self, incidents: Collection[Incident]) -> None:
        """Replace what is stored by these. Raises CheckpointError."""
        ...
