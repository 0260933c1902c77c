"""A backfill goes on when the account has other ids than when it began."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest

from kiva_stream.commands.backfill import BackfillMeter, BackfillRun
from kiva_stream.commands.backfill_report import BackfillRequest
from kiva_stream.errors import AccountRefused, IdsChanged
from kiva_stream.runtime.shutdown import Drain
from tests.support.virtual_time import run
from tests.support.waiting import raises_one

UNUSED: Any = None


def times_begun(monkeypatch: pytest.MonkeyPatch, *ends: Exception | None) -> int:
    """Return how often a run is begun whose attempts end with these errors; None: it is done."""
    left = list(ends)

    async def go(_run: BackfillRun, _request: BackfillRequest) -> None:
        await anyio.lowlevel.checkpoint()
        if (end := left.pop(0)) is not None:
            raise ExceptionGroup("the pipeline failed", [end])

    monkeypatch.setattr(BackfillRun, "_go", go)
    run(BackfillRun(UNUSED, Drain(), BackfillMeter()).go(BackfillRequest(None)))
    return len(ends) - len(left)


def test_a_backfill_begins_again_with_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times_begun(monkeypatch, IdsChanged("a list"), IdsChanged("a list"), None) == 3


def test_a_backfill_ends_by_any_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with raises_one(AccountRefused):
        times_begun(monkeypatch, IdsChanged("a list"), AccountRefused("no"), None)
