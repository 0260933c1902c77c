"""Rows of a drill's report."""

from __future__ import annotations

import msgspec

from kiva_stream.sandbox.drill import Row

WHOLE = Row(
    fault="kills",
    seed=1,
    entries=5_000,
    times=3,
    starts=5,
    lost=0,
    repeated=0,
    repeats_allowed=0,
    out_of_order=0,
    kept=None,
    dead_letters=0,
    recovered_after_s=2.25,
    sent_again=0,
    wrong={},
)


def but(**changes: object) -> Row:
    return msgspec.structs.replace(WHOLE, **changes)
