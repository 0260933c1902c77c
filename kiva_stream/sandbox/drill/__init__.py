"""The drill: the real commands carry a history while faults strike, and the truth shows what is missing.

Scenarios, and what runs and compares them, belong here. Faults of single requests belong to the local
ActiveCampaign.
"""

from kiva_stream.sandbox.drill.drill import Assignment, drill, run_assignments
from kiva_stream.sandbox.drill.history import History
from kiva_stream.sandbox.drill.report import DrillReport, Row
from kiva_stream.sandbox.drill.scenarios import Intensity, Scenario, scenarios

__all__ = [
    "Assignment",
    "DrillReport",
    "History",
    "Intensity",
    "Row",
    "Scenario",
    "drill",
    "run_assignments",
    "scenarios",
]
