"""A witness of a world: checks promises 1 to 4 at each commit and each arrival."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection

import anyio

from kiva_stream.errors import Rejected, UnknownOutcome
from kiva_stream.model.checkpoint import Commit
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.held_records import HeldKind, HeldRecord
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.positions import Position
from tests.fakes.destination_events import Arrival, FakeEvents
from tests.fakes.stages import FakeDeliveryLookup
from tests.fakes.state_ledger import FakeDeadLetters, FakeLedger
from tests.support.entries import place_in, place_of, position
from tests.support.pipeline_world import World

SETTLE_S = 3.0
LATE_S = 1.4  # until an event of the step LATE is processed; until one is shown if that is slow

# What happens to an attempt to send an event.
OK = "ok"  # processed, then answered
OK_AT_LAST = "ok at last"  # processed just before it is answered
LOST = "lost"  # not processed, and no answer
TAKEN = "taken"  # processed, and no answer
LATE = "late"  # no answer, and processed some time after
REFUSED_EVENT = "refused"
STEPS = (OK, OK_AT_LAST, LOST, TAKEN, LATE, REFUSED_EVENT)
UNKNOWN = (LOST, TAKEN, LATE)


class Receiver(FakeEvents):
    """Implements Events by a script: `steps` are the steps of the attempts of an event, by place; then OK.

    Events of an address in `held` wait for `released`. `shown` are the places that a look-up finds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, list[str]] = {}
        self.held: set[Email] = set()
        self.released = anyio.Event()
        self.shown: set[int] = set()
        self.is_slow_to_show = False
        self.refused: set[int] = set()  # places of events that were refused
        self.unknown: Counter[int] = Counter()  # attempts without an answer, by place

    async def send(
        self,
        email: Email,
        name: str,
        data: str,
        *,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        arrival = Arrival(email, name, place_in(data))
        self.arrivals.append(arrival)
        self.on_arrival()
        step = self._next_step(arrival.place)
        if step in {OK, TAKEN}:
            self._process(arrival)
        elif step == LATE:
            asyncio.get_running_loop().call_later(LATE_S, self._process, arrival)
        with self._flying(email):
            await anyio.sleep(0.01)
            while email in self.held:
                await self.released.wait()
        self._answer(arrival, step)

    def _next_step(self, place: int) -> str:
        steps = self.steps.get(place)
        return steps.pop(0) if steps else OK

    def _answer(self, arrival: Arrival, step: str) -> None:
        if step == OK_AT_LAST:
            self._process(arrival)
        elif step == REFUSED_EVENT:
            self.refused.add(arrival.place)
            raise Rejected("refused", "no")
        elif step in UNKNOWN:
            self.unknown[arrival.place] += 1
            raise UnknownOutcome("?")

    def _process(self, arrival: Arrival) -> None:
        self.processed.append(arrival)
        delay_s = LATE_S if self.is_slow_to_show else 0.0
        asyncio.get_running_loop().call_later(delay_s, self.shown.add, arrival.place)


class ReceiverLookup(FakeDeliveryLookup):
    """Implements DeliveryLookup on what a receiver shows."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver)
        self._receiver = receiver

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool:
        await super().has_arrived(contact, name, eventdata)
        return place_in(eventdata) in self._receiver.shown


class WatchedLedger(FakeLedger):
    """Passes each commit that was kept to `on_kept`, with the number of entries read when it was sent."""

    def __init__(self, read: Callable[[], int], on_kept: Callable[[Commit, int], None]) -> None:
        super().__init__()
        self._read_so_far = read
        self._on_kept = on_kept
        self._read_by_then = 0

    async def commit(self, commit: Commit) -> None:
        self._read_by_then = self._read_so_far()
        await super().commit(commit)

    def _keep(self, commit: Commit) -> None:
        super()._keep(commit)
        self._on_kept(commit, self._read_by_then)


class Witness:
    """Watches a world. Each `check_` method raises AssertionError when a promise is broken.

    `events` are the places of entries whose outcome is delivered or dead; the state has no rows of others.
    `owners` are the customers of places.
    """

    def __init__(self, world: World, *, looks_up: bool, receiver: Receiver | None = None) -> None:
        self.world = world
        self.looks_up = looks_up
        self.receiver = world.events = receiver or Receiver()
        self.receiver.on_arrival = self.see_arrival
        world.lookup = ReceiverLookup(self.receiver) if looks_up else None
        world.ledger = self.ledger = WatchedLedger(self._read, self.see_commit)
        world.dead_letters = FakeDeadLetters(self.ledger)
        world.log.on_page = self.check_memory
        world.commit_sleep = anyio.sleep
        self.owners: dict[int, CustomerId] = {}
        self.events: set[int] = set()
        self.open: set[int] = set()  # places of events that arrived and have no outcome since
        self.open_at_start: set[int] = set()
        self.in_doubt: Counter[int] = Counter()  # crashes and drains that left an event open, by place
        self.read_before = 0
        self.dead_once: set[int] = set()  # places of dead letters, reopened or not

    def began(self) -> None:
        """Note that a new process begins."""
        self.open_at_start = set(self.open)
        self.in_doubt.update(self.open)
        self.read_before = self._behind(self.ledger.watermark)
        self.world.log.read.clear()
        self.check_in_doubt()

    def see_arrival(self) -> None:
        """Check the promises that an arriving event could break."""
        newest = self.receiver.arrivals[-1]
        assert self.world.links.by_email[newest.email].status is ContactStatus.LINKED
        assert position(newest.place) in self._recorded, "it was sent before a commit recorded it"
        self.check_doubts(newest.place)
        self.open.add(newest.place)
        self.check_few_unknowns()
        self.check_order()

    def see_commit(self, commit: Commit, read: int) -> None:
        """Check the promises that a commit could break."""
        self.open -= {place_of(row.position) for row in commit.delivered}
        dead = {place_of(dead_letter.position) for dead_letter in commit.dead}
        self.open -= dead
        self.dead_once |= dead
        counted = sum(self.ledger.tally().values()) + commit.pending
        newest = self.world.log.entries[self.read_before + read - 1].position
        parked = sum(each <= newest for each in self.ledger.parked)
        assert counted + parked == self.read_before + read, "the counts do not add up to the entries read"
        read_when_full = max(self.world.settings.pipeline.window, self.world.log.page_rows)
        assert len(self.ledger.parked) < self.world.parked_max + read_when_full
        self.check_watermark()

    @property
    def _held_rows(self) -> Collection[HeldRecord]:
        return self.world.held_rows.rows.values()

    @property
    def _recorded(self) -> frozenset[Position]:
        return self.ledger.commits[-1].intents if self.ledger.commits else frozenset()

    def _read(self) -> int:
        return self.world.checkpoint.statistics().read

    def _behind(self, where: Position) -> int:
        return sum(each.position <= where for each in self.world.log.entries)

    # --- promise 1 ---

    def check_watermark(self) -> None:
        """Check that every event up to the watermark has an outcome or is parked."""
        passed = {place for place in self.events if position(place) <= self.ledger.watermark}
        kept = {*self.ledger.delivered, *self.ledger.dead, *self.ledger.parked}
        lost = passed - set(map(place_of, kept))
        assert not lost, f"the watermark is ahead of {lost}"

    def check_complete(self, expected: Counter[str]) -> None:
        """Check that every entry has one outcome; `expected` counts outcomes without rows in the state."""
        ledger, size = self.ledger, self.world.size
        delivered, dead = set(map(place_of, ledger.delivered)), set(map(place_of, ledger.dead))
        assert self.events <= delivered | dead
        assert not delivered & dead
        assert not ledger.parked
        counts = Counter(expected) + Counter({"delivered": len(delivered)})
        counts.update(f"dead {why}" for why in ledger.dead.values())
        assert ledger.tally() == +counts
        assert (self._behind(ledger.watermark), sum(counts.values())) == (size, size)

    # --- promise 2 ---

    def check_order(self) -> None:
        """Check that first arrivals of a contact are in log order, reopened dead letters excepted."""
        last: dict[CustomerId, int] = {}
        dead_once = self.receiver.refused | self.dead_once
        for place in dict.fromkeys(each.place for each in self.receiver.arrivals):
            owner = self.owners[place]
            if place not in dead_once:
                assert last.get(owner, 0) < place, f"{place} came after {last[owner]}"
                last[owner] = place

    # --- promise 3 ---

    def check_repeats(self) -> None:
        """Check that no event was processed twice; without look-ups, none that was not in doubt."""
        processed = Counter(each.place for each in self.receiver.processed)
        if self.looks_up:
            assert max(processed.values(), default=1) == 1, f"repeated: {processed.most_common(3)}"
        for place, times in processed.items():
            assert times <= 1 + self.receiver.unknown[place] + self.in_doubt[place], f"{place} was repeated"

    def check_repeats_are_counted(self) -> None:
        """Check that the ledger's attempts and the notes count what a process sent again."""
        sent = Counter(each.place for each in self.receiver.arrivals)
        rows = {place_of(row.position): row for commit in self.ledger.commits for row in commit.delivered}
        calm = rows.keys() - self.in_doubt.keys() - self.receiver.refused
        assert all(rows[place].attempts == sent[place] for place in calm)
        again = sum(sent[place] - 1 for place in calm)
        assert self.ledger.tally("note").get("sent_again", 0) >= again

    def check_doubts(self, arriving: int) -> None:
        """Check that an event in doubt arrives only after a replay, and before later ones of its customer."""
        waiting = {row.fingerprint for row in self._held_rows if row.due_in_s == math.inf}
        doubts = {place for place in self.open if str(position(place)).encode() in waiting}
        mine = {place for place in doubts if self.owners[place] == self.owners[arriving]}
        assert all(arriving < place for place in mine), f"{arriving} came while {mine} were in doubt"

    # --- promise 4 ---

    def check_few_unknowns(self) -> None:
        """Check that every event without an outcome is recorded, and that this process sent few of them.

        An event that was sent may be held: then it takes no place in flight.
        """
        unnamed = self.open - set(map(place_of, self._recorded))
        assert not unnamed, f"no commit recorded {unnamed}"
        held = {row.fingerprint for row in self._held_rows if row.key.kind is HeldKind.EVENT}
        mine = {
            place for place in self.open - self.open_at_start if str(position(place)).encode() not in held
        }
        assert len(mine) <= self.world.settings.activecampaign.max_in_flight

    def check_in_doubt(self) -> None:
        """Check that a new process has every event in doubt that may have arrived."""
        assert self.open <= set(map(place_of, self.ledger.left().in_doubt))

    # --- memory ---

    def check_memory(self) -> None:
        """Check that the entries read above the watermark are at most a window and a page."""
        world = self.world
        if world.log.read:
            ahead = sum(each > world.checkpoint.position for each in world.log.read)
            rows = world.log.page_rows
            assert ahead <= max(world.settings.pipeline.window, rows) + rows
