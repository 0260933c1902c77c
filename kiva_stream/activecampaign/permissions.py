"""Permissions: reads that are refused with a 403, though the key is accepted, wait by themselves.

All other calls are answered meanwhile, so the key is not at fault: see `own_user`. Calls that write, and
reads with a number of tries, are left to their callers: what they are about may be the cause.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kiva_stream.activecampaign.pause import Pause
from kiva_stream.errors import KindRefused
from kiva_stream.observability.incidents import Incidents

T = TypeVar("T")

_NUMBERS = re.compile(r"\d+")  # ids in a path


class Permissions:
    """The reads of one account. With `retry_refused_s` a refused one is repeated every so many seconds."""

    def __init__(self, incidents: Incidents, pause: Pause, retry_refused_s: float | None) -> None:
        self._incidents = incidents
        self._pause = pause
        self._retry_refused_s = retry_refused_s

    async def repeat(self, read: str | None, call: Callable[[], Awaitable[T]], *, is_awaited: bool) -> T:
        """Return what a read returns, when it is permitted; `read` is its path, None for any other call.

        A refusal is raised if it is that of another call, if none is repeated, or if the permission is not to
        be awaited: then the caller can do without the read.
        """
        if read is None:
            return await call()
        kind = _NUMBERS.sub("…", read)
        while True:
            try:
                result = await call()
            except KindRefused as error:
                if self._retry_refused_s is None:
                    raise
                self._incidents.open("permission", str(error), kind)
                if not is_awaited:
                    raise
                await self._pause.sleep(self._retry_refused_s)
            else:
                self._incidents.resolve("permission", kind)
                return result
