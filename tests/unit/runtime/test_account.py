"""What is made of the addresses of an account and of a shop."""

from __future__ import annotations

import pytest

from kiva_stream.activecampaign.client import base_url
from kiva_stream.runtime import account
from kiva_stream.settings.sections import ActiveCampaignSettings


@pytest.mark.parametrize(
    ("url", "website"),
    [
        ("https://shop.example.com/admin", "https://shop.example.com"),
        ("http://shop.example.com:8080/admin?x=1", "http://shop.example.com:8080"),
        ("shop.example.com/admin", "https://shop.example.com"),
        ("shop.example.com:8080", "https://shop.example.com:8080"),
        ("//shop.example.com/admin", "https://shop.example.com"),
        ("", ""),
        ("https://", ""),
        (" https://shop.example.com ", "https://shop.example.com"),
        ("https://[::1", ""),
        ("https://shop.example.com:http/admin", ""),
        ("https://our shop.example.com/", ""),
        ("ftp://shop.example.com", ""),
        ("mailto:ann@shop.example.com", ""),
        ("https://ann:s3cret@shop.example.com", ""),
        ("n/a", ""),
        ("http://[::1]:8080/admin", "http://[::1]:8080"),
        ("http://localhost:8080/admin", "http://localhost:8080"),
        ("https://xn--grne-kiste-9db.example/", "https://xn--grne-kiste-9db.example"),
        ("https://grüne-kiste.example/", "https://grüne-kiste.example"),
    ],
)
def test_the_website_of_the_shop_has_scheme_and_host(url: str, website: str) -> None:
    assert account.website(url) == website


@pytest.mark.parametrize(
    ("api_url", "contacts"),
    [
        ("https://green.api-us1.com", "https://green.activehosted.com/app/contacts/"),
        ("https://green.api-eu2.com/api/3", "https://green.activehosted.com/app/contacts/"),
        ("https://crm.example.com", "https://crm.example.com/app/contacts/"),
    ],
)
def test_the_page_of_a_contact_is_on_the_host_for_people(api_url: str, contacts: str) -> None:
    assert account.contact_url(api_url) == contacts


@pytest.mark.parametrize(
    "spelling",
    [
        "https://crm.example.com",
        "https://CRM.Example.com/",
        "https://crm.example.com:443/api/3",
    ],
)
def test_all_spellings_of_a_host_are_one_account(spelling: str) -> None:
    settings = ActiveCampaignSettings(api_url=spelling, api_token="t", event_actid="7", event_key="k")
    assert account.account_name(settings) == "crm.example.com 7"
    assert account.contact_url(spelling) == "https://crm.example.com/app/contacts/"
    assert base_url(spelling) == "https://crm.example.com/api/3"


def test_another_port_is_another_account() -> None:
    settings = ActiveCampaignSettings(
        api_url="https://crm.example.com:8443", api_token="t", event_actid="7", event_key="k"
    )
    assert account.account_name(settings) == "crm.example.com:8443 7"
