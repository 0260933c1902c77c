"""Loading: from a TOML file and the environment into the sections."""

from __future__ import annotations

import difflib
import stat
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import msgspec

from kiva_stream.errors import SettingsError
from kiva_stream.settings.keys import FILE_KEYS, KEYS, KEYS_BY_NAME, VARIABLE_PREFIX, Key
from kiva_stream.settings.sections import Settings
from kiva_stream.settings.value_types import hints

CONFIG_VARIABLE = "KIVA_STREAM_CONFIG"
# Around a value: what a copy of it or an editor adds, a byte order mark among it.
BLANKS = f"{string.whitespace}\u0085\u00a0\u200b\u2028\u2029\u2060\ufeff"
CONFIG_FILES = (Path("kiva_stream.toml"), Path("/etc/kiva_stream/kiva_stream.toml"))


def load(asked: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings from a TOML file and the environment, which wins.

    `asked` is the file of `--config`; without one it is searched as docs/settings.md says, and there need
    be none. Raises SettingsError, which names each key that is missing, unknown, or of a wrong type or range.
    """
    path = find(asked, environ)
    given = (_from_toml(path) if path else {}) | _from_environ(environ)
    missing = [str(key) for key in KEYS if key.required and str(key) not in given]
    if missing:
        raise SettingsError(_missing_words(missing, path))
    return Settings(**{section: struct(**_values(section, given)) for section, struct in hints(Settings)})


def _values(section: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {key.name: given[str(key)] for key in KEYS if key.section == section and str(key) in given}


def find(asked: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file: the one asked for, else the first there is. Raises SettingsError."""
    path = asked or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if path is None:
        return next((each for each in CONFIG_FILES if _is_there(each)), None)
    if not _is_there(path):
        raise SettingsError(f"There is no settings file {path}: `kiva-stream init` writes one.")
    return path


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        # Reading it raises the sentence; the current folder may be another user's, without settings of ours.
        return path.is_absolute()
    except OSError:
        return False


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text("utf-8-sig"))  # without the byte order mark of an editor
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    given: dict[str, Any] = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{section} stands outside the sections in {path}{_did_you_mean(section)}.")
        given |= {f"{section}.{name}": value for name, value in table.items()}
    return _checked(given, str(path), strict=True)


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {
        name.removeprefix(VARIABLE_PREFIX).lower().replace("__", "."): value
        for name, value in environ.items()
        if name.startswith(VARIABLE_PREFIX)
    }
    return _checked(given, "the environment", strict=False)


def _checked(given: dict[str, Any], origin: str, *, strict: bool) -> dict[str, Any]:
    """Return the values of one origin by key, each of its type and in its range, secrets read from files."""
    values: dict[str, Any] = {}
    for name, raw in given.items():
        value = raw.strip(BLANKS) if isinstance(raw, str) else raw
        key = KEYS_BY_NAME.get(name) or FILE_KEYS.get(name)
        if key is None:
            raise SettingsError(f"Unknown key {name} in {origin}{_did_you_mean(name)}.")
        if key.required and value == "":  # as `init` leaves it: missing
            continue
        if str(key) in values:
            raise SettingsError(f"Give either {key} or {key}_file in {origin}, not both.")
        text = _secret_of(value, name) if name in FILE_KEYS else value
        values[str(key)] = _converted(key, text, origin, strict=strict)
    return values


def _secret_of(file: object, name: str) -> str:
    try:
        return Path(str(file)).read_text("utf-8").strip(BLANKS)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: {file} cannot be read: {error}.") from None


def _converted(key: Key, value: object, origin: str, *, strict: bool) -> object:
    if isinstance(value, str) and get_origin(get_args(key.hint)[0]) is tuple and not strict:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return cast("object", msgspec.convert(value, key.hint, strict=strict))
    except msgspec.ValidationError:
        # A URL that is refused for the user in it may have a password as well.
        got = "" if key.secret or "@" in str(value) else f", not {value!r}"
        raise SettingsError(f"{key} is to be {key.expected}{got} (in {origin}).") from None


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, [*KEYS_BY_NAME, *FILE_KEYS], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _missing_words(missing: list[str], path: Path | None) -> str:
    where = f"in {path}" if path else "in kiva_stream.toml, which `kiva-stream init` writes,"
    variable = KEYS_BY_NAME[missing[0]].variable
    return f"Missing settings: {', '.join(missing)}: set them {where} or in the environment ({variable}=…)."
