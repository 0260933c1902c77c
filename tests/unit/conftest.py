"""How hypothesis runs here."""

from __future__ import annotations

from hypothesis import settings

# A pause of the machine is no fault of the code; what has to be fast has a benchmark.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
