"""A generator of a realistic shop history, and of the ground truth: what must become of it.

What makes a history and writes it to a database belongs here. What reads a log does not: the truth follows
from what was done, and shares no code with the pipeline.
"""

from kiva_stream.sandbox.generator.generate import Generated, generate

__all__ = ["Generated", "generate"]
