"""The drill: a history carried by the real commands while plugs are pulled, and judged by its truth."""

from kiva_stream.sandbox.drill.drill import Play, drill, play
from kiva_stream.sandbox.drill.report import DrillReport, Row
from kiva_stream.sandbox.drill.scenarios import Intensity, Scenario, scenarios
from kiva_stream.sandbox.drill.stage import History

__all__ = ["DrillReport", "History", "Intensity", "Play", "Row", "Scenario", "drill", "play", "scenarios"]
