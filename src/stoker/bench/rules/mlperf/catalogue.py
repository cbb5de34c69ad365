"""The catalogue of the MLPerf Storage rules, read from the TOML files beside this one.

It is one table for all who need the rules: the checker, the limits of a command line, a run's gates and the
documentation. A rule is in one of three states:

    decided      a check decides it on a saved tree; a check that lacks a file says so, and that is not a pass
    covered      other rules decide the same
    undecidable  nothing that is saved can decide it; the reason is part of the rule
"""

import tomllib
from importlib.resources import files
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.tables import DATA, EDITIONS

FAMILIES: Final = ("training", "checkpointing", "vector_database", "kv_cache")
DIVISIONS: Final = ("closed", "open")
SEVERITIES: Final = ("error", "warning", "info")
_FILES: Final = ("structure", "training", "checkpointing", "vector_database", "kv_cache", "crosscutting")


class MlperfRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule. `title` names the breach, `tested` what holds when there is none; `family` is one of FAMILIES or `any`.

    `undecidable` is the reason why no saved tree can decide the rule, `covered_by` the rules that decide it instead.
    """

    id: str
    name: str
    title: str
    family: str
    editions: tuple[str, ...]
    divisions: tuple[str, ...] = DIVISIONS
    severity: str = "error"
    tested: str = ""
    remedy: str = ""
    undecidable: str = ""
    covered_by: tuple[str, ...] = ()

    @property
    def decidable(self) -> bool:
        """Tell whether a check of its own decides this rule."""
        return not self.undecidable and not self.covered_by

    @property
    def why_not(self) -> str:
        """Return why no check of its own decides this rule, nothing when one does."""
        return self.undecidable or (f"decided by {', '.join(self.covered_by)}" if self.covered_by else "")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A file of rules; what it says at its head holds for every rule that says nothing else."""

    family: str
    editions: tuple[str, ...]
    rules: list[dict[str, object]]


def _read(name: str) -> list[MlperfRule]:
    text = files(DATA).joinpath("data", f"{name}.toml").read_text(encoding="utf-8")
    found = msgspec.convert(tomllib.loads(text), _File)
    head = {"family": found.family, "editions": found.editions}
    return [msgspec.convert({**head, **row}, MlperfRule) for row in found.rules]


def _catalogue() -> dict[str, MlperfRule]:
    rules = {}
    for name in _FILES:
        for rule in _read(name):
            assert rule.id not in rules, f"{rule.id} stands twice in the catalogue"
            assert rule.severity in SEVERITIES
            assert set(rule.editions) <= set(EDITIONS) and set(rule.divisions) <= set(DIVISIONS)
            rules[rule.id] = rule
    return rules


RULES: Final[dict[str, MlperfRule]] = _catalogue()
