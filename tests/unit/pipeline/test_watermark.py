"""The watermark: what it passes, and what is counted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.outcomes import DELIVERED, SYNCED, tally_of
from kiva_stream.model.positions import DAY1
from kiva_stream.pipeline.watermark import Watermark
from tests.support.entries import position


def test_the_watermark_stays_before_a_span_that_lacks_an_outcome() -> None:
    watermark = Watermark(DAY1)
    first, second = watermark.track(position(2), 2), watermark.track(position(3), 1)
    second.resolve(SYNCED)
    first.resolve(SYNCED)
    assert watermark.advance() == Counter()
    assert (watermark.position, watermark.width, watermark.pending) == (DAY1, 3, 1)
    assert watermark.ahead == {SYNCED: 2}
    first.resolve(DELIVERED, event_line=7)
    assert tally_of(watermark.advance()) == {
        ("outcome", "synced"): 2,
        ("outcome", "delivered"): 1,
        ("event", "7"): 1,
    }
    assert (watermark.position, watermark.width, watermark.pending) == (position(3), 0, 0)
    assert +watermark.ahead == Counter()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.data())
def test_the_watermark_is_never_ahead_of_an_entry_without_an_outcome(
    sizes: list[int], data: st.DataObject
) -> None:
    watermark = Watermark(DAY1)
    spans = [watermark.track(position(sum(sizes[: at + 1])), size) for at, size in enumerate(sizes)]
    order = data.draw(st.permutations([at for at, size in enumerate(sizes) for _ in range(size)]))
    left, counted = list(sizes), 0
    for at in order:
        spans[at].resolve(SYNCED)
        left[at] -= 1
        counted += watermark.advance()[SYNCED]
        done = next((at for at, count in enumerate(left) if count), len(left))
        assert watermark.position == (spans[done - 1].last if done else DAY1)
        assert watermark.width == sum(sizes[done:])
        assert watermark.pending == sum(left)
        assert counted == sum(sizes[:done])
        assert counted + sum(watermark.ahead.values()) + watermark.pending == sum(sizes)
