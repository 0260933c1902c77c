"""Calibration: a frozen piece of work like the pipeline's, by which the speed of a machine is measured.

Processor time means nothing without the machine it was taken on. So it is divided by that of this work,
done in the same process, before, after and between the pieces of what is measured. The work is of the
same kind: texts decoded by msgspec, small objects made and dropped, dicts and counters filled, and
futures that tasks hand things over by, on the same event loop. It imports nothing of
kiva_stream.

It is frozen: every committed ratio is a multiple of it. Whoever changes it measures all of them again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any, NamedTuple

import msgspec

TEXTS = 8_000  # as many as make the caches of a processor work
PER_PIECE = 400  # of them
REVISITED, STRIDE = 2_000, 1_237  # of them in a piece: what waited for long is in no cache any more
DECODED_BY_HAND = 40  # of a piece without a loop: the others are decoded before it
EVERY_S = 0.015  # of a piece in the middle of something else

_FIRST = datetime(2026, 1, 5, tzinfo=UTC)
_WORD = re.compile(r"(?:customer )?(order|box|address|payment) (added|changed|skipped|paid): #(\d+)")
_KINDS, _DEEDS = ("order", "box", "address", "payment"), ("added", "changed", "skipped", "paid")
_DECODE = msgspec.json.Decoder(dict[str, Any])


class _Key(NamedTuple):
    group: int
    number: int


class _Record(msgspec.Struct, frozen=True, gc=False):
    key: _Key
    at: datetime
    kind: str
    text: str
    fields: dict[str, Any]


class _Group(msgspec.Struct):
    key: int
    records: list[_Record]


class Piece(NamedTuple):
    """What a piece took, in processor seconds."""

    decoding_s: float  # texts decoded and matched, and records made of them
    handing_over_s: float  # records grouped, and handed over by tasks

    @property
    def cpu_s(self) -> float:
        """All of it."""
        return self.decoding_s + self.handing_over_s


class Pieces(NamedTuple):
    """What pieces took that were done in the middle of something else, in processor seconds."""

    counted_s: list[float]
    all_s: list[float]  # with what was prepared for each

    def add(self, counted_s: float, all_s: float) -> None:
        """Add one."""
        self.counted_s.append(counted_s)
        self.all_s.append(all_s)


class _Turn:
    """A future for coroutines that are resumed by hand."""

    def __init__(self) -> None:
        self.waits: Coroutine[Any, Any, None] | None = None

    def __await__(self) -> Generator[_Turn, None, None]:
        yield self


class Calibration:
    """The work, a piece at a time. Each piece has other texts than the one before it."""

    def __init__(self) -> None:
        self._texts = [_text(number) for number in range(TEXTS)]
        self._kept = [self._record(number, *text) for number, text in enumerate(self._texts)]
        self._next = 0

    async def piece(self) -> Piece:
        """Do a piece; return the processor seconds of this process that it took.

        It looks at no old records: how long that takes depends on the memory of the machine, and on who else
        uses it, which stages driven in memory hardly feel.
        """
        began_s = time.process_time()
        records = self._new(PER_PIECE)
        decoded_s = time.process_time()
        self._keep(records)
        if (await _handed_over(_grouped(records))).total() != PER_PIECE:
            raise ValueError("the calibration did not do its work")
        return Piece(decoded_s - began_s, time.process_time() - decoded_s)

    async def mean_cpu_s(self, pieces: int) -> float:
        """Do some pieces; return the processor seconds that one took on average."""
        return mean([(await self.piece()).cpu_s for _ in range(pieces)])

    @asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[Pieces]:
        """Do pieces in this block, between the steps of what runs on the same loop.

        They are other ones: the loop would run something else in the middle of them, so their coroutines are
        resumed by hand. And most texts are decoded before the clock of a piece runs, since a busy machine
        slows down what a pipeline does with sets, dicts and tasks more than that.
        """
        pieces = Pieces([], [])

        async def work() -> None:
            while True:
                pieces.add(*self._by_hand())
                await asyncio.sleep(EVERY_S)

        task = asyncio.create_task(work())
        try:
            yield pieces
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _by_hand(self) -> tuple[float, float]:
        """Do a piece without a loop; return its processor seconds, and those with its preparation."""
        prepared_s = time.process_time()
        records = self._new(PER_PIECE - DECODED_BY_HAND)
        self._revisit()
        began_s = time.process_time()
        records += self._new(DECODED_BY_HAND, after=len(records))
        self._keep(records)
        if _handed_over_by_hand(_grouped(records)).total() != PER_PIECE:
            raise ValueError("the calibration did not do its work")
        ended_s = time.process_time()
        return ended_s - began_s, ended_s - prepared_s

    def _new(self, count: int, after: int = 0) -> list[_Record]:
        first = self._next + after
        return [self._record(number, *self._texts[number]) for number in range(first, first + count)]

    def _keep(self, records: list[_Record]) -> None:
        """Keep records in the place of those that were made of the same texts before."""
        self._kept[self._next : self._next + PER_PIECE] = records
        self._next = (self._next + PER_PIECE) % TEXTS

    def _revisit(self) -> None:
        """Look at records from all over."""
        found = (self._kept[(self._next + step * STRIDE) % TEXTS] for step in range(REVISITED))
        seen = [
            record
            for record in found
            if record.text and record.fields and record.key.group >= 0 and record.at >= _FIRST
        ]
        if len(seen) != REVISITED:
            raise ValueError("the calibration did not do its work")

    def _record(self, number: int, message: str, data: str) -> _Record:
        found = _WORD.match(message.lower())
        fields = _DECODE.decode(data)
        kind = f"{found[1]} {found[2]}" if found else "none"
        shown = "; ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        return _Record(
            _Key(fields["customer"], number), _FIRST + timedelta(seconds=number), kind, shown, fields
        )


def _text(number: int) -> tuple[str, str]:
    kind, deed = _KINDS[number % 4], _DEEDS[number // 4 % 4]
    fields = {
        "customer": int(400 * (number * 0.6180339887 % 1) ** 3),
        "order_id": 100_000 + number,
        "name": f"Box {number % 97}",
        "total_cents": number * 7 % 10_000,
        "paid": number % 3 == 0,
        "by": "admin" if number % 11 == 0 else None,
    }
    return f"Customer {kind} {deed}: #{100_000 + number}", msgspec.json.encode(fields).decode()


def _grouped(records: list[_Record]) -> list[_Group]:
    seen: set[int] = set()
    groups: defaultdict[int, list[_Record]] = defaultdict(list)
    for record in records:
        seen.add(hash((record.key.group, record.kind, record.text)))
        groups[record.key.group].append(record)
    return [_Group(key, found) for key, found in groups.items()]


async def _handed_over(groups: list[_Group]) -> Counter[str]:
    """Give each group to a task of its own; each record waits for a future that another task resolves."""
    loop, counts = asyncio.get_running_loop(), Counter[str]()
    waiting: list[tuple[_Key, asyncio.Future[None]]] = []
    kept: list[_Key] = []

    async def work(group: _Group) -> None:
        for record in group.records:
            named = loop.create_future()
            waiting.append((record.key, named))
            await named
            counts[record.kind] += 1
            kept.append(_Key(record.key.number, group.key))

    async with asyncio.TaskGroup() as tasks:
        for group in groups:
            tasks.create_task(work(group))
        while len(kept) < PER_PIECE:
            await asyncio.sleep(0)
            now = waiting.copy()
            waiting.clear()
            keys = frozenset(key for key, _ in now)
            for key, named in now:
                if key in keys:
                    named.set_result(None)
    return counts


def _handed_over_by_hand(groups: list[_Group]) -> Counter[str]:
    """Do the same without a loop."""
    counts = Counter[str]()
    waiting: list[tuple[_Key, _Turn]] = []
    kept: list[_Key] = []

    async def work(group: _Group) -> None:
        for record in group.records:
            named = _Turn()
            waiting.append((record.key, named))
            await named
            counts[record.kind] += 1
            kept.append(_Key(record.key.number, group.key))

    ready = deque(work(group) for group in groups)
    while ready:
        while ready:
            task = ready.popleft()
            with suppress(StopIteration):
                task.send(None).waits = task
        keys = frozenset(key for key, _ in waiting)
        ready.extend(named.waits for key, named in waiting if key in keys and named.waits)
        waiting.clear()
    return counts
