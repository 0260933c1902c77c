"""What week tags need of state and account, in memory; every call is an await at which a test may strike."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from datetime import date
from itertools import count

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.errors import AccountRefused, ContactGone, Rejected
from kiva_stream.model.contacts import ContactRecord, DueContact
from kiva_stream.model.ids import AcId, ContactId, Email
from kiva_stream.model.week_tags import WeekTag
from tests.fakes.silence import wait_for_answer
from tests.support.entries import customer
from tests.support.orders import LINKED


class FakeDueContacts:
    """Implements TagsDue on a table of contacts of its own."""

    def __init__(self) -> None:
        self.contacts: dict[ContactId, ContactRecord] = {}
        self.marks: dict[ContactId, int] = {}
        self.opened: date | None = None
        self.times_opened = 0
        self.forgotten: list[list[ContactId]] = []
        self.settled_at_once: list[int] = []
        self._marks = count(1)

    def put(self, linked: ContactRecord) -> None:
        """Add a contact, which is due."""
        self.contacts[linked.contact.id] = linked
        self.touch(linked.contact.id)

    def touch(self, contact: int) -> None:
        """Mark a contact due, with a new mark."""
        self.marks[ContactId(contact)] = next(self._marks)

    async def week(self) -> date | None:
        await anyio.lowlevel.checkpoint()
        return self.opened

    async def begin_week(self, week: date) -> None:
        await anyio.lowlevel.checkpoint()
        self.opened = week
        self.times_opened += 1
        for each, linked in self.contacts.items():
            if linked.contact.status is LINKED:
                self.touch(each)
        await anyio.lowlevel.checkpoint()

    async def page(self, after: ContactId, size: int) -> list[DueContact]:
        await anyio.lowlevel.checkpoint()
        ids = [each for each in sorted(self.marks) if each > after][:size]
        return [DueContact(self.contacts[each], self.marks[each]) for each in ids]

    async def clear_due(self, due: Collection[DueContact]) -> None:
        await anyio.lowlevel.checkpoint()
        self.settled_at_once.append(len(due))
        for each in due:
            if self.marks.get(each.record.contact.id) == each.mark:
                del self.marks[each.record.contact.id]
        await anyio.lowlevel.checkpoint()

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        self.forgotten.append(list(contacts))
        for each in contacts:
            self.contacts[each] = replace(self.contacts[each], tag=None, tag_link=None)
        await anyio.lowlevel.checkpoint()

    async def record_tag(self, contact: ContactId, *, ac_id: AcId, tag: WeekTag, link: int) -> None:
        await anyio.lowlevel.checkpoint()
        self.contacts[contact] = replace(self.contacts[contact], ac_id=ac_id, tag=tag, tag_link=link)
        await anyio.lowlevel.checkpoint()

    async def mark_all_due(self) -> None:
        raise NotImplementedError

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        for each in contacts:
            if self.contacts[each].contact.status is LINKED:
                self.touch(each)


class FakeTaggedAccount:
    """Implements WeekTags, and `find` of Contacts: ActiveCampaign's contacts with their week tags.

    It fails if a contact has two of them, or is in two requests. Each answer takes `takes_s`. Tags on
    contacts in `rejected` are refused; requests about contacts in `silent` get no answer.
    """

    def __init__(self) -> None:
        self.by_email: dict[Email, AcId] = {}
        self.tags: dict[AcId, dict[WeekTag, int]] = {}
        self.calls: list[str] = []
        self.takes_s = 0.1
        self.refuses = False
        self.rejected: set[AcId] = set()
        self.silent: set[AcId] = set()
        self.silent_s = 1.0  # how long a request without an answer takes
        self.reads_are_answered = True
        self.unanswered: list[str] = []  # calls
        self.busy: set[AcId] = set()
        self.most_busy = 0
        self.on_call: Callable[[str], None] = lambda _call: None
        self._links = count(1_000)

    def put(self, number: int, *tags: WeekTag) -> AcId:
        """Add the contact of a customer, with tags."""
        ac_id = AcId(number + 500)
        self.by_email[customer(number).email or Email("")] = ac_id
        self.tags[ac_id] = {tag: next(self._links) for tag in tags}
        return ac_id

    def drop(self, number: int) -> None:
        """Remove the contact of a customer."""
        del self.tags[self.by_email.pop(customer(number).email or Email(""))]

    def tag_of(self, number: int) -> WeekTag | None:
        """Return a customer's only tag."""
        there = self.tags[AcId(number + 500)]
        assert len(there) <= 1
        return next(iter(there), None)

    async def find(
        self,
        email: Email,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> AcId | None:
        await self._answer("find", self.by_email.get(email), tries)
        return self.by_email.get(email)

    async def answers(self) -> bool:
        await anyio.lowlevel.checkpoint()
        return self.reads_are_answered

    async def links(
        self,
        contact: AcId,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> dict[WeekTag, int]:
        await self._answer("links", contact, tries)
        return dict(self._tags(contact))

    async def add(
        self,
        contact: AcId,
        tag: WeekTag,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> int:
        await self._answer("add", contact, tries)
        there = self._tags(contact)
        if contact in self.rejected:
            raise Rejected("refused", "no such tag")
        there.setdefault(tag, next(self._links))
        assert len(there) == 1, f"a contact has two tags: {sorted(there)}"
        link = there[tag]
        await anyio.lowlevel.checkpoint()
        return link

    async def remove(
        self,
        link: int,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        owner = next((who for who, there in self.tags.items() if link in there.values()), None)
        await self._answer("remove", owner, tries)
        for there in self.tags.values():
            for tag in [tag for tag, each in there.items() if each == link]:
                del there[tag]
        await anyio.lowlevel.checkpoint()

    def _tags(self, contact: AcId) -> dict[WeekTag, int]:
        if contact not in self.tags:
            raise ContactGone("no such contact")
        return self.tags[contact]

    async def _answer(self, call: str, contact: AcId | None = None, tries: float = math.inf) -> None:
        await wait_for_answer(
            lambda: contact in self.silent,
            lambda: self.unanswered.append(call),
            tries=tries,
            every_s=self.silent_s,
        )
        self.calls.append(call)
        self.on_call(call)
        assert contact is None or contact not in self.busy, "a contact is in two requests"
        taken = {contact} if contact is not None else set()
        self.busy |= taken
        self.most_busy = max(self.most_busy, len(self.busy))
        try:
            await anyio.sleep(self.takes_s)
        finally:
            self.busy -= taken
        if self.refuses:
            raise AccountRefused("the key is refused")
