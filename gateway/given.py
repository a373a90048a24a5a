"""Given: settings as they were written, in a TOML file and in the environment, before anybody looks at their values."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gateway.core.errors import ConfigError

PREFIX = "NATSGATE_"
_IGNORED = re.compile(r"(PORT|SERVICE_|TOKEN$)")
"""Kubernetes puts NATSGATE_PORT, NATSGATE_PORT_80_TCP, NATSGATE_SERVICE_HOST… into every pod beside a Service
called natsgate. They are none of ours. NATSGATE_TOKEN is what `natsgate tail` shows to a gateway."""


def from_file(path: Path, fields: Collection[str], wrong: list[str]) -> dict[str, Any]:
    """The settings of a TOML file, by name.

    Args:
        path: the file.
        fields: the names that there are.
        wrong: gets a line for each name that there is not.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # TOML, UTF-8, or a number of thousands of digits
        raise ConfigError(f"{path}: is no valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is no valid TOML: its values are nested too deep") from None
    unknown = [key for key in content if key not in fields]
    wrong += [f"{path}: {key}: there is no such setting{meant(key, fields)}" for key in unknown]
    return {key: value for key, value in content.items() if key not in unknown}


def from_environment(
    environ: Mapping[str, str], fields: Collection[str], wrong: list[str]
) -> dict[str, tuple[str, str]]:
    """The settings of an environment, by name: the value, and the variable that gave it, or named its file.

    Args:
        environ: the environment.
        fields: the names that there are.
        wrong: gets a line for each variable that cannot be taken.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or _IGNORED.match(name, len(PREFIX)):
            continue
        key = name.removeprefix(PREFIX).lower()
        from_file = key.endswith("_file") and key not in fields
        if from_file:
            key = key.removesuffix("_file")
        if key not in fields or key == "route" or name != name.upper():
            wrong.append(f"{name}: there is no such setting{meant(key, fields, PREFIX)}")
        elif key in found:
            wrong.append(f"{found[key][1]} and {name} are both set; give one of them")
        else:
            try:
                found[key] = (_secret(name, value) if from_file else value, name)
            except ConfigError as error:
                wrong += error.problems
    return found


def _secret(name: str, path: str) -> str:
    try:
        value = Path(path).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{name}: the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: the file {path} is not UTF-8") from None
    if not value.strip():
        raise ConfigError(f"{name}: the file {path} is empty; put the value into it, or leave {name} out")
    return value


def meant(key: str, fields: Collection[str], prefix: str = "") -> str:
    """The name that a misspelt one is closest to, as a question to go behind a complaint; empty: none is close.

    Args:
        key: the misspelt one, with or without the `NATSGATE_` of variables.
        fields: the names that there are.
        prefix: what the right one is to be shown with, then in capitals.
    """
    close = difflib.get_close_matches(key.lower().removeprefix(PREFIX.lower()), fields, n=1)
    return f"; did you mean {prefix}{close[0].upper() if prefix else close[0]}?" if close else ""
