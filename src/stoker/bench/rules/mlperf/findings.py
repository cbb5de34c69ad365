"""What a check says: faults with their evidence, or why it cannot decide. Silence is a pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import MlperfRule
from stoker.core.result import Finding

# What a check is called for: once a tree, or for each of its parts; `run` is every leaf of the command run.
SCOPES: Final = ("tree", "submitter", "system", "series", "leaf", "run")
FINDING_SEVERITIES: Final = {"error": "blocks", "warning": "warns", "info": "informs"}


class Fault(msgspec.Struct, frozen=True):
    """A breach: what was seen and what is required, the path of the file or folder, the key in it.

    `severity` may only soften the rule's own.
    """

    observed: str
    expected: str
    path: str
    key: str = ""
    severity: str = ""


class Unknown(msgspec.Struct, frozen=True):
    """The check cannot decide: what is missing, and where.

    `excused` tells that nobody could have given more: the rule asks for what this kind of tree, or the edition, has
    not. An unknown that is not excused keeps a tree from being called valid.
    """

    reason: str
    path: str
    excused: bool = False


Said = Fault | Unknown


@dataclass(frozen=True)
class Check:
    """A rule's test: what it is called for, and the function, which gives faults and unknowns."""

    scope: str
    test: Callable[[Any, "Context"], Iterable[Said]]

    @property
    def name(self) -> str:
        """Return the function's name with its module, `training_checks.run_timestamps`."""
        return f"{self.test.__module__.rpartition('.')[2]}.{self.test.__name__}"


@dataclass(frozen=True)
class Context:
    """What a check may know besides its subject: the tree, and what the caller pinned."""

    tree: Any
    reference_checksum: str = ""


class TreeFinding(Finding, frozen=True):
    """A finding on a tree: besides the facts of every finding, the rule's name and where the evidence lies."""

    name: str = ""
    path: str = ""
    key: str = ""

    @property
    def line(self) -> str:
        """Return the finding as the reference checker writes it: `[ERROR] [id name] path: message`."""
        level = {"blocks": "ERROR", "warns": "WARNING"}.get(self.severity, "INFO")
        place = f"{self.path or '.'}"
        key = f" ({self.key})" if self.key else ""
        return f"[{level}] [{self.rule} {self.name}] {place}: {self.observed}{key}; required: {self.expected}"


def tree_finding(rule: MlperfRule, fault: Fault) -> TreeFinding:
    """Return the finding for a fault, with what the catalogue says of the rule."""
    where = (fault.path or ".") + (f" {fault.key}" if fault.key else "")
    return TreeFinding(
        rule=rule.id,
        severity=FINDING_SEVERITIES[fault.severity or rule.severity],
        title=rule.title,
        expected=fault.expected or rule.tested,
        observed=fault.observed,
        where=where,
        remedy=rule.remedy,
        name=rule.name,
        path=fault.path or ".",
        key=fault.key,
    )


def excused(reason: str, path: str) -> Unknown:
    """Return the unknown for what this kind of tree, or the edition, has not."""
    return Unknown(reason, path, True)


def missing(what: str, path: str) -> Unknown:
    """Return the unknown for a fact that no document gives."""
    return Unknown(f"not told: {what}", path)
