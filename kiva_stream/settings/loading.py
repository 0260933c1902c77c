"""Loading: from a TOML file and the environment into the sections."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import msgspec

from kiva_stream.errors import SettingsError
from kiva_stream.settings.sections import _BY_NAME, _FILE_KEYS, KEYS, PREFIX, Key, Settings, _hints

CONFIG_VARIABLE = "KIVA_STREAM_CONFIG"
CONFIG_PLACES = (Path("kiva_stream.toml"), Path("/etc/kiva_stream/kiva_stream.toml"))


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings from a TOML file and the environment, which wins.

    `path` is the file asked for (`--config`); without one it is searched as the README says, and there need
    be none. Raises SettingsError, which names each key that is missing, unknown, or of a wrong type or range.
    """
    place = find(path, environ)
    given = (_from_toml(place) if place else {}) | _from_environ(environ)
    missing = [str(key) for key in KEYS if key.required and str(key) not in given]
    if missing:
        raise SettingsError(_missing_words(missing, place))
    sections: dict[str, dict[str, Any]] = {section: {} for section, _ in _hints(Settings)}
    for name, value in given.items():
        sections[_BY_NAME[name].section][_BY_NAME[name].name] = value
    return Settings(**{name: hint(**sections[name]) for name, hint in _hints(Settings)})


def find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file: the one asked for, else the first there is. Raises SettingsError."""
    asked = path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if asked is None:
        return next((place for place in CONFIG_PLACES if place.is_file()), None)
    if not asked.is_file():
        raise SettingsError(f"There is no settings file {asked}: `kiva-stream init` writes one.")
    return asked


def _from_toml(place: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(place.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{place} is not TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"{place} cannot be read: {error.strerror}.") from None
    given: dict[str, Any] = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{section} stands outside the sections in {place}{_did_you_mean(section)}.")
        given |= {f"{section}.{name}": value for name, value in table.items()}
    return _checked(given, str(place), strict=True)


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {
        name.removeprefix(PREFIX).lower().replace("__", "."): value
        for name, value in environ.items()
        if name.startswith(PREFIX)
    }
    return _checked(given, "the environment", strict=False)


def _checked(given: dict[str, Any], origin: str, *, strict: bool) -> dict[str, Any]:
    """Return the values of one origin by key, each of its type and in its range, secrets read from files."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        key = _BY_NAME.get(name) or _FILE_KEYS.get(name)
        if key is None:
            raise SettingsError(f"Unknown key {name} in {origin}{_did_you_mean(name)}.")
        if key.required and value == "":  # as `init` leaves it: missing
            continue
        if str(key) in values:
            raise SettingsError(f"Give either {key} or {key}_file in {origin}, not both.")
        text = _secret_of(value, name) if name in _FILE_KEYS else value
        values[str(key)] = _converted(key, text, origin, strict=strict)
    return values


def _secret_of(file: object, name: str) -> str:
    try:
        return Path(str(file)).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: {file} cannot be read: {error}.") from None


def _converted(key: Key, value: object, origin: str, *, strict: bool) -> object:
    if isinstance(value, str) and get_origin(get_args(key.hint)[0]) is tuple and not strict:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return cast("object", msgspec.convert(value, key.hint, strict=strict))
    except msgspec.ValidationError:
        got = "" if key.secret else f", not {value!r}"
        raise SettingsError(f"{key} is to be {key.expected}{got} (in {origin}).") from None


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, [*_BY_NAME, *_FILE_KEYS], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _missing_words(missing: list[str], place: Path | None) -> str:
    where = f"in {place}" if place else "in kiva_stream.toml, which `kiva-stream init` writes,"
    variable = _BY_NAME[missing[0]].variable
    return f"Missing settings: {', '.join(missing)}: set them {where} or in the environment ({variable}=…)."
