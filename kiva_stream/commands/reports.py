"""What the commands ask for and answer, as plain structs, and how an answer reads on a terminal.

With `--json` the same struct is one JSON object on stdout. Positions are texts here, `TXID:ID`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kiva_stream.model.bounds import Bound, Place
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.incidents import Incident
from kiva_stream.model.outcomes import Outcome, Reason
from kiva_stream.model.positions import Position
from kiva_stream.verification.discrepancies import Discrepancy

SHOWN_ERASED = 10
HOUR_S = 3600


class BackfillRequest(msgspec.Struct, frozen=True):
    """What a backfill is asked to carry. None: as the checkpoint says, or without that bound."""

    since: Bound | None = None
    until: Bound | None = None
    events_since: date | None = None


class CheckLine(msgspec.Struct, frozen=True):
    """One line of `check`: a thing looked at, and, when it is not well, what to do about it."""

    subject: str
    ok: bool
    text: str


class CheckReport(msgspec.Struct, frozen=True):
    """The answer of `check`."""

    ok: bool
    lines: list[CheckLine]

    @classmethod
    def of(cls, lines: Iterable[CheckLine]) -> CheckReport:
        """Sum up lines."""
        kept = list(lines)
        return cls(all(line.ok for line in kept), kept)

    def __rich__(self) -> RenderableType:
        grid = _grid()
        for line in self.lines:
            mark = Text("ok", "green") if line.ok else Text("no", "bold red")
            grid.add_row(mark, Text(line.subject), Text(line.text))
        return grid


class Equation(msgspec.Struct, frozen=True):
    """Entries read = the outcomes + pending + parked."""

    entries_read: int
    delivered: int
    synced: int
    skipped: dict[str, int]  # by why
    dead: dict[str, int]  # by why
    pending: int
    parked: int = 0

    @classmethod
    def of(cls, counts: Mapping[Outcome, int], pending: int, parked: int = 0) -> Equation:
        """Add up counts by outcome."""
        by_why: dict[str, dict[str, int]] = {"skipped": {}, "dead": {}}
        for outcome, count in counts.items():
            if outcome.kind in by_why:
                by_why[outcome.kind][outcome.why] = count
        return cls(
            entries_read=sum(counts.values()) + pending + parked,
            delivered=counts.get(Outcome("delivered"), 0),
            synced=counts.get(Outcome("synced"), 0),
            skipped=by_why["skipped"],
            dead=by_why["dead"],
            pending=pending,
            parked=parked,
        )

    def __str__(self) -> str:
        parts = {
            "delivered": self.delivered,
            "synced": self.synced,
            "skipped": sum(self.skipped.values()),
            "dead": sum(self.dead.values()),
            "pending": self.pending,
            "parked": self.parked,
        }
        words = " + ".join(f"{count:,} {name}" for name, count in parts.items())
        return f"{self.entries_read:,} entries read = {words}"


class BackfillPlan(msgspec.Struct, frozen=True):
    """What a backfill would do, before it does it. What it sends is about, and leaves out what is there."""

    after: str  # position above which it reads
    until: str  # position up to which it reads
    entries: int
    sampled: int  # of them, from which the following are estimated
    classes: dict[str, int]  # of the entries: event, sync only, noise, reject
    events: dict[str, int]  # by name
    dead: dict[str, int]  # by why
    customers: int  # with an address
    orders: int | None  # paid; None: counting them takes too long
    requests: dict[str, int]  # by endpoint
    phases: dict[str, float]  # hours of each, at the limits in the settings
    hours: float  # in all
    tags_due: int  # week tags that may have to be swapped
    new_week_hours: float  # the longest that the tags take when a week opens
    resumes: bool = False
    events_since: datetime | None = None

    def __rich__(self) -> RenderableType:
        phases = ", ".join(f"{name} {_duration(hours * HOUR_S)}" for name, hours in self.phases.items())
        new_week = _duration(self.new_week_hours * HOUR_S)
        pairs = {
            "reads": f"{'on from' if self.resumes else 'from'} {self.after} to {self.until}",
            "entries": f"{self.entries:,}",
            "events": f"about {sum(self.events.values()):,}"
            + (f", of entries since {_moment(self.events_since)}" if self.events_since else ""),
            "customers": f"{self.customers:,} with an address",
            "orders": "not counted: that takes too long" if self.orders is None else f"{self.orders:,} paid",
            "week tags": f"{self.tags_due:,} may have to be swapped" if self.tags_due else "",
            "time": f"about {_duration(self.hours * HOUR_S)} at the limits in the settings: {phases}",
            "a new week": f"up to {new_week} until every week tag is right again",
        }
        about = f"about, from {self.sampled:,} of them"
        return Group(
            _pairs({name: text for name, text in pairs.items() if text}),
            *_counts(f"Entries ({about})", self.classes),
            *_counts("Events (about)", self.events),
            *_counts("Dead letters (about)", self.dead),
            *_counts("Requests (about)", self.requests),
        )


class Summary(msgspec.Struct, frozen=True):
    """What a backfill has done."""

    equation: Equation  # since the counts began
    entries: int  # of this run that got their outcome
    seconds: float  # of this run
    events: dict[str, int]  # since the counts began, by name
    contacts: dict[str, int]  # by status
    requests: dict[str, int]  # of this run, by endpoint
    orders: dict[str, int] = {}  # sent, refused
    tags: dict[str, int] | None = None  # contacts by week tag; only the sandbox tells
    notes: dict[str, int] = {}  # what was odd about entries, since the counts began
    breaches: dict[str, int] | None = None  # of ActiveCampaign's limits and contract; only the sandbox tells
    stopped_by: int | None = None  # the signal that ended it before its end
    obstacle: str | None = None  # what keeps the log from being read on

    @property
    def entries_per_hour(self) -> float:
        """Entries of this run an hour."""
        return self.entries / self.seconds * HOUR_S if self.seconds else 0.0

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [
            *_counts("Events", self.events),
            *_counts("Contacts", self.contacts),
            *_counts("Orders", self.orders),
            *_counts("Week tags", self.tags or {}),
            *_counts("Skipped", self.equation.skipped),
            *_counts("Dead letters", self.equation.dead),
            *_counts("Oddities", self.notes),
            *_requests(self.requests, self.entries),
            Text(f"\n{self.equation}", "bold"),
            Text(
                f"{self.entries:,} entries in {_duration(self.seconds)}: {self.entries_per_hour:,.0f} an hour"
            ),
        ]
        if self.breaches is not None:
            parts.append(_breaches(self.breaches))
        if self.stopped_by is not None:
            parts.append(Text("Stopped before the end: run the same command again, and it goes on.", "bold"))
        if self.obstacle is not None:
            parts.append(Text(self.obstacle, "bold yellow"))
        return Group(*parts)


class StatusReport(msgspec.Struct, frozen=True):
    """Where a site stands, read from the state schema alone."""

    site: str
    account: str
    phase: str  # contacts | orders | events | tags | done | sweep | follow
    since: str  # as given
    events_since: datetime | None
    counted_from: str  # position after which the counts begin
    watermark: str
    high_water_mark: str | None  # of the newest backfill
    entries_total: int | None  # up to it, when that backfill began
    equation: Equation
    events: dict[str, int]  # by name
    contacts: dict[str, int]  # by status
    orders: dict[str, int]  # sent, refused
    tags_due: int  # contacts whose week tag may differ
    tags_left_s: float  # about how long they take at the limits in the settings, with nothing else to do
    notes: dict[str, int]  # what was odd about entries
    troubles: list[Incident]  # what is wrong just now, as the process that works the site sees it
    erased: list[str]  # customers erased at the shop who are still at ActiveCampaign: for `forget`
    held_by: str | None  # who works the site just now: host and pid
    held_since: datetime | None
    committed_at: datetime | None  # the last commit
    updated_at: datetime  # when this was read
    lag_s: float | None  # all that following could read this long before has its outcome

    def _erased(self) -> str:
        shown, more = self.erased[:SHOWN_ERASED], len(self.erased) - SHOWN_ERASED
        names = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
        return f"customers {names} are still at ActiveCampaign: run `forget`" if names else ""

    def _holder(self) -> str:
        since = f", since {_moment(self.held_since)}" if self.held_since else ""
        return f"{self.held_by}{since}" if self.held_by else "nobody"

    def __rich__(self) -> RenderableType:
        pairs = {
            "site": self.site,
            "account": self.account,
            "phase": self.phase,
            "held by": self._holder(),
            "since": self.since,
            "events since": _moment(self.events_since) if self.events_since else "",
            "watermark": self.watermark,
            "high-water mark": self.high_water_mark or "",
            "entries in all": "" if self.entries_total is None else f"{self.entries_total:,}",
            "last commit": _moment(self.committed_at) if self.committed_at else "none yet",
            "lag": "" if self.lag_s is None else f"at most {_duration(self.lag_s)}",
            "week tags": f"{self.tags_due:,} due, for about {_duration(self.tags_left_s)}"
            if self.tags_due
            else "none due",
            "erased at the shop": self._erased(),
            "now": _moment(self.updated_at),
        }
        return Group(
            _pairs({name: text for name, text in pairs.items() if text}),
            *_counts("Events", self.events),
            *_counts("Contacts", self.contacts),
            *_counts("Orders", self.orders),
            *_counts("Skipped", self.equation.skipped),
            *_counts("Dead letters", self.equation.dead),
            *_counts("Oddities", self.notes),
            Text(f"\n{self.equation}", "bold"),
            Text(f"counted from {self.counted_from}"),
            *(
                Text(f"trouble: {each.kind} since {_moment(each.since)}: {each.why}", "bold red")
                for each in self.troubles
            ),
        )


class Receipt(msgspec.Struct, frozen=True):
    """What `forget` deleted; it names nobody but by the id that the shop gave."""

    customer: str
    forgotten_at: datetime
    contact: str  # what became of it
    is_address_barred: bool  # whoever comes with it is kept out too
    deleted: dict[str, int]  # how many of what, where

    def __rich__(self) -> RenderableType:
        pairs = {
            "customer": self.customer,
            "forgotten at": _moment(self.forgotten_at),
            "contact": self.contact,
            "address": "barred" if self.is_address_barred else "not barred: it is somebody else's too",
        }
        return Group(_pairs(pairs), *_counts("Deleted", self.deleted))


class Trial(msgspec.Struct, frozen=True):
    """What became of one customer, brought as a trial."""

    customer: str
    contact: str  # new | linked | rejected: what kiva_stream knows of it now
    why: str  # of a rejected one
    sent: bool  # whether anything of the contact had to be sent
    ac_contact_id: int | None
    url: str | None  # where people look at it
    fields: dict[str, str]  # as they are wanted there, by title
    list_status: str  # subscribed | unsubscribed | left as it is
    tag: str | None  # the week tag it has there
    orders: dict[str, int]  # sent | refused | unchanged | not sent
    refusals: dict[str, str]  # what ActiveCampaign said against orders, by their ids
    requests: dict[str, int]  # by endpoint

    def __rich__(self) -> RenderableType:
        pairs = {
            "customer": self.customer,
            "contact": self._contact(),
            "at": self.url or "",
            **{title: text or "(empty)" for title, text in self.fields.items()},
            "all customers": self.list_status,
            "week tag": self.tag or "not known",
            "orders": ", ".join(f"{count:,} {name}" for name, count in self.orders.items() if count)
            or "none that is paid",
            **{f"order {number} refused": said for number, said in self.refusals.items()},
        }
        return Group(
            _pairs({name: text for name, text in pairs.items() if text}), *_counts("Requests", self.requests)
        )

    def _contact(self) -> str:
        number = "" if self.ac_contact_id is None else f" {self.ac_contact_id}"
        if self.contact != "linked":
            return f"{self.contact}: {self.why}" if self.why else self.contact
        return f"{'sent' if self.sent else 'unchanged'}, contact{number} at ActiveCampaign"


class LetterRequest(msgspec.Struct, frozen=True):
    """Which dead letters are meant; without any of these all."""

    reason: Reason | None = None
    customer: CustomerId | None = None  # all of its contact
    places: tuple[Place, ...] = ()


class LetterLine(msgspec.Struct, frozen=True):
    """A dead letter, as a list shows it."""

    place: str  # TXID:ID, or order:ID
    reason: str
    customer: str | None
    attempts: int | None  # to send it; None: of an order, they are not counted
    died_at: datetime | None  # None: of an order, it is not kept
    reply: str  # what ActiveCampaign said, without secrets and addresses
    mark: str = ""  # replay asked | discarded

    def pairs(self) -> dict[str, str]:
        """Return what it says, by the names of its columns."""
        return {
            "place": self.place,
            "reason": self.reason,
            "customer": self.customer or "",
            "attempts": "" if self.attempts is None else str(self.attempts),
            "died": "" if self.died_at is None else _moment(self.died_at),
            "mark": self.mark,
            "reply": self.reply,
        }


class LetterGroup(msgspec.Struct, frozen=True):
    """How many dead letters have a reason, and what is to become of some of them."""

    reason: str
    count: int
    replay_asked: int
    discarded: int


class LetterList(msgspec.Struct, frozen=True):
    """The dead letters that were asked for."""

    total: int
    reasons: list[LetterGroup]
    letters: list[LetterLine]  # at most as many as were asked for

    def __rich__(self) -> RenderableType:
        groups = [
            [each.reason, f"{each.count:,}", f"{each.replay_asked:,}", f"{each.discarded:,}"]
            for each in self.reasons
        ]
        lines = [each.pairs() for each in self.letters]
        left = self.total - len(self.letters)
        return Group(
            Text(f"{self.total:,} dead letters", "bold"),
            *_table(["Reason", "letters", "replay asked", "discarded"], groups),
            *(_listing(lines) if lines else ()),
            *([Text(f"\n{left:,} more: --limit shows them")] if left else ()),
        )


class ShownLetter(msgspec.Struct, frozen=True):
    """All about one dead letter."""

    letter: LetterLine
    entry: dict[str, str]  # the entry, or the order, as the shop has it now; empty: it is gone
    verdict: str  # what would become of it now
    advice: str

    def __rich__(self) -> RenderableType:
        found = self.entry or {"entry": "the shop does not have it any more"}
        pairs = {**self.letter.pairs(), **found, "now": self.verdict, "to do": self.advice}
        return _pairs({name: text for name, text in pairs.items() if text})


class Discarded(msgspec.Struct, frozen=True):
    """How many dead letters were discarded now."""

    discarded: int

    def __rich__(self) -> RenderableType:
        return Text(f"{self.discarded:,} dead letters discarded: they stay dead, nobody need look at them")


class Replayed(msgspec.Struct, frozen=True):
    """What became of the dead letters whose replay was asked for."""

    asked: int  # by this command
    outcomes: dict[str, int] | None  # of all that were asked for; None: the process at work takes them
    stopped_by: int | None = None  # the signal that ended it before its end

    def __rich__(self) -> RenderableType:
        said = Text(f"{self.asked:,} dead letters are to be replayed", "bold")
        if self.outcomes is None:
            return Group(said, Text("The process that holds the site does it: `follow` at its next poll."))
        rest = Text("Stopped before the end: the rest stays asked for.", "bold")
        return Group(said, *_counts("Became", self.outcomes), *([rest] if self.stopped_by else ()))


class RewindRequest(msgspec.Struct, frozen=True):
    """How a checkpoint is to be moved back."""

    to: Position  # entries above it are read again
    resend: bool = False  # also what the ledger holds
    events_since: date | None = None  # None: as it was
    forget_events_since: bool = False


class Rewind(msgspec.Struct, frozen=True):
    """What a rewind does, or has done."""

    before: str  # the watermark
    to: str
    resend: bool
    deliveries: int | None  # of the ledger, above it; None: positions change, nobody knows before
    letters: int | None  # dead ones above it
    events_since: datetime | None
    horizon: bool  # how the log is read from then on
    is_done: bool

    def __rich__(self) -> RenderableType:
        pairs = {
            "checkpoint": f"{'moved' if self.is_done else 'moves'} from {self.before} back to {self.to}",
            "deliveries above it": self._fate(self.deliveries, "sent again"),
            "dead letters above it": self._fate(self.letters, "tried anew"),
            "events since": _moment(self.events_since) if self.events_since else "the first entry on",
            "counts": f"begin anew after {self.to}",
            "positions": "TXID:ID" if self.horizon else "0:ID, since source.horizon is off",
        }
        return _pairs(pairs)

    def _fate(self, count: int | None, when_resent: str) -> str:
        what = f"removed: {when_resent}" if self.resend else "kept: not sent again"
        return what if count is None else f"{count:,} {what}"


class VerifyRequest(msgspec.Struct, frozen=True):
    """What `verify` is asked to look at, and whether it closes the gaps it finds."""

    sample: int  # contacts
    customer: CustomerId | None = None  # instead of a sample
    repair: bool = False
    events: bool = False  # with `repair`: of events too


class DiscrepancyRow(msgspec.Struct, frozen=True):
    """A gap."""

    kind: str
    what: str
    customer: str | None
    ac_contact_id: str | None

    @classmethod
    def of(cls, gap: Discrepancy) -> DiscrepancyRow:
        """Write a gap."""
        customer, contact = gap.customer, gap.ac_id
        return cls(
            gap.kind,
            gap.what,
            None if customer is None else str(customer),
            None if contact is None else str(contact),
        )


class VerifyReport(msgspec.Struct, frozen=True):
    """The answer of `verify`."""

    gaps: list[DiscrepancyRow]  # after a repair: those that are left
    closed: list[DiscrepancyRow]
    contacts: int  # that were looked at
    contacts_total: int
    is_sample: bool
    requests: dict[str, int]  # by endpoint

    def __rich__(self) -> RenderableType:
        looked = f"{self.contacts:,} contacts were looked at"
        if self.is_sample:
            looked += f", a sample of {self.contacts_total:,}: the others may have gaps too"
        words = f"{len(self.gaps):,} gaps" + (f", {len(self.closed):,} closed" if self.closed else "")
        return Group(
            *_gap_lines("closed", self.closed),
            *_gap_lines("gap", self.gaps),
            Text(f"{looked}."),
            Text(words, "bold red" if self.gaps else "bold green"),
        )


def _gap_lines(word: str, gaps: Iterable[DiscrepancyRow]) -> Iterator[RenderableType]:
    for gap in gaps:
        whose = f"customer {gap.customer}" if gap.customer else ""
        where = f"contact {gap.ac_contact_id}" if gap.ac_contact_id else ""
        yield Text("  ".join(part for part in (f"{word}: {gap.kind}", whose, where, gap.what) if part))


def _grid() -> Table:
    return Table.grid(padding=(0, 2))


def _pairs(pairs: Mapping[str, str]) -> Table:
    grid = _grid()
    for name, text in pairs.items():
        grid.add_row(Text(name, "dim"), Text(text))
    return grid


def _counts(title: str, counts: Mapping[str, int]) -> list[RenderableType]:
    """Return a table of counts, the greatest first; nothing when there are none."""
    rows = sorted(((-count, name) for name, count in counts.items() if count))
    return _table([title, ""], [[name, f"{-count:,}"] for count, name in rows])


def _listing(lines: list[dict[str, str]]) -> list[RenderableType]:
    """Return an empty line and a table of texts."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for name in lines[0]:
        table.add_column(name)
    for line in lines:
        table.add_row(*map(Text, line.values()))
    return [Text(), table]


def _requests(requests: Mapping[str, int], entries: int) -> list[RenderableType]:
    rows = [
        [name, f"{count:,}", f"{count / entries:.4f}" if entries else ""]
        for name, count in sorted(requests.items())
    ]
    return _table(["Requests", "", "an entry"], rows)


def _table(titles: list[str], rows: list[list[str]]) -> list[RenderableType]:
    """Return an empty line and a table, its figures to the right; nothing without rows."""
    if not rows:
        return []
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", min_width=0 if place else 32)
    for row in rows:
        table.add_row(*map(Text, row))
    return [Text(), table]


def _breaches(breaches: Mapping[str, int]) -> Text:
    total = sum(breaches.values())
    which = "".join(f", {name} {count}" for name, count in sorted(breaches.items()) if count)
    return Text(
        f"{total} breaches of ActiveCampaign's limits and contract{which}", "bold red" if total else "green"
    )


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), HOUR_S)
    minutes, left = divmod(rest, 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {left:02} s"
        if minutes
        else f"{seconds:.1f} s"
    )
