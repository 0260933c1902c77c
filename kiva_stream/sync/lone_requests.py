"""Lone requests: each is about one contact, or one tag of it, and a batch is made of none.

One that gets no answer is held when others of its kind are answered: see `isolation.LoneRecords`. A kind is
one call, so that an outage of one call holds nothing for the answers of another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import anyio

from kiva_stream.errors import PermissionRefused, RecordsHeld, Rejected
from kiva_stream.model.contacts import Contact
from kiva_stream.model.ids import AcId, Email
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.ports.destination import Contacts, WeekTags
from kiva_stream.sync.isolation import BatchSender, LoneRecords

T = TypeVar("T")
DETOUR_S = 10.0
T_co = TypeVar("T_co", covariant=True)


async def _never() -> bool:
    return False


def _nothing() -> None:
    pass


class Request(Protocol[T_co]):
    """A request that may get no answer."""

    def __call__(self, *, tries: float, is_suspect: bool) -> Awaitable[T_co]:
        """Send it so many times. Raises Unanswered."""


class LoneRequests:
    """Sends the requests of one kind. `reads_answered`, `over_s` and `on_recovery` are those of LoneRecords.

    With `holds_forbidden` a request is also held if it is refused with a 403 while the key is accepted.
    """

    def __init__(
        self,
        what: str,
        reads_answered: Callable[[], Awaitable[bool]],
        over_s: float,
        *,
        holds_forbidden: bool = False,
        on_recovery: Callable[[], None] = _nothing,
    ) -> None:
        self._what = what
        self._holds_forbidden = holds_forbidden
        self._sender: BatchSender[int, int] = BatchSender(
            int, LoneRecords(reads_answered, over_s, anyio.current_time, on_recovery=on_recovery)
        )

    async def send(self, record: int, request: Request[T]) -> T:
        """Send a request about a record until it is answered.

        Raises RecordsHeld if it is held, and what the request raises but Unanswered.
        """
        answers: list[T | Rejected] = []

        async def answer(_batch: Sequence[int], /, *, tries: int, is_suspect: bool) -> list[Sequence[int]]:
            try:
                answers.append(await request(tries=tries, is_suspect=is_suspect))
            except Rejected as error:  # which is an answer, too
                answers.append(error)
            return []

        try:
            held = await self._sender.send([record], [], send=answer)
        except PermissionRefused as error:
            if not self._holds_forbidden:
                raise
            held = {record: str(error)}
        if held:
            raise RecordsHeld(self._what, held)
        (answered,) = answers
        if isinstance(answered, Rejected):
            raise answered
        return answered


class TagRequests:
    """Week tags of single contacts, and their ids. `on_recovery` is that of LoneRecords.

    Every call raises RecordsHeld, and what that of WeekTags raises.
    """

    def __init__(
        self,
        tags: WeekTags,
        contacts: Contacts,
        over_s: float,
        *,
        on_recovery: Callable[[], None] = _nothing,
    ) -> None:
        self._tags = tags
        self._contacts = contacts
        self._found, self._links, self._added, self._removed = (
            LoneRequests(what, contacts.answers, over_s, on_recovery=on_recovery)
            for what in ("contacts", "the tags of contacts", "tags on contacts", "links of tags")
        )

    async def find(self, contact: Contact) -> AcId | None:
        """See Contacts.find. Raises PermissionRefused."""
        contacts = self._contacts
        return await self._found.send(contact.id, lambda **tries: contacts.find(contact.email, **tries))

    async def links(self, contact: AcId) -> dict[WeekTag, int]:
        """See WeekTags.links."""
        tags = self._tags
        return await self._links.send(contact, lambda **tries: tags.links(contact, **tries))

    async def add(self, contact: AcId, tag: WeekTag) -> int:
        """See WeekTags.add."""
        tags = self._tags
        return await self._added.send(contact, lambda **tries: tags.add(contact, tag, **tries))

    async def remove(self, link: int) -> None:
        """See WeekTags.remove."""
        tags = self._tags
        await self._removed.send(link, lambda **tries: tags.remove(link, **tries))


class ContactRequests:
    """Look-ups and changes of single contacts.

    Every call raises RecordsHeld, and what that of Contacts raises.
    A look-up, a new address and a cleared customer id are held after `DETOUR_S` seconds of answered reads,
    not after `over_s`: the reading of the log waits for them, and their callers can go on without them.
    `are_ids_missing` returns whether the account lacks what `setup` creates. `on_recovery` is that of
    LoneRecords, for places on the list.
    """

    def __init__(
        self,
        contacts: Contacts,
        over_s: float,
        are_ids_missing: Callable[[], Awaitable[bool]] = _never,
        *,
        on_recovery: Callable[[], None] = _nothing,
    ) -> None:
        self._contacts = contacts
        self._are_ids_missing = are_ids_missing
        detour_s = min(DETOUR_S, over_s)
        self._found, self._renamed, self._cleared = (
            LoneRequests("contacts", contacts.answers, detour_s, holds_forbidden=True) for _ in range(3)
        )
        self._listed, self._placed = (
            LoneRequests(what, contacts.answers, over_s, holds_forbidden=True, on_recovery=on_recovery)
            for what in ("contacts", "the list places of contacts")
        )

    async def find(self, contact: Contact, email: Email | None = None) -> AcId | None:
        """See Contacts.find, for the address of a contact or another one that it may get.

        Raises RecordsHeld by the contact's own id.
        """
        contacts, wanted = self._contacts, email or contact.email
        return await self._found.send(contact.id, lambda **tries: contacts.find(wanted, **tries))

    async def rename(self, contact: AcId, email: Email) -> None:
        """See Contacts.rename."""
        contacts = self._contacts
        await self._renamed.send(contact, lambda **tries: contacts.rename(contact, email, **tries))

    async def set_list(self, contact: AcId, *, subscribed: bool) -> None:
        """See Contacts.set_list. A contact that is refused while the account may lack the list is held.

        Raises IdsChanged if the account has another list.
        """
        contacts = self._contacts
        try:
            await self._listed.send(
                contact, lambda **tries: contacts.set_list(contact, subscribed=subscribed, **tries)
            )
        except Rejected as error:
            if not await self._are_ids_missing():
                raise
            why = f"the account is not set up any more; run `kiva-stream setup`: {error.reply}"
            raise RecordsHeld("contacts", {contact: why}) from error

    async def list_place(self, contact: AcId) -> bool | None:
        """See Contacts.list_place."""
        contacts = self._contacts
        return await self._placed.send(contact, lambda **tries: contacts.list_place(contact, **tries))

    async def clear_customer_id(self, contact: AcId) -> None:
        """See Contacts.clear_customer_id."""
        contacts = self._contacts
        await self._cleared.send(contact, lambda **tries: contacts.clear_customer_id(contact, **tries))
