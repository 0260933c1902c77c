"""The ids that a working site uses, compared with those that its account has now.

What was deleted at ActiveCampaign and created anew by `setup` has another id. The caller begins anew then:
see `SiteAccountIds`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from kiva_stream.activecampaign.pause import Clock
from kiva_stream.errors import IdsChanged, SettingsError
from kiva_stream.model.account_ids import AccountIds, changed_kinds

REFUSED_FRESH_S = 10.0  # when a call with one of the ids was refused


class IdsInUse:
    """The ids of connection, list, fields and tags that a working site uses.

    `lookup` reads those that the account has now. Those that were read less than `fresh_s` ago are not read
    again.
    """

    def __init__(
        self,
        ids: AccountIds,
        lookup: Callable[[], Awaitable[AccountIds]],
        *,
        fresh_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._used = self._found = ids
        self._lookup = lookup
        self._fresh_s = fresh_s
        self._clock = clock
        self._are_missing = False
        self._read_at = clock()
        self._reading = asyncio.Lock()

    async def require_same(self, fresh_s: float = math.inf) -> None:
        """Raise IdsChanged if the account has other ids now; `fresh_s` may shorten how long ids are fresh.

        While it lacks any, since `setup` has not created it anew yet, the ids are still those in use. Raises
        TryLater when the client's patience is over, and AccountRefused.
        """
        async with self._reading:
            if self._clock() - self._read_at >= min(fresh_s, self._fresh_s):
                try:
                    self._found = await self._lookup()
                except SettingsError:
                    self._are_missing = True
                else:
                    self._are_missing = False
                self._read_at = self._clock()
        if changed := changed_kinds(self._used.by_kind(), self._found.by_kind()):
            kinds = ", ".join(sorted(changed))
            raise IdsChanged(f"ActiveCampaign has other ids than those in use: {kinds}; run it again")

    async def are_missing(self) -> bool:
        """Return whether the account lacks any, which may be why a call was refused.

        Raises as `require_same`.
        """
        await self.require_same(REFUSED_FRESH_S)
        return self._are_missing
