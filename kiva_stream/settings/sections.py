"""The settings: six sections as frozen Structs, read once and passed by hand.

The Structs are the one table of all keys: a field's annotation holds its type, range and meaning, its name
ends in its unit (`_s` seconds, `_ms` milliseconds, `_bytes` bytes, `_days` days; the rest are counts or
text). `keys.py` makes rows of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kiva_stream.settings.dsn import passwords
from kiva_stream.settings.value_types import (
    Count,
    Dsn,
    Identifier,
    Seconds,
    SecretText,
    Text,
    Timeout,
    Url,
    Word,
    doc,
    hints,
    is_secret,
)


class Section(msgspec.Struct, frozen=True):
    """A section of the settings; its repr hides the secrets."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if is_secret(hint) else repr(getattr(self, name))}"
            for name, hint in hints(type(self))
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class SourceSettings(Section, frozen=True, kw_only=True):
    """The shop's database, which is only ever read."""

    dsn: Annotated[Dsn, doc("the shop's database; a role with SELECT is enough")]
    site_id: Annotated[Count, doc("the site whose log is carried: an id of the table sites")]
    schema: Annotated[Identifier, doc("where the shop's tables or views are")] = "kiva"
    delay_s: Annotated[Seconds, doc("only entries at least this old are read")] = 600
    poll_interval_s: Annotated[Timeout, doc("how often `follow` looks for new entries")] = 60
    horizon: Annotated[
        bool, doc("false: the log is read by id, for one whose txids mean nothing; `rewind` changes it")
    ] = True
    gap_reread_s: Annotated[
        Timeout, doc("without a horizon: how long an id that was not there is looked for again")
    ] = 3600
    skip_domains: Annotated[
        tuple[str, ...], doc("customers with an address at these domains are test accounts")
    ] = ()
    page_rows: Annotated[Count, doc("log rows fetched at a time, and passed on as one chunk")] = 1000
    range_rows: Annotated[Count, doc("most log rows read in one transaction")] = 10_000
    range_bytes: Annotated[
        Count, doc("a transaction on the log ends with the page that reaches this size")
    ] = 16_777_216
    range_max_s: Annotated[
        Timeout, doc("a transaction on the log ends with the page that reaches this age")
    ] = 5
    max_connections: Annotated[Count, doc("most connections to the shop's database")] = 3
    statement_timeout_s: Annotated[Timeout, doc("longest statement on the shop's database")] = 30
    max_rows_per_s: Annotated[
        int, Meta(ge=0), doc("most log rows read in a second, on average; 0 = as fast as it goes")
    ] = 0
    horizon_alarm_s: Annotated[
        Timeout, doc("`follow` warns when an open transaction holds the log up for this long")
    ] = 1200
    updated_overlap_s: Annotated[
        Seconds, doc("`follow` looks again at what the shop changed up to this long before its last look")
    ] = 3600
    full_sweep_s: Annotated[
        Timeout, doc("how often `follow` compares every customer and order, changed or not")
    ] = 86_400
    customer_settle_s: Annotated[
        Seconds, doc("a customer who is not found is looked for until the entry is this old")
    ] = 60
    customer_cache_rows: Annotated[Count, doc("customers, and contacts of customers, kept in memory")] = (
        50_000
    )


class StateSettings(Section, frozen=True, kw_only=True):
    """Where kiva_stream keeps its checkpoint, ledger, contact links and dead letters."""

    dsn: Annotated[
        Dsn, doc("the state database; the shop's server will do, with a role that may create schemas")
    ]
    schema: Annotated[Identifier, doc("kiva_stream's own schema there")] = "kiva_stream"
    ledger_keep_days: Annotated[Count, doc("how long delivered events are remembered")] = 400
    commit_interval_ms: Annotated[
        Count, doc("outcomes of this long share a commit, or until half of max_in_flight wait for it")
    ] = 20
    lease_s: Annotated[
        Timeout, doc("a process that does not renew its hold on the site for this long loses it to another")
    ] = 30
    parked_max_entries: Annotated[
        Count, doc("most entries kept in the state while their contact waits; then reading pauses")
    ] = 1_000_000
    dead_letter_sample: Annotated[Count, doc("most dead letters that a list shows unless told")] = 100


class PipelineSettings(Section, frozen=True, kw_only=True):
    """Bounds of the pipeline."""

    window: Annotated[Count, doc("most entries between the watermark and the newest read")] = 20_000
    queue_chunks: Annotated[Count, doc("most chunks waiting between two stages")] = 4
    drain_timeout_s: Annotated[Timeout, doc("longest wait for what is in flight at a stop")] = 60
    duplicate_window_s: Annotated[
        Seconds, doc("the same entry of a customer within this time is a duplicate")
    ] = 2


class ActiveCampaignSettings(Section, frozen=True, kw_only=True):
    """The ActiveCampaign account, and how much of it may be used."""

    api_url: Annotated[Url, doc("as the account's Developer page shows it; /api/3 is added")]
    api_token: Annotated[SecretText, doc("the key of the account's Developer page")]
    event_actid: Annotated[Word, doc("the actid of the account's Event Tracking page")]
    event_key: Annotated[SecretText, doc("the key of the account's Event Tracking page")]
    event_url: Annotated[Url, doc("where events are posted")] = "https://trackcmp.net/event"
    requests_per_second: Annotated[
        Count, doc("REST and GraphQL together, per account; lower it to leave some to others")
    ] = 5
    events_per_second: Annotated[
        int,
        Meta(ge=0),
        doc("no published limit; lowered for a while when throttled; 0 = as fast as it goes"),
    ] = 60
    events_per_second_min: Annotated[Count, doc("the lowest that throttling makes of it")] = 1
    bulk_imports_per_minute: Annotated[
        Count, doc("bulk imports, a fifth of them of one contact; ActiveCampaign allows 100, and 20")
    ] = 100
    max_in_flight: Annotated[Count, doc("most events sent and not yet committed")] = 200
    lookup: Annotated[
        bool, doc("look an event up whose answer was lost before it is sent again; else it is sent once more")
    ] = True
    lookup_settle_s: Annotated[
        Seconds, doc("an event that arrived is shown in its contact's tracking log by then")
    ] = 30
    request_timeout_s: Annotated[Timeout, doc("longest wait for an answer")] = 30
    backoff_max_s: Annotated[
        Timeout, doc("longest wait between two attempts, unless ActiveCampaign asks for a longer one")
    ] = 60
    breaker_failures: Annotated[
        Count, doc("so many requests in a row unanswered: then all wait, and one at a time tries again")
    ] = 5
    retry_refused_s: Annotated[
        Timeout, doc("how often `follow` tries again when the key, the account or a kind of call is refused")
    ] = 300
    retry_held_s: Annotated[
        Timeout,
        doc("when a held record is tried again; later tries wait twice as long each, at most a day"),
    ] = 300
    resubscribe_max_age_s: Annotated[
        Seconds, doc("a re-subscription is carried only while its entry is younger than this")
    ] = 86_400
    import_min_contacts: Annotated[
        Count, doc("from so many changed contacts at once they are imported, fewer are sent one by one")
    ] = 10
    contacts_per_import: Annotated[int, Meta(ge=1, le=250), doc("contacts of one bulk import")] = 250
    import_poll_s: Annotated[Timeout, doc("how often a running import is asked for")] = 2
    realtime_max_age_s: Annotated[
        Seconds, doc("a contact that only older entries wait for is imported without starting automations")
    ] = 86_400
    import_failure_min: Annotated[
        Count,
        doc("most contacts of one refusal's text sent by themselves though imports refuse them"),
    ] = 25
    orders_per_batch: Annotated[
        int,
        Meta(ge=1, le=200),
        doc("orders of one request at first; doubled up to 200 while accepted, halved when too large"),
    ] = 50
    order_settle_s: Annotated[
        Seconds, doc("an order is sent again no sooner than this after it was accepted")
    ] = 10
    list_sender_url: Annotated[
        str, doc("the sender's website on the list; empty: the host of the site's admin_base_url")
    ] = ""
    list_sender_reminder: Annotated[
        str, doc("why people are on the list; empty: You are a customer of <site name>.")
    ] = ""
    connection_link_url: Annotated[
        str, doc("the shop's page on the connection; empty: the host of the site's admin_base_url")
    ] = ""
    connection_logo_url: Annotated[
        str, doc("the logo on the connection; empty: favicon.ico of the host of the site's admin_base_url")
    ] = ""
    field_customer_id: Annotated[Text, doc("title of the field with the customer's id")] = "Kiva Customer ID"
    field_status: Annotated[Text, doc("title of the field with the status")] = "Kiva Status"
    field_box_type: Annotated[Text, doc("title of the field with the box type")] = "Kiva Box Type"
    field_next_delivery: Annotated[Text, doc("title of the date field with the next delivery")] = (
        "Kiva Next Delivery"
    )
    field_cancel_date: Annotated[Text, doc("title of the date field with the cancel date")] = (
        "Kiva Cancel Date"
    )
    field_birthday: Annotated[Text, doc("title of the date field with the birthday")] = "Kiva Birthday"


class VerifySettings(Section, frozen=True, kw_only=True):
    """What `verify` looks at."""

    sample: Annotated[Count, doc("contacts that `verify` draws, unless it is told how many")] = 200


class LogSettings(Section, frozen=True, kw_only=True):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], doc("the least that is logged")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], doc("auto: console on a terminal, JSON lines elsewhere")
    ] = "auto"
    mask_emails: Annotated[bool, doc("show a***@example.com for addresses in logs")] = True


class Settings(Section, frozen=True, kw_only=True):
    """All settings."""

    source: SourceSettings
    state: StateSettings
    activecampaign: ActiveCampaignSettings
    pipeline: PipelineSettings = PipelineSettings()
    verify: VerifySettings = VerifySettings()
    log: LogSettings = LogSettings()

    def secrets(self) -> list[str]:
        """Return the values that must never show; of a DSN that is its password."""
        values = [
            getattr(getattr(self, section), name)
            for section, struct in hints(Settings)
            for name, hint in hints(struct)
            if is_secret(hint)
        ]
        return [part for value in values for part in (passwords(value) if "://" in value else [value])]
