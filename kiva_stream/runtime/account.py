"""The site's account at ActiveCampaign: its name, its addresses, and what it needs."""

from __future__ import annotations

from urllib.parse import urlsplit

from kiva_stream.activecampaign.account_ids import field_titles
from kiva_stream.activecampaign.account_setup import AccountRequirements, AccountSetup
from kiva_stream.activecampaign.client import Client
from kiva_stream.model.site import Site
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings

PATIENCE_S = 30.0  # of a command that cannot reach ActiveCampaign: api_url may be mistyped


def account_name(settings: ActiveCampaignSettings) -> str:
    """Return by what the state knows the account: two with the same are the same account."""
    return f"{urlsplit(settings.api_url).netloc} {settings.event_actid}"


def account_setup(settings: Settings, client: Client, site: Site | None) -> AccountSetup:
    """Return what the account needs for a site; without one it can be looked at, not set up."""
    account = settings.activecampaign
    shop_url = website(site.admin_base_url) if site else ""
    name = site.name if site else "us"
    return AccountSetup(
        client,
        AccountRequirements(
            site_id=settings.source.site_id,
            site_name=name,
            titles=field_titles(account),
            sender_url=account.list_sender_url or shop_url,
            sender_reminder=account.list_sender_reminder or f"You are a customer of {name}.",
            link_url=account.connection_link_url or shop_url,
            logo_url=account.connection_logo_url,
        ),
    )


def contact_url(api_url: str) -> str:
    """Return where people look at a contact of the account, its id to be added.

    The account `green` is at green.api-us1.com for programs and at green.activehosted.com for people.
    """
    host = urlsplit(api_url).netloc
    account, _, rest = host.partition(".")
    return f"https://{account + '.activehosted.com' if rest.startswith('api-') else host}/app/contacts/"


def website(url: str) -> str:
    """Return scheme and host of a URL; one that was stored without a scheme is https."""
    parts = urlsplit(url if "://" in url else f"https://{url.lstrip('/')}")
    return f"{parts.scheme}://{parts.netloc}"
