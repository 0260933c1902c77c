"""A local ActiveCampaign with the real one's contract and limits, for demo, tests, benchmarks, dry runs.

What the service does belongs here, as far as its documentation says. What kiva_stream expects of it does not.
"""

from kiva_stream.sandbox.activecampaign.account import Account, Breach, SandboxAccount
from kiva_stream.sandbox.activecampaign.command import run
from kiva_stream.sandbox.activecampaign.events import ReceivedEvent, StrayEvent
from kiva_stream.sandbox.activecampaign.faults import Fault, FaultKind, parse_fault
from kiva_stream.sandbox.activecampaign.server import Running, Sandbox

__all__ = [
    "Account",
    "Breach",
    "Fault",
    "FaultKind",
    "ReceivedEvent",
    "Running",
    "Sandbox",
    "SandboxAccount",
    "StrayEvent",
    "parse_fault",
    "run",
]
