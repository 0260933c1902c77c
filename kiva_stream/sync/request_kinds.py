"""Kinds of requests: each is paused by itself while ActiveCampaign refuses it for the account's sake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from kiva_stream.model.incidents import IncidentKind
from kiva_stream.observability.incidents import Incidents
from kiva_stream.sync.conviction import Conviction, Found, Verdict

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

REPORTER = "refusals"
NO_PERMISSION = "403"  # the text of a call that is refused though the key is accepted; its body may be why


class RequestKind(Generic[K, V]):
    """One kind of request: what was refused, and whether the kind is paused. `conviction` has the rules.

    `what` are the objects that it carries, and `advice` what to do, for the sentence of its incident. V is
    what is recorded of a record that turns out to be at fault itself. `before_probe` is awaited before each
    probe.
    """

    def __init__(
        self,
        incident: IncidentKind,
        what: str,
        advice: str,
        *,
        incidents: Incidents,
        probe_every_s: float,
        before_probe: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._incident = incident
        self._what = what
        self._advice = advice
        self._incidents = incidents
        self._before_probe = before_probe
        self._probe_every_s = probe_every_s
        self._conviction: Conviction[K] = Conviction(probe_every_s)
        self._refused: dict[K, V] = {}  # the last refusal of each provisional record
        self._due: set[K] = set()
        self._why = ""
        self.now = clock
        incidents.resolve(incident, REPORTER)  # an earlier one of this kind no longer can

    @property
    def why(self) -> str | None:
        """Why the kind is paused, None if it is not."""
        return self._why if self._conviction.is_paused else None

    async def held(self, records: Collection[K]) -> dict[K, str]:
        """Return those of these records that must not be sent now, and why.

        Raises what `before_probe` raises, if a probe is among them.
        """
        if not self._conviction.is_paused:
            return {}
        held = {record: self._why for record in records if not self._conviction.may_send(record)}
        if len(held) < len(records):
            await self._before_probe()
        return held

    def at_fault(self, record: K) -> None:
        """Note a refusal that names a value of a record."""
        self._conviction.refused(record, "", at=self.now(), names_value=True)
        self._refused.pop(record, None)

    def provisional(self, record: K, refusal: V, reply: str, *, text: str | None = None) -> dict[K, str]:
        """Note a refusal that names no value of a record; return the record, and why it is held.

        `text` is what is compared with other refusals, if it is not the reply.
        """
        was_paused = self._conviction.is_paused
        text = reply if text is None else text
        verdict = self._conviction.refused(record, text, at=self.now(), names_value=False)
        self._refused[record] = refusal
        if verdict is Verdict.PROVISIONAL:
            return {record: reply}
        if not was_paused:
            self._begin_pause(reply)
        return {record: self._why}

    def forget(self, records: Collection[K]) -> None:
        """Note that records are not to be sent any more, or that another kind of request carries them now."""
        self._conviction.forget(records)
        if self._refused:
            for record in records:
                self._refused.pop(record, None)

    def convict(self, records: Collection[K], reply: str) -> dict[K, str]:
        """Pause the kind, since ActiveCampaign refuses it whatever it carries; return all that it carried."""
        if not self._conviction.is_paused:
            self._conviction.convict(at=self.now())
            self._begin_pause(reply)
        self._conviction.withdraw_probe()
        return {record: self._why for record in records if not self._conviction.may_send(record)}

    def accepted(self, records: Collection[K], *, sent_at: float) -> dict[K, V]:
        """Note that records were accepted together; return the refusals of others that are at fault."""
        if not records:
            return {}
        was_paused = self._conviction.is_paused
        found: Found[K] = self._conviction.accepted(records, sent_at=sent_at, at=self.now())
        if was_paused and not self._conviction.is_paused:
            self._incidents.resolve(self._incident, REPORTER)
        for record in records:
            self._refused.pop(record, None)
        self._due.update(found.at_fault, found.to_try)
        return {record: self._refused.pop(record) for record in found.at_fault}

    @property
    def has_due(self) -> bool:
        """Whether records are to be tried now."""
        return bool(self._due) or self._conviction.is_probe_due(self.now())

    def take_due(self) -> set[K]:
        """Return the records that are to be tried now, or that turned out to be at fault."""
        due, self._due = self._due, set()
        probe = self._conviction.take_probe(self.now())
        return due if probe is None else {*due, probe}

    def _begin_pause(self, reply: str) -> None:
        self._why = (
            f"ActiveCampaign takes no {self._what}, whatever they are: {reply} {self._advice} All else goes "
            f"on; one is tried every {self._probe_every_s:g} s."
        )
        self._incidents.open(self._incident, self._why, REPORTER)
