"""The scenarios: each disturbs a run in one way."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from kiva_stream.sandbox.drill import account_faults, database_faults, process_faults, record_faults
from kiva_stream.sandbox.drill.run import NOT_SET_UP, REFUSED, RESTARTED_CODES, TERMINATED, Play, beside
from kiva_stream.sandbox.drill.site import LOOKUP_SETTLE_S, MAX_IN_FLIGHT

ELSEWHERE_LEASE_S = 30.0  # longer than a command takes to start, however busy the machine is
LATE_LOG_SETTLE_S = 6.0  # before an event is looked up, where tracking logs are late

NO_SETTINGS: Mapping[str, object] = {}


class Intensity(NamedTuple):
    """How often processes are killed, and how long outages last."""

    kills: int
    outage_s: float


class Scenario(NamedTuple):
    """One way to disturb a run."""

    name: str
    play: Play
    settings: Mapping[str, object] = NO_SETTINGS  # of kiva_stream
    account: Mapping[str, object] = NO_SETTINGS  # of the sandbox
    restarted_codes: frozenset[int] = RESTARTED_CODES  # exit codes after which the command is run again
    repeats_allowed: int = 0
    stops_postgres: bool = False  # needs a server of its own
    relayed: bool = False  # the commands reach the database by way of a relay


def scenarios(wanted: Intensity) -> list[Scenario]:
    """Return all scenarios in the order of the table."""
    return [
        *_of_processes(wanted.kills),
        *_of_requests(),
        *_of_databases(wanted.outage_s),
        *_of_outages(wanted.outage_s),
        *_of_refusals(wanted.outage_s),
        *_of_records(),
    ]


def _of_processes(kills: int) -> list[Scenario]:
    very_late = {"tracking_log_delay_s": 0.8 * LATE_LOG_SETTLE_S}  # long after the next process has started
    no_look_ups = {"ACTIVECAMPAIGN__LOOKUP": "false"}
    kill = beside(process_faults.signal_at_random, signal.SIGKILL, kills)
    terminate = beside(process_faults.signal_at_random, signal.SIGTERM, kills)
    return [
        Scenario("kills", kill),
        Scenario(
            "kills-logs-late", kill, {"ACTIVECAMPAIGN__LOOKUP_SETTLE_S": LATE_LOG_SETTLE_S}, account=very_late
        ),
        Scenario("kills-no-look-ups", kill, settings=no_look_ups, repeats_allowed=kills * MAX_IN_FLIGHT),
        Scenario(
            "kills-elsewhere", beside(process_faults.kill_elsewhere), {"STATE__LEASE_S": ELSEWHERE_LEASE_S}
        ),
        Scenario("stops", terminate, settings=no_look_ups, restarted_codes=RESTARTED_CODES | {TERMINATED}),
        Scenario("frozen", beside(process_faults.freeze), repeats_allowed=1),
    ]


def _of_requests() -> list[Scenario]:
    late = {"tracking_log_delay_s": 0.6 * LOOKUP_SETTLE_S}
    kinds = account_faults.KINDS
    return [
        *(Scenario(kind.value, partial(account_faults.inject_faults, (kind,))) for kind in kinds),
        Scenario("all-faults", partial(account_faults.inject_faults, kinds), account=late),
    ]


def _of_databases(outage_s: float) -> list[Scenario]:
    quick = {"SOURCE__STATEMENT_TIMEOUT_S": 1}
    return [
        Scenario("postgres-stopped", beside(database_faults.stop_postgres, outage_s), stops_postgres=True),
        Scenario("connections-cut", beside(database_faults.cut_connections)),
        Scenario("connections-silent", beside(database_faults.silence_connections), quick, relayed=True),
        Scenario("source-errors", beside(database_faults.let_queries_fail)),
        Scenario("disk-full", beside(database_faults.fill_disk, outage_s)),
    ]


def _of_outages(outage_s: float) -> list[Scenario]:
    refused = RESTARTED_CODES | {REFUSED}
    return [
        Scenario("activecampaign-down", beside(account_faults.take_down, outage_s)),
        Scenario("another-server", beside(account_faults.answer_elsewhere, outage_s)),
        Scenario("key-refused", beside(account_faults.refuse_key, outage_s), restarted_codes=refused),
    ]


def _of_refusals(outage_s: float) -> list[Scenario]:
    refused = RESTARTED_CODES | {REFUSED}
    return [
        Scenario("rows-refused", beside(account_faults.refuse_rows)),
        Scenario("contact-limit", beside(account_faults.limit_contacts), restarted_codes=refused),
        Scenario(
            "connection-deleted",
            partial(account_faults.delete_connection, outage_s),
            restarted_codes=refused | {NOT_SET_UP},
        ),
    ]


def _of_records() -> list[Scenario]:
    quick = {"ACTIVECAMPAIGN__RETRY_HELD_S": 0.5}
    return [
        Scenario("poison", record_faults.poison, quick),
        Scenario("contact-refused", record_faults.refuse_contact),
        Scenario("imports-refused", record_faults.refuse_imports),
        Scenario("value-refused", record_faults.refuse_value),
        Scenario("address-mistyped", record_faults.mistype_address),
    ]
