"""Slow imports: those that ActiveCampaign accepted and does not complete are an incident."""

from __future__ import annotations

import time

from kiva_stream.activecampaign.pause import Clock
from kiva_stream.model.bulk_imports import ImportReport, ImportState
from kiva_stream.observability.incidents import Incidents

SLOW_S = 900.0  # an import of 250 contacts takes seconds ("Bulk import contacts" names no longest time)


class SlowImports:
    """Opens an incident for the imports that run for SLOW_S, and resolves it when they have ended.

    The time counts from the first report that this process asked for.
    """

    def __init__(self, incidents: Incidents, clock: Clock = time.monotonic) -> None:
        self._incidents = incidents
        self._clock = clock
        self._asked_at: dict[str, float] = {}  # of running imports, by their ids

    def note(self, import_id: str, report: ImportReport) -> None:
        """Take note of an import's report."""
        if report.state is not ImportState.RUNNING:
            self._asked_at.pop(import_id, None)
            self._incidents.resolve("imports", import_id)
        elif self._clock() - self._asked_at.setdefault(import_id, self._clock()) >= SLOW_S:
            self._incidents.open(
                "imports",
                f"ActiveCampaign has not completed the import {import_id} for {SLOW_S / 60:.0f} minutes: its "
                "contacts wait; if this lasts, ask ActiveCampaign's support",
                import_id,
            )
