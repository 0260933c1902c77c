"""The model test: whatever happens, in whatever order, promises 1 to 4 and the bound of memory hold.

Random entries, contacts, faults of ActiveCampaign and of the state database, waits, crashes, drains, replays
and restarts are thrown at the real pipeline on fakes, in virtual time. What must hold is looked at with each
arrival and each commit, and after each step: see `Witness`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from kiva_stream.errors import CheckpointError, SourceError
from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import Email
from tests.support.entries import EVENT, NOISE, SYNC_ONLY, account, entry, position
from tests.support.pipeline_world import AGAIN, ANN, BOB, FAILING, NOBODY, REFUSED, TWIN, World
from tests.support.virtual_time import VirtualTimeLoop
from tests.support.waiting import leaves
from tests.unit.pipeline.witness import SETTLE_S, STEPS, Witness

EVE = replace(BOB, id=7, email="eve@example.org")
PEOPLE = (ANN, BOB, TWIN, NOBODY, FAILING, REFUSED, EVE)
ROWS = st.tuples(
    st.sampled_from(PEOPLE),
    st.sampled_from([EVENT, EVENT, EVENT, EVENT, SYNC_ONLY, NOISE, AGAIN]),
    st.lists(st.sampled_from(STEPS), max_size=3),
)
WAITS = st.sampled_from([0.05, 1.0, 7.0, 30.0, 60.0])
PATIENCE_S = 900.0
ASKED_AGAIN = 10  # times in PATIENCE_S
RETRY_HELD_S = 5.0


class Promises(RuleBasedStateMachine):
    """A shop, a state and an account that outlive many processes."""

    @initialize(
        page_rows=st.integers(1, 4),
        window=st.integers(2, 12),
        in_flight=st.sampled_from([1, 1, 2, 3]),
        parked_max=st.integers(1, 5),
        looks_up=st.booleans(),
        brings_contacts=st.booleans(),
        is_slow_to_show=st.booleans(),
        rows=st.lists(ROWS, min_size=4, max_size=12),
    )
    def open_shop(
        self,
        page_rows: int,
        window: int,
        in_flight: int,
        parked_max: int,
        looks_up: bool,
        brings_contacts: bool,
        is_slow_to_show: bool,
        rows: list[tuple[Customer, str, list[str]]],
    ) -> None:
        self.world = World(
            [],
            page_rows=page_rows,
            window=window,
            max_in_flight=in_flight,
            parked_max=parked_max,
            lookup_settle_s=SETTLE_S,
            backoff_max_s=4.0,
            retry_held_s=RETRY_HELD_S,
        )
        self.witness = Witness(self.world, looks_up=looks_up)
        self.receiver = self.witness.receiver
        self.receiver.is_slow_to_show = is_slow_to_show
        self.expected: Counter[str] = Counter()
        self.world.shop.rows.update({who.id: account(who) for who in PEOPLE})
        self._add(rows)
        self._start(brings_contacts=brings_contacts)

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.process: asyncio.Task[None] | None = None

    # --- what happens ---

    @precondition(lambda self: self.process is None)
    @rule(rows=st.lists(ROWS, min_size=1, max_size=6))
    def the_shop_writes(self, rows: list[tuple[Customer, str, list[str]]]) -> None:
        self._add(rows)

    @precondition(lambda self: self.process is None)
    @rule(replays=st.booleans())
    def a_process_starts(self, replays: bool) -> None:
        ledger = self.world.ledger
        passed = {where: why for where, why in ledger.dead.items() if where <= ledger.watermark}
        self.world.replays = passed if replays else {}
        self._start()

    @rule()
    def what_is_held_is_replayed(self) -> None:
        self.world.held_rows.ask_all()

    @rule(seconds=st.sampled_from([0.015, 0.05, 0.5, 2.0]))
    def a_moment_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(seconds=st.sampled_from([4.0, 8.0]))
    def a_while_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(turns=st.integers(1, 30))
    def a_few_turns_pass(self, turns: int) -> None:
        async def pass_turns() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self._do(pass_turns())

    @precondition(lambda self: self.process)
    @rule()
    def it_is_killed(self) -> None:
        kept = len(self.world.ledger.commits)
        self._kill()
        assert len(self.world.ledger.commits) == kept

    @precondition(lambda self: self.process)
    @rule(patience_s=st.sampled_from([0.0, 0.5, 5.0]))
    def it_is_drained_and_killed_when_that_takes_too_long(self, patience_s: float) -> None:
        assert self.process is not None
        sent = self.loop.run_until_complete(self._drain())
        self._pass(patience_s)
        assert len(self.receiver.arrivals) == sent, "an event was sent after the drain"
        if self.process is not None:
            self._kill()

    @rule(who=st.sampled_from([ANN, BOB, EVE, FAILING]), seconds=WAITS)
    def answers_for_somebody_are_long_in_coming(self, who: Customer, seconds: float) -> None:
        self.receiver.held.add(self._address(who))
        self._wait_for_the_answers(seconds)

    @rule(seconds=WAITS)
    def imports_are_long_in_coming(self, seconds: float) -> None:
        self.world.contacts.gate = self.world.contacts.gate or anyio.Event()
        self._wait_for_the_answers(seconds)

    @rule(seconds=WAITS)
    def commits_are_long_in_coming(self, seconds: float) -> None:
        self.world.ledger.gate = self.world.ledger.gate or anyio.Event()
        self.world.ledger.gates_all = True
        self._wait_for_the_answers(seconds)

    @rule(keeps=st.booleans(), after=st.integers(1, 8))
    def commits_fail(self, keeps: bool, after: int) -> None:
        ledger = self.world.ledger
        ledger.fails_at, ledger.keeps_failed = ledger.asked + after, keeps

    @precondition(lambda self: self.process is None)
    @rule(after=st.integers(0, 3))
    def the_source_will_break(self, after: int) -> None:
        self.world.log.breaks_after = after

    @precondition(lambda self: self.process is None)
    @rule()
    def nobody_gets_an_address(self) -> None:
        self.world.shop.change(NOBODY, email=Email("somebody@example.org"))

    @precondition(lambda self: self.process is None)
    @rule()
    def eve_moves(self) -> None:
        old = self._address(EVE)
        self.world.shop.change(EVE, email=Email(f"new.{old}"))

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
                self._come_to_an_end()
                self.witness.check_complete(self.expected)
                self.witness.check_repeats()
                self.witness.check_repeats_are_counted()
        finally:
            self._cancel()
            self.loop.close()

    def _come_to_an_end(self) -> None:
        """Take every trouble away, and let processes come to the end of the log."""
        self._let_go()
        self.world.ledger.works_again()
        self.world.log.breaks_after, self.world.replays = None, {}
        for number in range(20):
            # The first may have been told to fail, or to drain. Each one tries what is held.
            if number > 1 and not self.world.ledger.parked:
                break
            if self.process is None:
                self.world.held_rows.ask_all()
                self._start()
            for _ in range(ASKED_AGAIN):  # reading pauses behind what is tried only when that is asked for
                if process := self.process:
                    self._do(asyncio.wait([process], timeout=PATIENCE_S / ASKED_AGAIN))
                    self.world.held_rows.ask_all()
            assert self.process is None, "it never came to the end"

    # --- how ---

    def _add(self, rows: list[tuple[Customer, str, list[str]]]) -> None:
        entries = self.world.log.entries
        for who, what, steps in rows:
            place = len(entries) + 1
            is_again = what == AGAIN and bool(entries) and entries[-1].customer_id != NOBODY.id
            row = replace(entries[-1], position=position(place)) if is_again else entry(place, who)
            if what == NOISE or (what == SYNC_ONLY and who is not NOBODY):
                row = replace(row, action=what)
            entries.append(row)
            self._expect(place, row, is_again=is_again)
            self.receiver.steps[place] = list(steps)

    def _expect(self, place: int, row: Entry, *, is_again: bool) -> None:
        owner = row.customer_id or NOBODY.id
        self.witness.owners[place] = ANN.id if owner == TWIN.id else owner
        if row.action == NOISE:
            self.expected["skipped noise"] += 1
        elif row.action == EVENT and is_again:
            self.expected["skipped duplicate"] += 1
        elif row.action == SYNC_ONLY and owner != REFUSED.id:
            self.expected["synced"] += 1
        else:
            self.witness.events.add(place)

    def _address(self, who: Customer) -> Email:
        email = self.world.shop.rows[who.id].customer.email
        assert email is not None
        return email

    def _start(self, *, brings_contacts: bool = False) -> None:
        self.world.ledger.works_again()
        self.process = self.loop.create_task(self._work(brings_contacts=brings_contacts))
        self._pass(0.03)

    async def _work(self, *, brings_contacts: bool) -> None:
        self.witness.began()
        self.world.begin()
        if brings_contacts:
            await self.world.sync.snapshot(position(self.world.size), lambda _count: None)
        await self.world.carry()

    async def _drain(self) -> int:
        """Begin a drain; return how many events were sent until then, in this round of the loop too."""
        self.world.pipeline.drain()
        return len(self.receiver.arrivals)

    def _wait_for_the_answers(self, seconds: float) -> None:
        self.loop.call_later(seconds, self._let_go)
        self._pass(min(seconds, 9.0) if seconds > 1.0 else 0.03)

    def _let_go(self) -> None:
        world = self.world
        self.receiver.held.clear()
        self.receiver.released.set()
        self.receiver.released = anyio.Event()
        for gate in (world.contacts.gate, world.ledger.gate):
            if gate is not None:
                gate.set()
        world.contacts.gate = world.ledger.gate = None

    def _pass(self, seconds: float) -> None:
        self._do(asyncio.sleep(seconds))

    def _do(self, what: Coroutine[Any, Any, object]) -> None:
        self.loop.run_until_complete(what)
        self._look_at_process()

    def _kill(self) -> None:
        self._cancel()
        self._look_at_process()

    def _cancel(self) -> None:
        if self.process is not None:
            for task in asyncio.all_tasks(self.loop):  # at once: none goes on until the others have ended
                task.cancel()
            self.loop.run_until_complete(asyncio.wait([self.process]))

    def _look_at_process(self) -> None:
        """Take in that the process has ended; it may have failed only as it was told to."""
        if self.process is None or not self.process.done():
            return
        process, self.process = self.process, None
        if process.cancelled() or (error := process.exception()) is None:
            return
        for each in leaves(error):
            if not isinstance(each, CheckpointError | SourceError):
                raise each


Promises.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestPromises = Promises.TestCase
