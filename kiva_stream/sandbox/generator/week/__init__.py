"""What happens in one week of a shop: a module a step, and the plan that they write to.

Only decisions of a week belong here. The shop's state lies in `generator.shop`, the texts of entries in
`generator.event_texts` and `generator.other_texts`.
"""

from kiva_stream.sandbox.generator.week.plan import PlannedEntry
from kiva_stream.sandbox.generator.week.steps import plan_week

__all__ = ["PlannedEntry", "plan_week"]
