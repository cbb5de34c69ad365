"""A job as it was asked for, and what can be wrong with it: the words of the verifier."""

import posixpath
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import RULES
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN

INVALID: Final = "invalid"


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, and what was found out beforehand; what is not known is None or empty.

    `division` is closed, open, whatif or nothing. `overrides` are dotted keys, for the KV cache the engine's options.
    `files` are those that the run reads, `files_sized` and `files_made` those of datasize and datagen.
    `measured_memory_bytes` is that of all hosts. `apart` tells whether data and results lie on two file systems.
    """

    family: str
    model: str
    edition: str = "3.0"
    division: str = ""
    command: str = "run"
    accelerator: str = ""
    processes: int = 1
    hosts: int = 1
    slots: tuple[int, ...] = ()
    overrides: dict[str, Any] = {}
    memory_bytes_per_host: float | None = None
    measured_memory_bytes: float | None = None
    files: int | None = None
    files_sized: int | None = None
    files_made: int | None = None
    needed_bytes: float | None = None
    needed_files: int | None = None
    free_bytes: int | None = None
    free_files: int | None = None
    subset: bool = False
    writes: int = 10
    reads: int = 10
    engine: str = "milvus"
    data: str = ""
    results: str = ""
    apart: bool | None = None

    @property
    def rules_division(self) -> str:
        """Return the division whose rules the job is held to: open for a what-if and for a job of none."""
        return CLOSED if self.division == CLOSED else OPEN

    @property
    def is_object(self) -> bool:
        """Tell whether the data lie in an object store."""
        scheme, mark, _ = self.data.partition("://")
        return bool(mark) and scheme not in ("file", "direct")

    @property
    def data_folder(self) -> str:
        """Return the data's folder, nothing for an object store."""
        return "" if self.is_object else posixpath.normpath(self.data.partition("://")[2] or self.data)


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as a rule wants it: what it lets the job be, the parameter, what was expected and found."""

    rule: str
    validation: str
    parameter: str
    expected: str
    actual: str
    severity: str = "error"

    @property
    def message(self) -> str:
        """Return what is wrong, in a few words."""
        return f"{self.parameter} is {self.actual}, where {self.rule} {RULES[self.rule].name} takes {self.expected}"

    @property
    def sentence(self) -> str:
        """Return the issue as a person reads it."""
        return f"[{self.rule} {RULES[self.rule].name}] {self.parameter}: {self.actual}; required: {self.expected}"
