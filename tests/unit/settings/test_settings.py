from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLCertVerificationError

import msgspec
import pytest

from kiva_stream.errors import SettingsError, SourceError
from kiva_stream.settings import documentation, loading, sections
from kiva_stream.settings.loading import load
from kiva_stream.settings.sections import KEYS, reading_dsn

TOKEN = "tok-4711-planted"
REQUIRED = {
    "KIVA_STREAM__SOURCE__DSN": f"postgresql://ro:{TOKEN}@db/shop",
    "KIVA_STREAM__SOURCE__SITE_ID": "1",
    "KIVA_STREAM__STATE__DSN": f"postgresql://rw:{TOKEN}@db/shop",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_URL": "https://account.api-us1.com",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN": TOKEN,
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_ACTID": "123456",
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY": TOKEN,
}
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
parked_max_entries = 10000
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
import_failure_share = 0.2
import_failure_min = 25
breaker_failures = 5
retry_refused_s = 300
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


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings file but those a test writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "CONFIG_PLACES", (Path("kiva_stream.toml"), tmp_path / "etc.toml"))
    return tmp_path


def refusal(environ: Mapping[str, str], path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def filled_example() -> str:
    """The file `init` writes, filled in as its reader would, every default uncommented."""
    section, lines = "", []
    for line in documentation.example().splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        name, _, value = line.removeprefix("# ").partition(" = ")
        key = next((key for key in KEYS if str(key) == f"{section}.{name}"), None)
        if key is not None and key.required:
            value = REQUIRED[key.variable] if key.name == "site_id" else f'"{REQUIRED[key.variable]}"'
        lines.append(f"{name} = {value}" if key is not None else line)
    return "\n".join(lines)


def test_the_environment_alone_is_enough() -> None:
    loaded = load(None, REQUIRED)
    assert loaded.source.site_id == 1
    assert loaded.activecampaign.api_token == TOKEN


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
            msgspec.convert(key.default, key.hint)


def test_every_key_says_what_it_is_for_and_what_is_expected() -> None:
    assert all(key.meaning and key.expected for key in KEYS)


def test_the_example_file_filled_in_gives_the_defaults(nowhere: Path) -> None:
    path = write(nowhere / "filled.toml", filled_example())
    assert load(path, {}) == load(None, REQUIRED)


def test_the_example_file_as_written_misses_exactly_the_required_keys(nowhere: Path) -> None:
    text = refusal({}, write(nowhere / "bare.toml", documentation.example()))
    assert text.startswith(f"Missing settings: {', '.join(str(key) for key in KEYS if key.required)}:")


def test_missing_keys_are_named_together_with_where_to_set_them() -> None:
    environ = {name: value for name, value in REQUIRED.items() if not name.endswith("DSN")}
    text = refusal(environ)
    assert "Missing settings: source.dsn, state.dsn: " in text
    assert "KIVA_STREAM__SOURCE__DSN" in text
    assert "kiva-stream init" in text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SOURCE__PAGE_ROWS", "0", "source.page_rows is to be a whole number, at least 1, not '0'"),
        ("SOURCE__PAGE_ROWS", "many", "source.page_rows is to be a whole number, at least 1, not 'many'"),
        ("SOURCE__SCHEMA", 'kiva"; drop', "source.schema is to be a plain identifier"),
        ("STATE__SCHEMA", "Kiva", "state.schema is to be a plain identifier"),
        ("SOURCE__DSN", "mysql://db/shop", "source.dsn is to be postgresql://role@host/database"),
        (
            "ACTIVECAMPAIGN__CONTACTS_PER_IMPORT",
            "251",
            "a whole number, at least 1 and at most 250, not '251'",
        ),
        ("ACTIVECAMPAIGN__IMPORT_FAILURE_SHARE", "1.5", "a number, above 0 and at most 1, not '1.5'"),
        ("ACTIVECAMPAIGN__API_URL", "account", "activecampaign.api_url is to be a URL"),
        ("LOG__LEVEL", "loud", "log.level is to be one of debug, info, warning, error, not 'loud'"),
        ("LOG__MASK_EMAILS", "perhaps", "log.mask_emails is to be true or false, not 'perhaps'"),
    ],
)
def test_a_value_of_a_wrong_type_or_range_names_the_key_and_what_is_expected(
    name: str, value: str, words: str
) -> None:
    assert words in refusal(REQUIRED | {f"KIVA_STREAM__{name}": value})


def test_a_wrong_type_in_the_file_names_the_file_and_the_key(nowhere: Path) -> None:
    path = write(nowhere / "a.toml", '[source]\npage_rows = "1000"\n')
    text = refusal(REQUIRED, path)
    assert text == f"source.page_rows is to be a whole number, at least 1, not '1000' (in {path})."


def test_a_number_in_the_file_is_not_a_truth_value(nowhere: Path) -> None:
    assert "log.mask_emails is to be true or false, not 1" in refusal(
        REQUIRED, write(nowhere / "a.toml", "[log]\nmask_emails = 1\n")
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[source]\npage_row = 5\n", "Unknown key source.page_row in "),
        ("[sauce]\nspice = 5\n", "Unknown key sauce.spice in "),
        ("site_id = 5\n", "site_id stands outside the sections in "),
        ("[source\n", "is not TOML"),
    ],
)
def test_a_file_with_an_unknown_key_or_no_toml_is_refused(nowhere: Path, text: str, words: str) -> None:
    assert words in refusal(REQUIRED, write(nowhere / "a.toml", text))


def test_an_unknown_variable_is_refused() -> None:
    text = refusal(REQUIRED | {"KIVA_STREAM__SOURCE__SITE": "1"})
    assert text == "Unknown key source.site in the environment (did you mean source.site_id?)."


def test_the_environment_wins_over_the_file(nowhere: Path) -> None:
    path = write(nowhere / "a.toml", "[source]\npage_rows = 5\nrange_rows = 6\n")
    loaded = load(path, REQUIRED | {"KIVA_STREAM__SOURCE__PAGE_ROWS": "7"})
    assert (loaded.source.page_rows, loaded.source.range_rows) == (7, 6)


def test_the_file_asked_for_comes_before_the_variable_the_folder_and_etc(nowhere: Path) -> None:
    write(nowhere / "etc.toml", "[source]\npage_rows = 1\n")
    assert load(None, REQUIRED).source.page_rows == 1
    write(nowhere / "kiva_stream.toml", "[source]\npage_rows = 2\n")
    assert load(None, REQUIRED).source.page_rows == 2
    environ = REQUIRED | {"KIVA_STREAM_CONFIG": str(write(nowhere / "v.toml", "[source]\npage_rows = 3\n"))}
    assert load(None, environ).source.page_rows == 3
    assert load(write(nowhere / "c.toml", "[source]\npage_rows = 4\n"), environ).source.page_rows == 4


def test_a_file_asked_for_that_is_not_there_is_refused(nowhere: Path) -> None:
    assert "There is no settings file" in refusal(REQUIRED, nowhere / "gone.toml")
    assert "There is no settings file" in refusal(REQUIRED | {"KIVA_STREAM_CONFIG": "gone.toml"})


@pytest.mark.parametrize("key", [key for key in KEYS if key.secret], ids=str)
def test_a_secret_can_come_from_a_file(nowhere: Path, key: sections.Key) -> None:
    environ = {name: value for name, value in REQUIRED.items() if name != key.variable}
    credential = write(nowhere / "credential", f"{REQUIRED[key.variable]}\n")
    assert load(None, environ | {f"{key.variable}_FILE": str(credential)}) == load(None, REQUIRED)


def test_a_secret_given_twice_is_refused(nowhere: Path) -> None:
    environ = REQUIRED | {"KIVA_STREAM__SOURCE__DSN_FILE": str(write(nowhere / "dsn", TOKEN))}
    assert "Give either source.dsn or source.dsn_file in the environment, not both." in refusal(environ)


def test_a_secret_file_in_the_environment_wins_over_the_secret_in_the_file(nowhere: Path) -> None:
    path = write(nowhere / "a.toml", '[activecampaign]\napi_token = "old"\n')
    environ = {name: value for name, value in REQUIRED.items() if not name.endswith("API_TOKEN")}
    credential = write(nowhere / "credential", TOKEN)
    loaded = load(path, environ | {"KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN_FILE": str(credential)})
    assert loaded.activecampaign.api_token == TOKEN


def test_a_secret_file_that_cannot_be_read_is_named(nowhere: Path) -> None:
    environ = {name: value for name, value in REQUIRED.items() if not name.endswith("API_TOKEN")}
    text = refusal(environ | {"KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN_FILE": "gone"})
    assert text.startswith("activecampaign.api_token_file: gone cannot be read")


def test_lists_come_from_the_environment_with_commas() -> None:
    loaded = load(None, REQUIRED | {"KIVA_STREAM__SOURCE__SKIP_DOMAINS": "test.example, staff.example"})
    assert loaded.source.skip_domains == ("test.example", "staff.example")


def test_secrets_show_neither_in_a_repr_nor_in_an_error(nowhere: Path) -> None:
    loaded = load(None, REQUIRED)
    assert TOKEN not in f"{loaded!r} {loaded} {loaded.activecampaign!r} {loaded.source}"
    path = write(nowhere / "a.toml", f'[source]\ndsn = "{TOKEN}"\n')
    assert TOKEN not in refusal(REQUIRED, path)
    number = write(nowhere / "b.toml", "[activecampaign]\napi_token = 47110815\n")
    assert "47110815" not in refusal(REQUIRED, number)


def test_the_secrets_of_loaded_settings_are_the_tokens_and_the_passwords_of_the_dsns() -> None:
    dsn = "postgresql://rw:one%20pass@db/shop?password=other"
    loaded = load(None, REQUIRED | {"KIVA_STREAM__STATE__DSN": dsn})
    assert set(loaded.secrets()) == {TOKEN, "one%20pass", "one pass", "other"}


def test_a_dsn_whose_password_cannot_be_told_is_a_secret_as_a_whole() -> None:
    dsn = "postgresql://ro:s3cret[word@db/shop"
    assert dsn in load(None, REQUIRED | {"KIVA_STREAM__SOURCE__DSN": dsn}).secrets()


def test_a_certificate_that_is_refused_is_not_an_address_that_cannot_be_read() -> None:
    with pytest.raises(SSLCertVerificationError), reading_dsn("source.dsn", SourceError):
        raise SSLCertVerificationError("self-signed")


def test_settings_cannot_be_changed() -> None:
    loaded = load(None, REQUIRED)
    with pytest.raises(AttributeError):
        loaded.source.site_id = 2  # type: ignore[misc]


def test_the_readme_shows_the_table_of_settings() -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text("utf-8")
    assert (
        documentation.markdown() in readme
    )  # python -c "from kiva_stream import settings; print(settings.markdown())"
