"""What `probe` reports."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question: what was found, and whether kiva_stream's assumption holds."""

    question: str
    found: str
    assumed: str
    ok: bool | None  # None: it could not be found out
    change: str = ""  # what to do about it


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `probe`."""

    ok: bool  # no assumption is wrong, and nothing is left behind
    calls: int
    findings: list[Finding] = msgspec.field(name="lines")
    left: list[str]  # what could not be removed from the account
    stopped_by: int | None = None  # the signal that ended it before its end
