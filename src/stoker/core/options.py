"""Options as rows: one row gives the parser, the help, the checks, the documentation and the origin of a value.

Precedence is one rule everywhere: flag > environment > file > preset > default; `Setting.origin` remembers
which one won.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stoker.core.errors import UsageError
from stoker.core.registry import nearest
from stoker.core.units import parse_bytes, parse_seconds

ENVIRONMENT_PREFIX = "STOKER_"


class Candidate(msgspec.Struct, frozen=True):
    """A value as somebody gave it, unconverted, its origin, and the place: a flag, a variable, `file.toml:3`."""

    value: Any
    origin: str
    where: str = ""


class Setting(msgspec.Struct, frozen=True):
    """A value and where it came from: `default`, `preset`, `file`, `env`, `flag`."""

    value: Any
    origin: str = "default"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `kind` is one of text, int, float, bytes, seconds, flag, path. Sizes and durations are kept in bytes and
    seconds. `low` and `high` are inclusive bounds in the same unit. `many` collects repeated values into a list.
    `spellings` are what else the command line takes for it, `-np` or `--param`. `environment` is its variable where
    that has another name than ours; empty: there is none.
    """

    name: str
    kind: str
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    many: bool = False
    metavar: str = ""
    spellings: tuple[str, ...] = ()
    environment: str | None = None

    @property
    def flag(self) -> str:
        """Return the long command-line spelling, `--read-threads`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Return the environment variable, `STOKER_READ_THREADS`; empty where there is none."""
        return ENVIRONMENT_PREFIX + self.name.upper() if self.environment is None else self.environment

    def convert(self, raw: Any) -> Any:
        """Return `raw` (text or an already typed value) as this option's type, checked.

        Raises UsageError naming the option, the rule and the value got.
        """
        if self.many:
            items = raw if isinstance(raw, (list, tuple)) else [raw]
            return [self._convert_one(item) for item in items]
        return self._convert_one(raw)

    def _convert_one(self, raw: Any) -> Any:
        try:
            value = _CONVERTERS[self.kind](raw)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.flag}: {error}", got=repr(raw)) from error
        if self.choices and value not in self.choices:
            close = nearest(str(value), list(self.choices))
            hint = f"did you mean {close!r}? " if close else ""
            raise UsageError(
                f"{self.flag}: unknown value", where=str(value), remedy=hint + "known: " + ", ".join(self.choices)
            )
        below = self.low is not None and value < self.low
        above = self.high is not None and value > self.high
        if below or above:
            bound = f"at least {self.low:g}" if below else f"at most {self.high:g}"
            raise UsageError(f"{self.flag}: out of range", expected=bound, got=str(value))
        return value


def _to_int(raw: Any) -> int:
    if isinstance(raw, bool) or (isinstance(raw, float) and not raw.is_integer()):
        raise ValueError("a whole number is needed")
    try:
        return int(raw)
    except ValueError:
        raise ValueError("a whole number is needed") from None


def _to_flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if str(raw).lower() not in words:
        raise ValueError("true or false is needed")
    return words[str(raw).lower()]


def _to_float(raw: Any) -> float:
    try:
        value = float(raw)
    except ValueError:
        raise ValueError("a number is needed") from None
    if not math.isfinite(value):
        raise ValueError("a finite number is needed")
    return value


_CONVERTERS: Mapping[str, Any] = {
    "text": str,
    "path": str,
    "int": _to_int,
    "float": _to_float,
    "flag": _to_flag,
    "bytes": lambda raw: raw if isinstance(raw, int) and not isinstance(raw, bool) else parse_bytes(str(raw)),
    "seconds": lambda raw: float(raw) if isinstance(raw, (int, float)) else parse_seconds(str(raw)),
}


def resolve(
    options: Sequence[Option],
    *,
    flags: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    preset: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Setting]:
    """Return every option's winning value with its origin. A flag that is None was not given.

    Raises UsageError for a bad value or for a key in `file` that no option has.
    """
    found = candidates(options, flags=flags, file=file, preset=preset, environment=environment)
    return {option.name: settled(option, found[option.name]) for option in options}


def candidates(
    options: Sequence[Option],
    *,
    flags: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    preset: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
) -> dict[str, tuple[Candidate, ...]]:
    """Return for every option all values that were given for it, the winner first, the default last.

    `places` tells where in the file a key stands. Raises UsageError for a key in `file` that no option has.
    """
    environment = os.environ if environment is None else environment
    refuse_unknown(file or {}, [option.name for option in options])
    found = {}
    for option in options:
        name, variable = option.name, option.variable
        layers = (
            Candidate(flags.get(name), "flag", option.flag),
            Candidate(environment.get(variable) if variable else None, "env", variable),
            Candidate((file or {}).get(name), "file", (places or {}).get(name, "")),
            Candidate((preset or {}).get(name), "preset"),
        )
        given = (each for each in layers if each.value is not None and each.value != ())
        found[name] = (*given, Candidate(option.default, "default"))
    return found


def settled(option: Option, found: Sequence[Candidate]) -> Setting:
    """Return the winner of an option's candidates, converted. Raises UsageError when its value is bad."""
    winner = found[0]
    return Setting(winner.value if winner.origin == "default" else option.convert(winner.value), winner.origin)


def refuse_unknown(given: Iterable[str], known: Sequence[str]) -> None:
    """Raise UsageError, naming the nearest neighbour, for the first key of `given` that is not `known`."""
    for key in given:
        if key not in known:
            close = nearest(key, list(known))
            raise UsageError(
                "unknown key", where=key, remedy=f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
            )
