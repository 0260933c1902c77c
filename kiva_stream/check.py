"""`check`: what kiva_stream relies on, a line each. It sends nothing that leaves a trace."""

from __future__ import annotations

from kiva_stream.activecampaign.client import Client
from kiva_stream.app import account_name, account_setup
from kiva_stream.catalog import CATALOG
from kiva_stream.errors import KivaStreamError, TryLater
from kiva_stream.kiva.contract import Finding, check_contract
from kiva_stream.kiva.customers import ShopCustomers
from kiva_stream.kiva.log import SystemLog
from kiva_stream.kiva.source import Source
from kiva_stream.model import Site
from kiva_stream.reports import CheckLine
from kiva_stream.settings import ActiveCampaignSettings, Settings
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.store import Store

PATIENCE_S = 10.0  # somebody waits for the answer


async def check(settings: Settings) -> list[CheckLine]:
    """Look at the source, the state schema and the account; what is wrong with one hides no other."""
    site, lines = await _check_source(settings)
    lines += await _check_state(settings)
    lines += await _check_account(settings.activecampaign, site)
    return lines


async def _check_source(settings: Settings) -> tuple[Site | None, list[CheckLine]]:
    schema, site_id = settings.source.schema, settings.source.site_id
    try:
        async with Source.open(settings.source) as source:
            findings: list[Finding] = await source.read(lambda found: check_contract(found, schema, site_id))
            if findings:
                return None, [CheckLine("source", False, finding.text) for finding in findings]
            customers = ShopCustomers(source, site_id, settings.source.skip_domains)
            site = await SystemLog(source, settings.source, customers).site()
    except KivaStreamError as error:
        return None, [CheckLine("source", False, str(error))]
    return site, [
        CheckLine("source", True, f"site {site.id}, {site.name}: tables, columns and rights are there")
    ]


async def _check_state(settings: Settings) -> list[CheckLine]:
    try:
        async with Store.open(settings.state) as store:
            await store.require_version()
            async with store.transaction() as connection:
                ledger = SiteLedger(store, connection, settings.source.site_id)
                saved = await ledger.saved(account_name(settings.activecampaign))
    except KivaStreamError as error:
        return [CheckLine("state", False, str(error))]
    where = f"its checkpoint is at {saved.watermark}" if saved else "no backfill has begun"
    return [CheckLine("state", True, f"schema {settings.state.schema} is there; {where}")]


async def _check_account(settings: ActiveCampaignSettings, site: Site | None) -> list[CheckLine]:
    try:
        async with Client(settings, patience_s=PATIENCE_S) as client:
            missing = await account_setup(settings, client, site).missing()
    except TryLater as error:
        what = "check activecampaign.api_url and the network"
        return [CheckLine("activecampaign", False, f"{error}: {what}")]
    except KivaStreamError as error:
        return [CheckLine("activecampaign", False, str(error))]
    found = [
        CheckLine("activecampaign", False, f"missing: {what}; run `kiva-stream setup`") for what in missing
    ] or [
        CheckLine(
            "activecampaign",
            True,
            f"the key is accepted; event tracking is on; {len(CATALOG.ac_names())} event names, list and "
            "field are there (a list without a user group is hidden in ActiveCampaign: that is yours to set; "
            "event_key shows with the first event only)",
        )
    ]
    paced = f"{settings.events_per_second} events/s" if settings.events_per_second else "events unpaced"
    limits = (
        f"{settings.requests_per_second} requests/s, {settings.bulk_imports_per_minute} imports/min, {paced}"
    )
    return [*found, CheckLine("limits", True, limits)]
