"""Turns option rows into click options, and what was typed into settings that remember their origin."""

import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from stoker.core.errors import UsageError
from stoker.core.files import redact_arguments
from stoker.core.options import Option, Setting, resolve
from stoker.core.plan import Job

Function = TypeVar("Function", bound=Callable[..., Any])
CONFIG_BYTES_MAX = 1 << 20
_TOML_KEY = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=")


def with_rows(rows: Sequence[Option], *, config: bool = True) -> Callable[[Function], Function]:
    """Return a decorator that adds an option a row, and `--config FILE` for values from a TOML file."""

    def decorate(function: Function) -> Function:
        if config:
            help_text = "TOML file with values for these options; flags and environment win over it."
            function = click.option("--config", metavar="FILE", help=help_text)(function)
        for row in reversed(rows):
            function = _click_option(row)(function)
        return function

    return decorate


def _click_option(row: Option) -> Callable[[Function], Function]:
    default = "" if row.default is None or row.kind == "flag" else f"  [default: {row.default}]"
    if row.kind == "flag":
        spelling = f"{row.flag}/--no-{row.flag[2:]}" if row.default else row.flag
        return click.option(spelling, row.name, default=None, is_flag=True, help=row.help + default)
    metavar = row.metavar or ("|".join(row.choices) if row.choices else row.kind.upper())
    return click.option(row.flag, row.name, default=None, multiple=row.many, metavar=metavar, help=row.help + default)


def settings_from(rows: Sequence[Option], given: dict[str, Any], config: str | None) -> dict[str, Setting]:
    """Return every row's setting: flag > environment > file > default."""
    return resolve(rows, flags=given, file=read_config(Path(config)) if config else None)


def read_config(path: Path) -> dict[str, Any]:
    """Return the table in a TOML file. Raises UsageError for a missing, huge or malformed one."""
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise UsageError("configuration is too large", where=str(path), expected="at most 1 MiB")
        table = tomllib.loads(path.read_text())
    except OSError as error:
        what = "no such configuration file" if isinstance(error, FileNotFoundError) else "configuration cannot be read"
        raise UsageError(what, where=str(path), got=error.strerror or "") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "configuration is not TOML", where=str(path), expected="lines such as budget = '60s'", got=str(error)
        ) from error
    return {key.replace("-", "_"): value for key, value in table.items()}


def toml_places(path: Path) -> dict[str, str]:
    """Return where each key of a TOML file stands, `file.toml:3`. The file was read before, and is TOML."""
    lines = path.read_text().splitlines(keepends=True)
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        match = _TOML_KEY.match(line)
        if match is not None and match[1].replace("-", "_") not in found and _ends("".join(lines[:number])):
            found[match[1].replace("-", "_")] = f"{path}:{number + 1}"
    return found


def _ends(text: str) -> bool:
    """Tell whether a text is TOML by itself: then the line behind it begins a key, and stands in no string."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def job_from(verb: str, settings: dict[str, Setting]) -> Job:
    """Return the job that is kept in the result; the words of the command line and all texts are redacted."""
    shown = {name: Setting(_redacted(setting.value), setting.origin) for name, setting in settings.items()}
    return Job(verb=verb, arguments=tuple(redact_arguments(sys.argv[1:])), settings=shown)


def _redacted(value: Any) -> Any:
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return redact_arguments([value])[0] if isinstance(value, str) else value
