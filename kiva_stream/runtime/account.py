"""The site's account at ActiveCampaign: its name in the state, its URLs, and what it needs."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from yarl import URL

from kiva_stream.activecampaign.account_ids import field_titles
from kiva_stream.activecampaign.account_setup import AccountRequirements, AccountSetup
from kiva_stream.activecampaign.client import Client, base_url
from kiva_stream.model.site import Site
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings
from kiva_stream.state.answered_url import StoredAnsweredUrl
from kiva_stream.state.store import Store

# A name with a dot, localhost, or an address in brackets; then perhaps a port. No user, and no password.
_HOST = re.compile(r"([\w-]+(\.[\w-]+)+\.?|localhost|\[[0-9A-Fa-f:.]+\])(:\d*)?")
PATIENCE_S = 30.0  # of a command that a person waits for: api_url may be mistyped


def account_name(settings: ActiveCampaignSettings) -> str:
    """Return the name of the account in the state. Two with the same name are the same account."""
    return f"{_host(settings.api_url)} {settings.event_actid}"


async def answered_url(settings: ActiveCampaignSettings, store: Store) -> StoredAnsweredUrl:
    """Return what the state knows of the URL that `api_url` stands for. Raises CheckpointError."""
    return await StoredAnsweredUrl.read(store, base_url(settings.api_url))


def account_setup(settings: Settings, client: Client, site: Site | None) -> AccountSetup:
    """Return what the account needs for a site. Without a site it can be checked, but not set up."""
    account = settings.activecampaign
    shop_url = website(site.admin_base_url) if site else ""
    name = (site.name if site else "") or "us"
    return AccountSetup(
        client,
        AccountRequirements(
            site_id=settings.source.site_id,
            site_name=name,
            titles=field_titles(account),
            sender_url=account.list_sender_url or shop_url,
            sender_reminder=account.list_sender_reminder or f"You are a customer of {name}.",
            link_url=account.connection_link_url or shop_url,
            logo_url=account.connection_logo_url or (shop_url and f"{shop_url}/favicon.ico"),
        ),
    )


def contact_url(api_url: str) -> str:
    """Return the URL of the account's contact pages, to which a contact's id is to be added.

    The account `green` is at green.api-us1.com for programs and at green.activehosted.com for people.
    """
    host = _host(api_url)
    account, _, rest = host.partition(".")
    return f"https://{account + '.activehosted.com' if rest.startswith('api-') else host}/app/contacts/"


def _host(api_url: str) -> str:
    """Return the host and port of a URL, the same for all spellings of it."""
    return str(URL(api_url).host_port_subcomponent)


def website(url: str) -> str:
    """Return the scheme and host of a URL, "" if it is no URL of a website. The default scheme is https."""
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text.lstrip('/')}")
        host = parts.netloc if parts.port != 0 else ""
    except ValueError:  # of brackets or a port that are none
        return ""
    is_website = parts.scheme in {"http", "https"} and _HOST.fullmatch(host)
    return f"{parts.scheme}://{host}" if is_website else ""
