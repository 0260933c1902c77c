"""Contacts and week tags of an ActiveCampaign account in memory: see `ports/destination.py`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import anyio
import anyio.lowlevel

from kiva_stream.errors import (
    AccountRefused,
    AddressTaken,
    ContactGone,
    PermissionRefused,
    Rejected,
    RowsRejected,
)
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from kiva_stream.model.contacts import DesiredContact, ListStatus
from kiva_stream.model.ids import AcId, Email
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.ports.destination import Around
from tests.fakes.silence import wait_for_answer

PHONE = "+1 555 0100"


class AcContact:
    """A contact as ActiveCampaign has it."""

    def __init__(self, email: Email) -> None:
        self.email = email
        self.shown: DesiredContact | None = None
        self.customer_id = ""
        self.is_on_list: bool | None = None  # None: never was
        self.tags: dict[WeekTag, int] = {}

    def show(self, wanted: DesiredContact) -> None:
        self.shown, self.customer_id = wanted, wanted.customer_id

    def put_on_list(self, *, subscribed: bool) -> None:
        self.is_on_list = subscribed

    def tag(self, tag: WeekTag, link: int) -> None:
        self.tags.setdefault(tag, link)
        assert len(self.tags) == 1, f"two week tags: {self.tags}"


class FakeContacts:
    """Implements Contacts and the calls of WeekTags: an account, and imports that end as a test chose.

    `there` are the contacts it has. `reports` are the next answers to `import_report`, of whichever import;
    without one left the import is completed. Addresses in `failing` are reported as failed, as are rows that
    subscribe an unsubscribed contact; addresses in `excluded` are left out without a report, and an import
    with an address in `refused` is refused with those rows. Calls for one contact refuse the addresses in
    `refused_alone`, those for a place on the list the addresses in `refused_places`, with a reply that names
    `PHONE`. An import for which `refuses_import` has a reply is refused with it, without a row. Both refuse
    the names, phones and birthdays in `refused_values`, with their replies. A lost import changed nothing,
    unless `works_lost`.
    """

    def __init__(self, contacts_per_import: int = 250) -> None:
        self.contacts_per_import = contacts_per_import
        self.there: dict[AcId, AcContact] = {}
        self.imports: dict[str, list[DesiredContact]] = {}
        self.outstanding: int | None = 0  # imports, by the account's list; None: it may not be read
        self.automations: dict[str, bool] = {}  # whether an import may start automations
        self.asked: list[str] = []  # the imports that were asked for, by id
        self.looked_up: list[Email] = []
        self.synced: list[Email] = []
        self.cleared: list[tuple[Email, set[str]]] = []  # the names and phones
        self.refuses_clearing = False
        self.renamed: list[tuple[Email, Email]] = []
        self.disowned: list[Email] = []
        self.list_calls: list[tuple[Email, bool]] = []
        self.calls: list[str] = []  # the calls for one contact, in order
        self.paged: list[AcId] = []
        self.page_rows = 100
        self.reports: list[ImportReport] = []
        self.failing: set[Email] = set()
        self.excluded: set[Email] = set()
        self.refused: set[Email] = set()
        self.refused_values: dict[str, str] = {}
        self.refuses_import: Callable[[Sequence[DesiredContact]], str] = lambda _rows: ""
        self.refused_imports: list[list[Email]] = []  # without a row
        self.names_next_row = False  # a refused import names the row after each bad one too
        self.refused_alone: set[Email] = set()
        self.refused_alone_with: dict[Email, str] = {}
        self.refusal_alone = "the e-mail is not valid"
        self.refused_places: set[Email] = set()
        self.places_read: list[AcId] = []
        self.works_lost = False
        self.interrupting: set[Email] = set()  # an import with one of these is lost
        self.gate: anyio.Event | None = None  # imports are accepted once it is open
        self.refuses_account = False
        self.forbidden: set[str] = set()  # of import, sync, list, find, page: answered with a 403
        self.silent: set[Email] = set()  # no request with one of these is answered
        self.silent_call = ""  # of these alone, if it is set
        self.applies_silent = False  # an address is changed though no answer comes
        self.is_silent = False
        self.reads_are_answered = True
        self.unanswered: list[list[Email]] = []
        self.on_subscribe: Callable[[AcContact], None] = lambda _contact: None
        self._ended: dict[str, ImportReport] = {}
        self._busy: Counter[Email] = Counter()  # addresses with a request under way
        self._links = 0

    def count_fitting(self, contacts: Sequence[DesiredContact]) -> int:
        return min(len(contacts), self.contacts_per_import)

    async def answers(self) -> bool:
        await anyio.lowlevel.checkpoint()
        return self.reads_are_answered

    async def _answer(self, emails: Collection[Email], tries: float, call: str = "") -> None:
        """Wait while a contact is silent; raise Unanswered after so many tries."""

        def is_silent() -> bool:
            of_these = not self.silent.isdisjoint(emails) and self.silent_call in {"", call}
            return self.is_silent or of_these

        await wait_for_answer(is_silent, lambda: self.unanswered.append(sorted(emails)), tries=tries)

    async def _answer_of(self, contact: AcId, tries: float, call: str = "other") -> None:
        await self._answer([self.there[contact].email] if contact in self.there else [], tries, call)

    async def start_import(
        self,
        contacts: Sequence[DesiredContact],
        *,
        exclude_automations: bool,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
        around: Around = nullcontext,
    ) -> AcceptedImport:
        async with around():
            return await self._start_import(contacts, tries, exclude_automations=exclude_automations)

    async def outstanding_imports(self, *, tries: float = math.inf) -> int:  # noqa: ARG002  it answers
        await anyio.lowlevel.checkpoint()
        if self.outstanding is None:
            raise PermissionRefused("403 Forbidden")
        return self.outstanding

    async def _start_import(
        self, contacts: Sequence[DesiredContact], tries: float, *, exclude_automations: bool
    ) -> AcceptedImport:
        await self._answer([each.email for each in contacts], tries, "import")
        with self._alone(*(each.email for each in contacts)):
            await anyio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
        if self.refuses_account:
            raise AccountRefused("no")
        assert len(contacts) <= self.contacts_per_import
        self._require_permission("import")
        if said := self.refuses_import(contacts):
            self.refused_imports.append([each.email for each in contacts])
            raise Rejected("refused", said)
        refused = {row: reply for row, each in enumerate(contacts) if (reply := self._refusal(each))}
        if refused:
            if self.names_next_row:
                next_rows = {row + 1: "" for row in refused if row + 1 < len(contacts)}
                refused = dict(sorted((next_rows | refused).items()))
            raise RowsRejected("refused", refused)
        import_id = f"import {len(self.imports) + 1}"
        self.imports[import_id] = list(contacts)
        self.automations[import_id] = not exclude_automations
        self._busy.update(each.email for each in contacts)
        return AcceptedImport(import_id, is_short=any(each.email in self.excluded for each in contacts))

    async def import_report(self, import_id: str) -> ImportReport:
        await anyio.lowlevel.checkpoint()
        self.asked.append(import_id)
        if self.refuses_account:
            raise AccountRefused("no")
        if import_id in self._ended:
            return self._ended[import_id]
        contacts = self.imports.get(import_id, [])
        is_interrupted = not self.interrupting.isdisjoint(each.email for each in contacts)
        end = ImportReport(ImportState.LOST if is_interrupted else ImportState.COMPLETED)
        report = self.reports.pop(0) if self.reports else end
        if report.state is ImportState.RUNNING:
            return report
        self._busy.subtract({each.email for each in contacts})
        if report.state is ImportState.COMPLETED or self.works_lost:
            failures = frozenset(each.email for each in contacts if not self._take(each))
            report = ImportReport(report.state, failures - self.excluded)
        self._ended[import_id] = report
        return report

    async def find(
        self,
        email: Email,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> AcId | None:
        await self._answer([email], tries, "find")
        await anyio.lowlevel.checkpoint()
        self._require_permission("find")
        self.looked_up.append(email)
        return self.id_of(email)

    async def page(self, after: AcId) -> dict[Email, AcId]:
        await anyio.lowlevel.checkpoint()
        self._require_permission("page")
        self.paged.append(after)
        later = [(number, self.there[number].email) for number in sorted(self.there) if number > after]
        return {email: number for number, email in later[: self.page_rows]}

    async def upsert(
        self,
        wanted: DesiredContact,
        *,
        clear: Collection[str] = (),
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> AcId:
        await self._answer([wanted.email], tries, "upsert")
        with self._alone(wanted.email):
            await anyio.lowlevel.checkpoint()
            self.synced.append(wanted.email)
            self.cleared += [(wanted.email, set(clear))] if clear else []
            if clear and self.refuses_clearing:
                raise Rejected("refused", "not valid")
            self.calls.append(f"sync {wanted.email}")
            if self.refuses_account:
                raise AccountRefused("no")
            self._require_permission("sync")
            if wanted.email in self.refused_alone:
                raise Rejected("refused", self.refusal_alone)
            if reply := self.refused_alone_with.get(wanted.email) or self._refusal_of_value(wanted):
                raise Rejected("refused", reply)
            number = self.add(wanted.email)
            self.there[number].show(wanted)
            await anyio.lowlevel.checkpoint()
            return number

    async def rename(
        self,
        contact: AcId,
        email: Email,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        if contact in self.there:
            if self.applies_silent and email in self.silent:
                self.there[contact].email = email
            await self._answer([self.there[contact].email, email], tries, "rename")
        if contact not in self.there:
            raise ContactGone("gone")
        one = self.there[contact]
        with self._alone(one.email):
            await anyio.lowlevel.checkpoint()
            if email in self.refused_alone:
                raise Rejected("refused", "no")
            if self.id_of(email) not in {None, contact}:
                raise AddressTaken("taken")
            self.renamed.append((one.email, email))
            self.calls.append(f"rename {one.email} {email}")
            one.email = email
            await anyio.lowlevel.checkpoint()

    async def set_list(
        self,
        contact: AcId,
        *,
        subscribed: bool,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        await self._answer_of(contact, tries, "set_list")
        one = self.there[contact]
        with self._alone(one.email):
            await anyio.lowlevel.checkpoint()
            if one.email in self.refused_alone:
                raise Rejected("refused", "no")
            self._require_permission("list")
            self.list_calls.append((one.email, subscribed))
            if one.email in self.refused_places:
                raise Rejected("refused", f"phone {PHONE}: the list takes no change")
            self.calls.append(f"{'subscribe' if subscribed else 'unsubscribe'} {one.email}")
            self._set_list(one, subscribed=subscribed)
            await anyio.lowlevel.checkpoint()

    async def clear_customer_id(
        self,
        contact: AcId,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        await self._answer_of(contact, tries)
        if contact not in self.there:
            raise ContactGone("gone")
        one = self.there[contact]
        with self._alone(one.email):
            await anyio.lowlevel.checkpoint()
            if one.email in self.refused_alone:
                raise Rejected("refused", "no")
            self.disowned.append(one.email)
            self.calls.append(f"disown {one.email}")
            one.customer_id = ""

    async def list_place(
        self,
        contact: AcId,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> bool | None:
        await self._answer_of(contact, tries)
        await anyio.lowlevel.checkpoint()
        self.places_read.append(contact)
        return self.there[contact].is_on_list if contact in self.there else None

    async def links(
        self,
        contact: AcId,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> dict[WeekTag, int]:
        await self._answer_of(contact, tries)
        await anyio.lowlevel.checkpoint()
        if contact not in self.there:
            raise ContactGone("gone")
        return dict(self.there[contact].tags)

    async def add_tag(
        self,
        contact: AcId,
        tag: WeekTag,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> int:
        """Put a tag on a contact: see `FakeWeekTags`."""
        await self._answer_of(contact, tries)
        await anyio.lowlevel.checkpoint()
        if contact not in self.there:
            raise ContactGone("gone")
        self._links += 1
        self.there[contact].tag(tag, self._links)
        return self._links

    async def remove(
        self,
        link: int,
        *,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        await self._answer(
            [one.email for one in self.there.values() if link in one.tags.values()], tries, "remove"
        )
        await anyio.lowlevel.checkpoint()
        for one in self.there.values():
            one.tags = {tag: number for tag, number in one.tags.items() if number != link}

    def _require_permission(self, call: str) -> None:
        if call in self.forbidden:
            raise PermissionRefused(f"403 {call}")

    def add(self, email: Email) -> AcId:
        """Have a contact of this address; return its id."""
        number = self.id_of(email)
        if number is None:
            number = AcId(max(self.there, default=100) + 1)
            self.there[number] = AcContact(email)
        return number

    def id_of(self, email: Email) -> AcId | None:
        """Return the id of the contact of an address, if there is one."""
        return next((number for number, one in self.there.items() if one.email == email), None)

    def at(self, email: Email) -> AcContact:
        """Return the contact of an address."""
        (one,) = [one for one in self.there.values() if one.email == email]
        return one

    def addresses(self) -> list[list[Email]]:
        """Return the addresses of each import, in the order in which they were accepted."""
        return [[each.email for each in contacts] for contacts in self.imports.values()]

    def restarted(self) -> None:
        """Forget which requests are under way, since their process has ended."""
        self._busy.clear()

    def _refusal(self, row: DesiredContact) -> str:
        return "no" if row.email in self.refused else self._refusal_of_value(row)

    def _refusal_of_value(self, wanted: DesiredContact) -> str:
        values = (wanted.phone, wanted.first_name, wanted.last_name, wanted.birthday)
        return next((self.refused_values[each] for each in values if each in self.refused_values), "")

    def _take(self, row: DesiredContact) -> bool:
        """Apply a row of an import; return whether it was imported."""
        if row.email in self.failing | self.excluded:
            return False
        there = self.id_of(row.email)
        if there and row.list_status is ListStatus.SUBSCRIBE and self.there[there].is_on_list is False:
            return False
        one = self.there[self.add(row.email)]
        one.show(row)
        if row.list_status is not ListStatus.KEEP:
            self._set_list(one, subscribed=row.list_status is ListStatus.SUBSCRIBE)
        if row.tag is not None:
            self._links += 1
            one.tag(row.tag, self._links)
        return True

    def _set_list(self, one: AcContact, *, subscribed: bool) -> None:
        if subscribed:
            self.on_subscribe(one)
        one.put_on_list(subscribed=subscribed)

    @contextmanager
    def _alone(self, *emails: Email) -> Iterator[None]:
        """Assert that these contacts are in no other request, and have them in one."""
        busy = [email for email in emails if self._busy[email] > 0]
        assert not busy, f"two requests at once: {busy}"
        self._busy.update(emails)
        try:
            yield
        finally:
            self._busy.subtract(emails)


class FakeWeekTags:
    """Implements WeekTags on an account."""

    def __init__(self, account: FakeContacts) -> None:
        self._account = account
        self.links = account.links
        self.add = account.add_tag
        self.remove = account.remove
