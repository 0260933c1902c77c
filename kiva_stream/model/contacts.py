"""Contacts: their links, their desired state, and what ActiveCampaign shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.model.week_tags import WeekTag


class ContactStatus(StrEnum):
    """How far a contact has come."""

    NEW = "new"  # to be created; ActiveCampaign has not confirmed it
    LINKED = "linked"  # ActiveCampaign confirmed it
    REJECTED = "rejected"  # ActiveCampaign refuses it, or no customer of its address is left


class Contact(msgspec.Struct, weakref=True):
    """A contact: the ordering key. A process has one object for each, so that every part sees it change.

    Only a DueContact has a copy of its own, as the state had the contact when it was read.
    """

    id: ContactId
    email: Email  # the address last confirmed; while the contact is new, the one it is to have
    status: ContactStatus
    why: str = ""  # of a rejected contact: the Reason its entries are dead for
    synced_to: Position = Position(0, 0)  # ActiveCampaign shows what entries up to here changed
    reply: str = ""  # what ActiveCampaign said when it refused the contact, without secrets and addresses

    @property
    def is_linked(self) -> bool:
        """Whether ActiveCampaign confirmed the contact."""
        return self.status is ContactStatus.LINKED

    @property
    def is_refused(self) -> bool:
        """Whether ActiveCampaign refuses it. NO_CONTACT is no refusal: a customer may join it."""
        return self.status is ContactStatus.REJECTED and self.why != Reason.NO_CONTACT

    def set_status(self, status: ContactStatus, why: str = "", reply: str = "") -> None:
        """Set how far the contact has come; `why` is a rejected one's, and `reply` a refused one's."""
        self.status, self.why, self.reply = status, why, reply

    def move_to(self, email: Email) -> None:
        """Set its address."""
        self.email = email

    def mark_synced(self, position: Position) -> None:
        """Note that ActiveCampaign shows what entries up to a position changed."""
        self.synced_to = max(self.synced_to, position)


class LeftOut(NamedTuple):
    """An optional field that a contact goes without, since ActiveCampaign refused its value."""

    value_hash: str
    reply: str  # without the value


class NotOnList(StrEnum):
    """Why a linked contact may not be on the list."""

    OTHER_LIST = "other list"  # it was linked before the account had the list that it has now
    CAME_ALONE = "came alone"  # by contact/sync, which subscribes no contact; an import is to follow


class ContactRecord(msgspec.Struct, frozen=True):
    """What the state knows of a contact: its customers, and what ActiveCampaign has of it."""

    contact: Contact
    customers: tuple[CustomerId, ...]
    fingerprint: bytes | None  # of what ActiveCampaign last confirmed
    ac_id: AcId | None = None  # None: not known, or not there
    tag: WeekTag | None = None  # the one it has there, or is just being given; None: not known
    tag_link: int | None = None  # ActiveCampaign's id of that tag on this contact; None: not known
    unsubscribed: bool = False  # from the list, by us
    refused_fingerprint: bytes | None = None  # of the change that ActiveCampaign refused last
    left_out: Mapping[str, LeftOut] = {}  # by the attribute of DesiredContact
    taken_off: bool = False  # the list, by us, and not put back by us; it may be back in another way
    not_on_list: NotOnList | None = None  # None: it was subscribed, or it left the list


class DueContact(NamedTuple):
    """A contact whose week tag may differ; `mark` changes whenever it becomes due again."""

    record: ContactRecord
    mark: int


class ListStatus(StrEnum):
    """What a contact's membership of the list `all customers` is to become."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    KEEP = "leave"  # the membership stays as it is; stored fingerprints contain the value


class DesiredContact(msgspec.Struct, frozen=True):
    """A contact as ActiveCampaign should show it; clean text, ready to be sent."""

    email: Email
    first_name: str | None  # None: not sent, as in every field that may be None
    last_name: str | None
    phone: str | None
    customer_id: str  # the field `Kiva Customer ID`: the best account's
    list_status: ListStatus
    status: str = ""  # this and the following are fields too; "" clears one
    next_delivery: str = ""  # YYYY-MM-DD, as are the other dates
    cancel_date: str = ""
    birthday: str | None = ""
    box_type: str | None = ""
    tag: WeekTag | None = None  # put on it by the import that first creates it
    notes: tuple[str, ...] = ()  # what was odd about its rows; counted, not sent


class ShownContact(msgspec.Struct, frozen=True):
    """A contact as ActiveCampaign shows it."""

    email: Email
    first_name: str
    last_name: str
    phone: str
    fields: Mapping[str, str]  # by the attribute of DesiredContact; one without a value is not among them
    is_subscribed: bool  # to the list `all customers`
