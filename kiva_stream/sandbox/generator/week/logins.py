"""The log-ins of a week: those that no other entry follows are left for the end."""

from __future__ import annotations

from kiva_stream.sandbox.generator.mix import Key
from kiva_stream.sandbox.generator.week.plan import WeekPlan


class Logins:
    """This week's log-ins of all three kinds, in random order, to be taken one by one."""

    def __init__(self, plan: WeekPlan) -> None:
        self._keys: list[Key] = [key for key in (4, 5, 6) for _ in plan.quota(key)]
        self._draw = plan.draw
        self._draw.shuffle(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def take(self) -> Key:
        """Return the kind of one log-in, which is used up."""
        return self._keys.pop()

    def take_by_chance(self, share: float) -> Key | None:
        """Return the kind of one log-in in `share` of all cases; None in the others, or when none is left."""
        return self._keys.pop() if self._keys and self._draw.chance(share) else None
