"""A generator of a realistic shop history, with the ground truth of what must become of it."""

from kiva_stream.sandbox.generator.generate import Generated, generate

__all__ = ["Generated", "generate"]
