"""The ids that a working site uses, compared with those that its account has now.

What was deleted at ActiveCampaign and created anew by `setup` has another id. The caller begins anew then:
see `SiteAccountIds`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from kiva_stream.activecampaign.pause import Clock
from kiva_stream.errors import IdsChanged, SettingsError
from kiva_stream.model.account_ids import AccountIds, changed_kinds

REFUSED_EVERY_S = 10.0  # between two reads since a call with one of the ids was refused


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

    async def require_same(self) -> None:
        """Raise IdsChanged if the account has other ids now.

        While it lacks any, since `setup` has not created it anew yet, the ids are still those in use. Raises
        TryLater when the client's patience is over, and AccountRefused.
        """
        async with self._reading:
            if self._clock() - self._read_at >= self._fresh_s:
                await self._read()
        self._require_unchanged()

    async def are_missing(self) -> bool:
        """Return whether the account lacks any, which may be why a call was refused.

        The ids are read after this call has begun, however fresh they are: they may have been deleted since.
        Raises as `require_same`.
        """
        refused_at = self._clock()
        async with self._reading:
            if self._read_at <= refused_at:
                every_s = min(REFUSED_EVERY_S, self._fresh_s)
                await asyncio.sleep(self._read_at + every_s - self._clock())
                await self._read()
        self._require_unchanged()
        return self._are_missing

    async def _read(self) -> None:
        self._read_at = self._clock()
        try:
            self._found = await self._lookup()
        except SettingsError:
            self._are_missing = True
        else:
            self._are_missing = False

    def _require_unchanged(self) -> None:
        if changed := changed_kinds(self._used.by_kind(), self._found.by_kind()):
            kinds = ", ".join(sorted(changed))
            raise IdsChanged(f"ActiveCampaign has other ids than those in use: {kinds}; run it again")
