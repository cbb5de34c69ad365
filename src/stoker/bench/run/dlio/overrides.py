"""The words of a DLIO command line: `workload=NAME`, `++workload.section.key=value`, `~key`, and Hydra's flags."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from stoker.bench.run.dlio.tree import Path
from stoker.bench.run.dlio.values import split_choices
from stoker.core.errors import UsageError
from stoker.core.files import REDACTED, is_secret_name, redact_url
from stoker.core.registry import nearest

GROUP: Final = "workload"
RUNS_MAX: Final = 4096

_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*(?:\.[A-Za-z0-9_$-]+)*")
_GROUP_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:/[A-Za-z0-9_-]+)+(?:@[A-Za-z0-9_.]*)?")
_VALUE_FLAGS: Final = {
    "--config-dir": "config_dir",
    "-cd": "config_dir",
    "--config-name": "config_name",
    "-cn": "config_name",
}
_FLAGS: Final = ("--multirun", "-m")
_ACTIONS: Final = {"": "set", "+": "add", "++": "force", "~": "delete"}


class Override(msgspec.Struct, frozen=True):
    """One word. `action` is set (the key must exist), add (it must not), force (either), delete, or choose (a file of
    the group `path`). `value` is unparsed; `valued` tells that there was a `=`."""

    action: str
    path: Path
    value: str
    valued: bool
    word: str

    @property
    def safe_word(self) -> str:
        """Return the word as it may be shown and stored: without secrets."""
        key, equals, value = self.word.partition("=")
        if is_secret_name(key) or (value.lstrip().startswith("{") and is_secret_name(value)):
            value = REDACTED
        return key + equals + redact_url(value)


class CommandLine(msgspec.Struct, frozen=True):
    """The words sorted out: flags, the plain YAML file when one is named, and the overrides in order."""

    config_dir: str = ""
    config_name: str = ""
    multirun: bool = False
    file: str = ""
    overrides: tuple[Override, ...] = ()


def parse_words(words: Sequence[str]) -> CommandLine:
    """Return the command line. A word without `=` that is neither flag nor deletion names a YAML file.

    Raises UsageError for an unknown flag, a flag without its value, a second file, or a malformed key.
    """
    facts: dict[str, str] = {}
    multirun = False
    overrides = []
    waiting = iter(words)
    for word in waiting:
        flag, equals, value = word.partition("=")
        if word in _FLAGS:
            multirun = True
        elif flag in _VALUE_FLAGS:
            facts[_VALUE_FLAGS[flag]] = value if equals else _value_of(flag, waiting)
        elif word.startswith("-"):
            known = [*_VALUE_FLAGS, *_FLAGS]
            close = nearest(flag, known)
            raise UsageError(
                "unknown flag", where=flag, remedy=f"did you mean {close}?" if close else "known: " + ", ".join(known)
            )
        elif equals or word.startswith(("~", "+")):
            overrides.append(parse_override(word))
        elif "file" in facts:
            raise UsageError("second configuration file", where=word, expected=f"only {facts['file']!r}")
        else:
            facts["file"] = word
    return CommandLine(multirun=multirun, overrides=tuple(overrides), **facts)


def _value_of(flag: str, waiting: Iterator[str]) -> str:
    value = next(waiting, None)
    if value is None:
        raise UsageError(f"{flag} needs a value", expected=f"{flag}=VALUE or {flag} VALUE")
    return value


def parse_override(word: str) -> Override:
    """Return one override word, taken apart. Raises UsageError for a malformed key."""
    prefix = next(sign for sign in ("++", "+", "~", "") if word.startswith(sign))
    key, equals, value = word[len(prefix) :].partition("=")
    key = key.strip()
    action = _ACTIONS[prefix]
    if key == GROUP and prefix in ("", "+", "++"):
        return Override("choose", (GROUP,), value.strip(), True, word)
    if _GROUP_KEY.fullmatch(key):
        return Override("choose", (key,), value.strip(), bool(equals), word)
    if not _KEY.fullmatch(key):
        raise UsageError(
            "override has no proper key", where=word, expected="for example ++workload.reader.batch_size=4"
        )
    return Override(action, tuple(key.split(".")), value, bool(equals), word)


def expand_sweep(line: CommandLine) -> list[tuple[Override, ...]]:
    """Return the override lists of all runs: one without --multirun, the product of the swept values with it.

    Raises UsageError for a swept value without --multirun, and for more than 4096 runs.
    """
    if not line.multirun:
        return [line.overrides]
    choices = []
    runs = 1
    for override in line.overrides:
        values = split_choices(override.value) if override.valued else [override.value]
        runs *= len(values)
        if runs > RUNS_MAX:
            raise UsageError("sweep is too large", where=override.word, expected=f"at most {RUNS_MAX} runs")
        head = override.word.partition("=")[0]
        choices.append(
            [override]
            if len(values) == 1
            else [msgspec.structs.replace(override, value=value, word=f"{head}={value}") for value in values]
        )
    return list(itertools.product(*choices))
