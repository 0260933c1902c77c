"""`probe`: asks the questions on scratch objects of the account, and removes these afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from contextlib import suppress

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.raw_calls import CallsUsedUpError, RawCalls
from kiva_stream.commands.probe import findings
from kiva_stream.commands.probe.bench import Bench
from kiva_stream.commands.probe.questions import QUESTIONS, Question
from kiva_stream.commands.probe.report import Finding, ProbeReport
from kiva_stream.commands.probe.scratch import Scratch
from kiva_stream.errors import DeliveryError, DrainTimeoutError, SettingsError
from kiva_stream.model.ids import Email
from kiva_stream.runtime.account import PATIENCE_S
from kiva_stream.runtime.shutdown import Drain, GracefulShutdown
from kiva_stream.settings.sections import Settings

MOST_CALLS = 59
FOR_REMOVAL = 14  # of them
TOKEN_BYTES = 4


async def probe(settings: Settings, email: Email, only: Collection[str] = tuple(QUESTIONS)) -> ProbeReport:
    """Ask the questions of these names, and return what was found. A signal ends it early; it tidies up.

    Raises SettingsError when the address has a contact, AccountRefused, and TryLater when ActiveCampaign
    stays out of reach.
    """
    account = settings.activecampaign
    async with Client(account, patience_s=PATIENCE_S) as client:
        calls = RawCalls(account, client, limit=MOST_CALLS - FOR_REMOVAL)
        scratch = Scratch(calls, email, secrets.token_hex(TOKEN_BYTES))
        if await scratch.find_contact() is not None:
            raise SettingsError(
                f"{email} has a contact, which probe would delete: give an address without one."
            )
        run = Probe(Bench(account, calls, scratch))
        drain = Drain()
        shutdown = GracefulShutdown(drain.begin, settings.pipeline.drain_timeout_s)

        async def work() -> None:
            try:
                await drain.interrupt(lambda: run.ask(only))
            finally:
                calls.limit = MOST_CALLS
                await scratch.remove_all()

        with suppress(DrainTimeoutError):  # what is left is listed
            await shutdown.run(work)
        is_wrong = any(finding.ok is False for finding in run.findings)
        return ProbeReport(
            ok=not is_wrong and not scratch.left,
            calls=calls.count,
            findings=run.findings,
            left=scratch.left,
            stopped_by=shutdown.signal,
        )


class Probe:
    """One run of `probe`: the findings so far."""

    def __init__(self, bench: Bench) -> None:
        self.findings: list[Finding] = []
        self._bench = bench

    async def ask(self, only: Collection[str]) -> None:
        """Ask the questions of these names, in their order. Raises as a call while nothing is found yet."""
        await self._bench.scratch.switch_tracking_on()
        for name, question in QUESTIONS.items():
            if name in only:
                self.findings.append(await self._finding(name, question))

    async def _finding(self, name: str, question: Question) -> Finding:
        assumed = question.assumed(self._bench.settings)
        try:
            return await question.ask(self._bench)
        except CallsUsedUpError as error:
            return findings.unknown(name, assumed, f"{error}: run it again with --only {name}")
        except DeliveryError as error:
            return findings.unknown(name, assumed, str(error))
