"""Held records: ActiveCampaign did not take them, though it takes others; they are to be tried again."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from kiva_stream.model.ids import ContactId


class HeldKind(StrEnum):
    """What is held."""

    CONTACT = "contact"
    ORDER = "order"
    LIST = "list"  # the place of a contact on the list
    EVENT = "event"
    TAG = "tag"  # the week tag of a contact; no entry waits for it


class HeldKey(NamedTuple):
    """Which record is held."""

    kind: HeldKind
    id: int  # of an order at the shop, else of the contact in the state


class Silent(NamedTuple):
    """A record that was not taken."""

    contact: ContactId  # whose entries wait for it, unless it is a tag
    fingerprint: bytes  # of what was sent
    reply: str  # the last one, or why there was none
    is_suspect: bool = True  # False: it was refused, and that may be the account's trouble
    sent: int = 0  # how often, of an event


class HeldRecord(msgspec.Struct, frozen=True):
    """A record that is held."""

    key: HeldKey
    contact: ContactId
    fingerprint: bytes
    reply: str
    attempts: int
    due_in_s: float  # when this was read or written: until the next try; infinite: a replay alone tries it
    is_suspect: bool = True
    is_discarded: bool = False  # the next try counts it as refused
    sent: int = 0  # how often, of an event
