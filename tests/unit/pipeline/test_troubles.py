"""The model test of bad records and outages, mixed at random: only bad records stay held when these end.

Contacts, orders and events get no answer or a refusal, all of ActiveCampaign or single requests are out, and
processes are killed, in whatever order, around the real pipeline and the real sync on fakes, in virtual time.

| what must hold                                             | is checked                                    |
|------------------------------------------------------------|-----------------------------------------------|
| an outage has at most three records of a kind held, none   | when a record is held                         |
| if reads get no answer either                              |                                               |
| no record is held that is not bad, but those three         | when a record is held                         |
| promises 1 to 4                                            | at each arrival and commit: see `Witness`     |
| all that belongs to no bad record is delivered             | when the outages are over                     |
| all is delivered, in log order for each contact            | when all records are well, too                |
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import CustomerId, OrderId
from tests.support.entries import EVENT, SYNC_ONLY, customer, entry, place_of
from tests.support.virtual_time import VirtualTimeLoop
from tests.unit.pipeline.troubles import (
    AFTER_S,
    MOST_BY_READS,
    PEOPLE,
    REQUESTS,
    Harm,
    Outage,
    Record,
    TroubledLookup,
    TroubledReceiver,
    TroubledWorld,
)
from tests.unit.pipeline.witness import LATE, LOST, TAKEN, Witness

HARMS: st.SearchStrategy[Harm] = st.sampled_from(["silent", "silent", "refused", "unnamed"])
ROWS = st.tuples(
    st.sampled_from(PEOPLE),
    st.sampled_from(["event", "event", "event", "order", "change"]),
    st.sampled_from([None, None, None, None, "silent", "refused"]),  # what is wrong with the event
)
CONTACTS = st.tuples(st.just("contact"), st.integers(1, 8))
ORDERS = st.tuples(st.just("order"), st.integers(1, 8).map(lambda number: 10 * number))
OUTAGES = st.one_of(
    st.just(Outage(frozenset(REQUESTS), is_whole=True)),
    st.sampled_from(REQUESTS).map(lambda request: Outage(frozenset([request]), is_whole=False)),
    st.sets(st.sampled_from(REQUESTS), min_size=2).map(lambda some: Outage(frozenset(some), is_whole=False)),
)
MOST_BAD = 4  # refused by one kind of request: five in a row would be the account's trouble
PATIENCE_S = 2_000.0
ROUNDS, ROUND_S = 6, 5.0


class Troubles(RuleBasedStateMachine):
    """A shop, a state and an account with troubles, which outlive many processes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.process: asyncio.Task[None] | None = None

    @initialize(
        page_rows=st.integers(1, 5),
        window=st.integers(8, 40),
        in_flight=st.integers(1, 6),
        rows=st.lists(ROWS, min_size=4, max_size=16),
    )
    def open_shop(
        self,
        page_rows: int,
        window: int,
        in_flight: int,
        rows: list[tuple[Customer, str, Harm | None]],
    ) -> None:
        self.world = world = TroubledWorld(page_rows=page_rows, window=window, max_in_flight=in_flight)
        self.troubles = world.troubles
        self.receiver = TroubledReceiver(self.troubles)
        self.witness = Witness(world, looks_up=True, receiver=self.receiver)
        world.lookup = TroubledLookup(self.receiver, self.troubles)
        self.synced = 0
        self._write(rows)
        self._start()

    # --- what happens ---

    @rule(rows=st.lists(ROWS, min_size=1, max_size=8))
    def the_shop_writes(self, rows: list[tuple[Customer, str, Harm | None]]) -> None:
        self._write(rows)

    @rule(record=st.one_of(CONTACTS, ORDERS), harm=HARMS)
    def a_record_goes_bad(self, record: Record, harm: Harm) -> None:
        alike = [each for each in self.troubles.bad if each[0] == record[0]]
        if record in alike or len(alike) < MOST_BAD:
            self._do(self._now(lambda: self.world.harm(record, harm)))

    @rule(record=st.one_of(CONTACTS, ORDERS))
    def a_record_is_well_again(self, record: Record) -> None:
        self._do(self._now(lambda: self.world.heal(record)))

    @rule(outage=OUTAGES, step=st.sampled_from([LOST, TAKEN, LATE]))
    def an_outage_begins(self, outage: Outage, step: str) -> None:
        if self.troubles.outage is None and self.loop.time() - self.troubles.ended_at >= AFTER_S:
            self.troubles.begin_outage(outage, step)

    @rule(
        outage=OUTAGES,
        step=st.sampled_from([LOST, TAKEN, LATE]),
        rows=st.lists(ROWS, min_size=4, max_size=12),
        seconds=st.sampled_from([8.0, 40.0, 300.0]),
        is_restarted=st.booleans(),
    )
    def an_outage_passes(
        self,
        outage: Outage,
        step: str,
        rows: list[tuple[Customer, str, Harm | None]],
        seconds: float,
        is_restarted: bool,
    ) -> None:
        self.an_outage_begins(outage, step)
        self._write(rows)
        self.time_passes(seconds)
        if is_restarted:
            self._cancel()
        if self.process is None:
            self._start()
        self.time_passes(seconds)
        self.the_outage_ends()

    @rule()
    def the_outage_ends(self) -> None:
        self._do(self._now(self.troubles.end_outage))

    @rule(seconds=st.sampled_from([0.02, 0.3, 2.0, 8.0, 40.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self._do(asyncio.sleep(seconds))

    @precondition(lambda self: self.process)
    @rule()
    def it_is_killed(self) -> None:
        self._cancel()

    @precondition(lambda self: self.process is None)
    @rule()
    def a_process_starts(self) -> None:
        self._start()

    # --- what must hold ---

    @invariant()
    def promises_hold(self) -> None:
        if hasattr(self, "witness"):
            self._look_at_process()
            self.witness.check_few_unknowns()
            self.witness.check_repeats()
            self.witness.check_watermark()

    def teardown(self) -> None:
        try:
            if hasattr(self, "witness"):
                self._look_at_process()
                self._do(self._now(self.troubles.end_outage))
                self._let_others_be_answered()
                self._come_to_an_end()
                self._check_the_others()
                self._make_all_well()
                self._come_to_an_end()
                self._check_all()
        finally:
            self._cancel()
            self.loop.close()

    def _check_the_others(self) -> None:
        """Check that nothing is kept but what belongs to bad records."""
        world, ledger = self.world, self.world.ledger
        bad = {world.owner_of(record) for record in self.troubles.bad}
        held = {world.owner_of(world.record_of(each)) for each in world.held_rows.rows.values()}
        assert held <= bad, f"records of innocents are held: {held}, bad are {bad}"
        kept = {place_of(each): self._owner(place_of(each)) for each in (*ledger.parked, *ledger.dead)}
        assert set(kept.values()) <= bad, f"entries of innocents are kept: {kept}, bad are {bad}"
        open_ = self.witness.events - set(map(place_of, (*ledger.delivered, *ledger.dead, *ledger.parked)))
        assert not open_, f"without an outcome: {open_}"

    def _check_all(self) -> None:
        """Check that all is delivered but the events that were refused."""
        ledger = self.world.ledger
        assert not self.world.held_rows.rows, "something is held still"
        refused = {place_of(where) for where, why in ledger.dead.items()}
        assert refused <= self.receiver.refused, f"dead: {ledger.dead}"
        self.witness.check_complete(Counter({"synced": self.synced} if self.synced else {}))
        self.witness.check_repeats()
        missing = self.world.orders.rows.keys() - self.world.uploads.has.keys()
        assert not missing, f"orders are missing: {missing}"

    # --- how ---

    def _write(self, rows: list[tuple[Customer, str, Harm | None]]) -> None:
        entries = self.world.log.entries
        for who, what, harm in rows:
            place = len(entries) + 1
            self.world.join(who)
            row = entry(place, who, action=EVENT if what == "event" else SYNC_ONLY)
            if what == "order":
                row = replace(row, data=f'{{"order_id": {self._change_order(who)}}}')
            elif what == "change":
                self.world.shop.change(who, first_name=f"Ann the {place}th")
            elif harm is not None and self._may_harm_event_of(who):
                self.world.harm(("event", place), harm)
            entries.append(row)
            self.witness.owners[place] = who.id
            if what == "event":
                self.witness.events.add(place)
            else:
                self.synced += 1

    def _may_harm_event_of(self, who: Customer) -> bool:
        """Return whether a sender is left for others if an event of this customer gets no answer."""
        bad = {self.world.owner_of(each) for each in self.troubles.bad if each[0] == "event"}
        return len(bad | {who.id}) <= max(MOST_BY_READS, self.world.settings.activecampaign.max_in_flight - 1)

    def _change_order(self, who: Customer) -> OrderId:
        row = self.world.orders.rows[OrderId(10 * who.id)]
        self.world.orders.put(replace(row, total_cents=row.total_cents + 1))
        return row.id

    def _make_all_well(self) -> None:
        """Have no record be bad, and the shop change what was refused, since only that is tried again."""
        bad = list(self.troubles.bad)
        self._do(self._now(lambda: self.world.heal(*bad)))
        whose = {self.world.owner_of(record) for record in bad}
        people = [who for who in PEOPLE if who.id in whose or self._is_refused(who)]
        self._write([(who, what, None) for who in people for what in ("change", "order", "event")])

    def _is_refused(self, who: Customer) -> bool:
        contact = self.world.links.by_customer.get(who.id)
        order = self.world.sent_orders.rows.get(OrderId(10 * who.id))
        return (contact is not None and contact.is_refused) or (order is not None and order.refused != "")

    def _owner(self, place: int) -> CustomerId:
        return self.witness.owners[place]

    def _start(self) -> None:
        self.world.followed.is_ended = False
        self.witness.began()
        self.process = self.loop.create_task(self.world.work())
        self._do(asyncio.sleep(0.01))

    def _let_others_be_answered(self) -> None:
        """Have each request be made for others, too: nothing else shows that there is no outage any more."""
        numbers = range(len(PEOPLE) + 1, len(PEOPLE) + 1 + ROUNDS)
        for number in numbers if self.troubles.bad else ():
            if self.process is None:
                self._start()
            both = [customer(each) for each in (number - 1, number) if each in numbers]
            self._write([(who, what, None) for who in both for what in ("change", "order", "event")])
            self._do(asyncio.sleep(ROUND_S))

    def _come_to_an_end(self) -> None:
        """Let processes come to the end of the log; each tries what is held."""
        for _ in range(3):
            if self.process is None:
                self._start()
            self.world.followed.is_ended = True
            if process := self.process:
                self._do(asyncio.wait([process], timeout=PATIENCE_S))
            assert self.process is None, "it never came to the end"

    async def _now(self, what: Any) -> None:  # noqa: ANN401
        what()

    def _do(self, what: Coroutine[Any, Any, object]) -> None:
        self.loop.run_until_complete(what)
        self._look_at_process()

    def _cancel(self) -> None:
        if self.process is not None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.wait([self.process]))
            self._look_at_process()

    def _look_at_process(self) -> None:
        """Note that the process has ended; it may not have failed."""
        if self.process is not None and self.process.done():
            process, self.process = self.process, None
            if not process.cancelled() and (error := process.exception()) is not None:
                raise error


IS_SEARCH = settings.get_current_profile_name() == "search"  # see tests/conftest.py
Troubles.TestCase.settings = settings(
    max_examples=500 if IS_SEARCH else 20,
    stateful_step_count=20,
    deadline=None,
    derandomize=not IS_SEARCH,  # the same in each run of the suite
)
TestTroubles = Troubles.TestCase
