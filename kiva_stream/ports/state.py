"""What the stages need of the state schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Protocol

from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.checkpoint import Commit, ParkedBehind
from kiva_stream.model.contacts import Contact, ContactRecord, DueContact, LeftOut
from kiva_stream.model.dead_letters import ReplayRequest
from kiva_stream.model.held_records import HeldKey, HeldRecord
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.incidents import Incident
from kiva_stream.model.orders import BatchLimit, SentOrder
from kiva_stream.model.outcomes import Outcome, Reason
from kiva_stream.model.positions import IdGap, Position
from kiva_stream.model.week_tags import WeekTag


class FencingCheck(Protocol):
    """Tells whether this process may still write to ActiveCampaign: its lease of the site has not expired."""

    def require(self) -> None:
        """Raise HeldError when another process may have taken the site by now: then nothing may be sent."""

    async def regained(self) -> None:
        """Return when the lease is renewed, so that `require` passes again."""


class AnsweredUrl(Protocol):
    """Tells whether ActiveCampaign ever answered at the account's URL: then that is no wrong one."""

    @property
    def is_known(self) -> bool:
        """Whether it is known that ActiveCampaign answered there."""

    async def record(self) -> None:
        """Record that ActiveCampaign answered there, as far as the state can be written just now."""


class IdGaps(Protocol):
    """The id gaps of a log that is read without a horizon: ids that no entry had when reading passed them.

    Every call raises CheckpointError. One that writes raises HeldError if the lease was lost.
    """

    async def record(self, after: int, until: int, gaps: Sequence[IdGap]) -> None:
        """Store the gaps among the ids above `after` up to and including `until`, which were just read.

        They replace those stored for these ids. A gap that reaches into it from below ends at `after`.
        """

    async def page(self, after: int, until: int, count: int) -> list[IdGap]:
        """Return up to `count` gaps that begin above one id and end at or below another, by their ids."""

    async def record_found(
        self, before: Sequence[IdGap], after: Sequence[IdGap], found: Sequence[Position]
    ) -> None:
        """Replace the gaps `before` by what is left of them, `after`, and park the entries found in them.

        Both happen in one transaction.
        """

    async def expire(self, keep_s: float) -> None:
        """Delete the gaps that were seen more than `keep_s` seconds ago."""


class ContactDeadLetters(Protocol):
    """The dead letters that may be delivered after a customer's address appears or changes."""

    async def without_contact(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        """Return the entries of these customers that are dead for one of CONTACT_REASONS, in log order.

        Discarded ones are left out. Raises CheckpointError.
        """


class ReplayRequests(Protocol):
    """The requested replays of dead letters. Every call raises CheckpointError."""

    async def replay_requests(self) -> dict[Position, ReplayRequest]:
        """Return the entries whose replay was requested, in log order."""

    async def order_replay_requests(self) -> list[OrderId]:
        """Return the refused orders whose replay was requested, by id."""


class Links(Protocol):
    """Which contact each customer has, and what is known of each contact at ActiveCampaign.

    It also has the imports that are not known to have ended, and the tallies of notes on contacts and orders.
    Every call raises CheckpointError.
    """

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return the contacts of these customers; create and link those that are missing.

        A customer is linked to the contact of the address given if it has no contact yet, or if its contact
        has another address and was never confirmed by ActiveCampaign.
        """

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        """Return the contacts of these customers. A customer without one is left out."""

    async def page(self, after: ContactId, count: int) -> list[ContactRecord]:
        """Return up to `count` contacts with ids above `after`, by id."""

    async def records(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        """Return the contacts of these ids."""

    async def find_by_email(self, email: Email) -> ContactRecord | None:
        """Return the contact of an address, None when there is none."""

    async def relink(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        """Link these customers to the contact of an address, which is created if there is none; return it.

        `ac_id` is the contact's id at ActiveCampaign; None leaves what is known of it. The week tags of the
        contacts they leave and of this one become due, since their customers changed.
        """

    async def open_imports(self) -> list[OpenImport]:
        """Return the imports that ActiveCampaign accepted and whose end is not recorded, the oldest first."""

    async def record_import(self, started: OpenImport) -> None:
        """Record an import that ActiveCampaign accepted."""

    async def carried(self) -> dict[ContactId, tuple[bytes, float]]:
        """Return what imports without an answer carried of contacts, and how many seconds ago."""

    async def record_carried(self, fingerprints: Mapping[ContactId, bytes]) -> None:
        """Record that an import carries contacts from now on, with the fingerprints of what it carries."""

    async def withdraw_carried(self, contacts: Collection[ContactId]) -> None:
        """Delete what was recorded of carried contacts."""

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        """Delete a recorded import, and record these contacts of it as confirmed as they were sent."""

    async def record_confirmed(
        self,
        contact: ContactId,
        fingerprint: bytes,
        ac_id: AcId,
        *,
        unsubscribed: bool,
        came_alone: bool = False,
    ) -> None:
        """Record that ActiveCampaign has a contact as it was sent.

        The contact is linked, and no longer erased; its week tag becomes due if it was not linked before.
        `came_alone`: no import has put it on the list.
        `unsubscribed`: kiva_stream took it off the list.
        """

    async def record_list_status(self, contact: ContactId, *, unsubscribed: bool) -> None:
        """Record whether kiva_stream took a contact off the list."""

    async def record_on_list(self, contacts: Collection[ContactId]) -> None:
        """Record that contacts are on the list, or left it themselves."""

    async def record_import_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        """Record the week tag that an import gives to each contact it creates. Call it before the import."""

    async def ids_known_up_to(self) -> AcId:
        """Return the highest of ActiveCampaign's contact ids that was looked at, 0 before the first."""

    async def record_ids(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        """Record ActiveCampaign's ids of the contacts of these addresses, and up to which id was looked.

        Addresses without a contact are left out.
        """

    async def record_email(self, contact: ContactId, email: Email) -> None:
        """Record that a contact has another address at ActiveCampaign."""

    async def record_orphaned(self, contact: ContactId) -> None:
        """Record that a contact has no customers any more, and forget what ActiveCampaign confirmed of it.

        It is new again, and its week tag is not due. What ActiveCampaign still shows of it is left as it is.
        """

    async def record_erased(self, contact: ContactId) -> None:
        """Record that the shop erased a contact's customers, and that it is still at ActiveCampaign."""

    async def record_rejected(self, contact: ContactId, why: Reason) -> None:
        """Record that a contact is rejected, and the reason that its dead letters get."""

    async def record_refused(self, contact: ContactId, fingerprint: bytes, reply: str) -> None:
        """Record the change of a contact that ActiveCampaign refused, and its reply.

        A contact that is not linked is rejected. The next confirmation of the contact clears the refusal.
        """

    async def record_left_out(self, contact: ContactId, field: str, left_out: LeftOut) -> None:
        """Record that a contact goes without the value of a field while it is the same."""

    async def retry_refused(self, contacts: Collection[ContactId]) -> None:
        """Forget what ActiveCampaign refused of these contacts; those that it rejected are new again.

        The fields that were left out are sent again.
        """

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        """Add to the tallies of notes, by their names."""


class SentOrders(Protocol):
    """What ActiveCampaign has of the site's orders. Every call raises CheckpointError."""

    async def sent(self, ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        """Return what was last sent of these orders. An order that was never sent is left out."""

    async def ids_between(self, after: OrderId, until: OrderId) -> list[OrderId]:
        """Return the ids of the orders sent above one id, up to and including another, in order."""

    async def record(self, orders: Collection[SentOrder]) -> None:
        """Record what ActiveCampaign accepted or refused of these orders.

        Accepted ones are no longer recorded as carried.
        """

    async def record_carried(self, ids: Collection[OrderId]) -> list[OrderId]:
        """Record that a request carries these orders as REAL_TIME; return those not recorded before."""

    async def withdraw_carried(self, ids: Collection[OrderId]) -> None:
        """Record that no request carried these orders that ActiveCampaign may have accepted."""

    async def batch_limit(self) -> BatchLimit | None:
        """Return how many orders a request may have, None if that was never recorded."""

    async def record_batch_limit(self, limit: BatchLimit) -> None:
        """Record how many orders a request may have."""


class HeldRows(Protocol):
    """The stored records that are held. Every call raises CheckpointError."""

    async def read(self, *, is_due: bool = False) -> list[HeldRecord]:
        """Return all of them, or those whose next try is due."""

    async def record(self, held: Collection[HeldRecord]) -> None:
        """Add records that are held, or replace what is stored of them."""

    async def move(self, key: HeldKey, contact: ContactId) -> None:
        """Record that the entries of another contact wait for a held record."""

    async def end(self, keys: Collection[HeldKey]) -> None:
        """Delete records that are held no more."""


class TagsDue(Protocol):
    """The contacts whose week tag is due: ActiveCampaign may show another tag than it should.

    Only a linked contact can be marked due; a contact that is not linked becomes due when it is linked.
    Every call raises CheckpointError.
    """

    async def week(self) -> date | None:
        """Return the Monday of the week that the tags are about, None before the first."""

    async def begin_week(self, week: date) -> None:
        """Record the week that the tags are about from now on, and mark all linked contacts due."""

    async def mark_all_due(self) -> None:
        """Mark all linked contacts due."""

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        """Mark those of these contacts due that are linked."""

    async def page(self, after: ContactId, count: int) -> list[DueContact]:
        """Return up to `count` due contacts with ids above `after`, by id."""

    async def clear_due(self, due: Collection[DueContact]) -> None:
        """Record that these contacts have the right tag. One that was marked due again stays due."""

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        """Record that the tags of these contacts are not known.

        Call it before a tag is changed, and after an import that may not have given the tag it was sent with.
        """

    async def record_tag(self, contact: ContactId, *, ac_id: AcId, tag: WeekTag, link: int) -> None:
        """Record the tag of a contact, and ActiveCampaign's ids of the contact and of its link to the tag."""


class Ledger(Protocol):
    """The checkpoint, and the outcomes that are saved with it. Every call raises CheckpointError."""

    async def commit(self, commit: Commit) -> None:
        """Save outcomes, write-ahead intents and watermark in one transaction, and renew the lease.

        Raises HeldError if the lease was lost; then nothing is saved.
        """

    async def earlier_outcomes(self, after: Position, until: Position) -> dict[Position, Outcome]:
        """Return the stored outcomes of entries above one position, up to and including another.

        A parked entry has the outcome PARKED. Skipped and synced entries are not stored.
        """

    async def parked_of(self, contacts: Collection[ContactId]) -> list[Position]:
        """Return the parked entries of contacts, and those parked without a contact, in log order."""

    async def parked_page(self, after: Position, until: Position, count: int) -> list[Position]:
        """Return the next parked entries above one position, up to and including another, in log order."""

    async def largest_parked(self, count: int) -> list[ParkedBehind]:
        """Return the contacts that most parked entries are of, the largest first."""

    async def reopenable(
        self, positions: Collection[Position], dead_letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that are parked; of the `dead_letters`, those that are dead."""


class IncidentStore(Protocol):
    """The stored incidents of one site, which `status` shows."""

    async def persist(self, incidents: Collection[Incident]) -> None:
        """Replace what is stored by these. Raises CheckpointError."""
