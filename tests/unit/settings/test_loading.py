"""Loading: from which file, from the environment, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from kiva_stream.errors import SettingsError
from kiva_stream.settings import loading
from kiva_stream.settings.keys import KEYS, Key
from kiva_stream.settings.loading import load
from tests.unit.settings.environment import REQUIRED, TOKEN, refusal, write


def test_the_environment_alone_is_enough() -> None:
    loaded = load(None, REQUIRED)
    assert loaded.source.site_id == 1
    assert loaded.activecampaign.api_token == TOKEN


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
def test_a_secret_can_come_from_a_file(nowhere: Path, key: Key) -> None:
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


ODD_ENDS = ["\n", "\r\n", " ", "\t", "\ufeff", "\u00a0", "\u200b", "\u2028"]


@pytest.mark.parametrize("odd", ODD_ENDS)
@pytest.mark.parametrize("key", [key for key in KEYS if key.required and "site_id" not in str(key)], ids=str)
def test_a_line_break_or_a_byte_order_mark_around_a_value_is_no_part_of_it(
    nowhere: Path, key: Key, odd: str
) -> None:
    expected = load(None, REQUIRED)
    value = f"{odd}{REQUIRED[key.variable]}{odd}{odd}"
    assert load(None, REQUIRED | {key.variable: value}) == expected
    environ = {name: text for name, text in REQUIRED.items() if name != key.variable}
    in_toml = msgspec.json.encode(value).decode()
    path = write(nowhere / "a.toml", f"[{key.section}]\n{key.name} = {in_toml}\n")
    assert load(path, environ) == expected
    if key.secret:
        credential = write(nowhere / "credential", value)
        assert load(None, environ | {f"{key.variable}_FILE": str(credential)}) == expected


@pytest.mark.parametrize("inside", ["\n", "\r\n", " ", "\ufeff", "é"])
@pytest.mark.parametrize("name", ["API_TOKEN", "EVENT_KEY", "EVENT_ACTID"])
def test_a_key_with_a_line_break_or_a_byte_order_mark_in_it_is_refused_and_not_shown(
    name: str, inside: str
) -> None:
    text = refusal(REQUIRED | {f"KIVA_STREAM__ACTIVECAMPAIGN__{name}": f"Qx7{inside}Zw9"})
    words = f"activecampaign.{name.lower()} is to be a text of visible ASCII characters, without blanks"
    assert text.startswith(words)
    assert ("Zw9" in text) == (name == "EVENT_ACTID")  # the actid is no secret


def test_a_byte_order_mark_before_the_settings_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "kiva.toml"
    path.write_text("[source]\npage_rows = 7\n", "utf-8-sig")
    assert load(path, REQUIRED).source.page_rows == 7


def test_a_folder_that_cannot_be_entered_has_no_settings_unless_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    monkeypatch.setattr(loading, "CONFIG_FILES", (Path("kiva_stream.toml"),))
    assert load(None, REQUIRED).source.site_id == 1
    with pytest.raises(SettingsError, match=r"kiva\.toml cannot be read: Permission denied"):
        load(tmp_path / "kiva.toml", REQUIRED)


@pytest.mark.parametrize(
    "url",
    [
        "http://account.api-us1.com",
        "http://localhost:8080",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@account.api-us1.com",
        "https://ann:planted-4712@account.api-us1.com",
        "https://planted-4712@account.api-us1.com/api/3",
        "https://account.api-us1.com:planted",
        "https://account.api-us1.com:65536",
        "https://account.api-us1.com?key=1",
        "https://",
        "account.api-us1.com",
    ],
)
@pytest.mark.parametrize("name", ["API_URL", "EVENT_URL"])
def test_a_url_that_would_show_a_key_or_a_password_on_the_way_is_refused(name: str, url: str) -> None:
    words = refusal(REQUIRED | {f"KIVA_STREAM__ACTIVECAMPAIGN__{name}": url})
    assert f"activecampaign.{name.lower()} is to be a URL that starts with https://" in words
    assert "planted-4712" not in words


@pytest.mark.parametrize(
    "url",
    [
        "https://account.api-us1.com/api/3/",
        "https://Account.api-us1.com:65535",
        "https://[2001:db8::1]:443",
        "http://127.0.0.1:8080",
        "http://127.255.0.9",
        "http://[::1]:80/api/3",
    ],
)
def test_a_url_by_https_or_to_this_machine_is_accepted(url: str) -> None:
    loaded = load(None, REQUIRED | {"KIVA_STREAM__ACTIVECAMPAIGN__API_URL": url})
    assert loaded.activecampaign.api_url == url
