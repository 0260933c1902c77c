"""The table of keys: defaults, meanings, what is expected."""

from __future__ import annotations

import tomllib

import msgspec

from kiva_stream.settings.keys import KEYS

DOCUMENTED_DEFAULTS = """
[source]
schema = "kiva"
delay_s = 600
poll_interval_s = 60
horizon = true
gap_reread_s = 3600
skip_domains = []
page_rows = 1000
range_rows = 10000
range_bytes = 16777216
range_max_s = 5
max_connections = 3
statement_timeout_s = 30
max_rows_per_s = 0
horizon_alarm_s = 1200
updated_overlap_s = 3600
full_sweep_s = 86400
customer_settle_s = 60
customer_cache_rows = 50000
[state]
schema = "kiva_stream"
ledger_keep_days = 400
dead_letter_sample = 100
commit_interval_ms = 20
lease_s = 30
parked_max_entries = 1000000
[activecampaign]
event_url = "https://trackcmp.net/event"
requests_per_second = 5
events_per_second = 60
events_per_second_min = 1
bulk_imports_per_minute = 100
max_in_flight = 200
lookup = true
lookup_settle_s = 30
request_timeout_s = 30
backoff_max_s = 60
resubscribe_max_age_s = 86400
import_min_contacts = 10
contacts_per_import = 250
import_poll_s = 2
realtime_max_age_s = 86400
import_failure_min = 25
breaker_failures = 5
retry_refused_s = 300
retry_held_s = 300
orders_per_batch = 50
order_settle_s = 10
list_sender_url = ""
list_sender_reminder = ""
connection_link_url = ""
connection_logo_url = ""
field_customer_id = "Kiva Customer ID"
field_status = "Kiva Status"
field_box_type = "Kiva Box Type"
field_next_delivery = "Kiva Next Delivery"
field_cancel_date = "Kiva Cancel Date"
field_birthday = "Kiva Birthday"
[pipeline]
window = 20000
queue_chunks = 4
drain_timeout_s = 60
duplicate_window_s = 2
[verify]
sample = 200
[log]
level = "info"
format = "auto"
mask_emails = true
"""


def test_the_defaults_are_the_documented_ones() -> None:
    defaults = {(key.section, key.name): key.default for key in KEYS if not key.required}
    documented = {
        (section, name): tuple(value) if isinstance(value, list) else value
        for section, table in tomllib.loads(DOCUMENTED_DEFAULTS).items()
        for name, value in table.items()
    }
    assert defaults == documented


def test_every_default_is_of_its_own_type_and_range() -> None:
    for key in KEYS:
        if not key.required:
            assert msgspec.convert(key.default, key.hint) == key.default


def test_every_key_says_what_it_is_for_and_what_is_expected() -> None:
    assert all(key.meaning and key.expected for key in KEYS)
