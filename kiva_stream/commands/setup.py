"""`setup`: creates what is missing, in the state database and at ActiveCampaign."""

from __future__ import annotations

from kiva_stream.activecampaign.client import Client
from kiva_stream.errors import TryLater
from kiva_stream.runtime.account import PATIENCE_S, account_setup, answered_url
from kiva_stream.runtime.shop import open_shop
from kiva_stream.settings.sections import Settings
from kiva_stream.state.store import Store


async def set_up(settings: Settings) -> list[str]:
    """Create what is missing in the state database and at ActiveCampaign; return a phrase for each.

    It is safe to repeat. Raises SourceError, CheckpointError, AccountRefused, SettingsError, and TryLater
    when ActiveCampaign stays out of reach.
    """
    async with open_shop(settings) as shop, Store.open(settings.state) as store:
        created = [f"the state schema {settings.state.schema}"] if await store.migrate() else []
        account = settings.activecampaign
        answered = await answered_url(account, store)
        async with Client(account, patience_s=PATIENCE_S, answered=answered) as client:
            try:
                return created + await account_setup(settings, client, shop.site).set_up()
            except TryLater as error:
                raise TryLater(f"{error}: check api_url, or try again later.") from None
