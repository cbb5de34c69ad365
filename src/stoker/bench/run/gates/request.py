"""What is asked of the gates, and what they found."""

from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.gate_checks import GATES_FILE
from stoker.bench.run.hosts.names import Host
from stoker.bench.run.hosts.separation import save_separation
from stoker.bench.run.hosts.start import Launch
from stoker.core.errors import PreflightError
from stoker.core.files import write_atomic

VERSION: Final = 1
PASSED: Final = "passed"
FAILED: Final = "failed"
EXEMPT: Final = "exempt"
SPACE: Final = "CAP-01"
SHARED: Final = "CAP-02"
APART: Final = "CAP-03"
DISK_FULL: Final = "FS_DISK_FULL"
NOT_SHARED: Final = "FS_INVALID_STRUCTURE"
PROBE_FAILED: Final = "E401"


class GateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run about to start.

    `target` is a folder or URL: data, checkpoints or cache. `shared_target` is False where every client has a target
    of its own, as KV caches are: then the results are what all must share. `hosts` are asked over SSH, or, with
    `launch`, by its ranks. `exempt` is the reason why the target is no file system of ours, as with a remote engine;
    object stores need none. With `skip_separation` CAP-03 is recorded but stops nothing.
    """

    target: str
    results: str
    needed_bytes: int = 0
    needed_files: int = 0
    hosts: tuple[Host, ...] = ()
    launch: Launch | None = None
    shared_target: bool = True
    exempt: str = ""
    skip_separation: bool = False


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's answer: passed, failed or exempt. `suppressed` tells that it failed and stops nothing, as was asked."""

    id: str
    name: str
    state: str
    observed: str
    expected: str = ""
    remedy: str = ""
    code: str = ""
    suppressed: bool = False
    facts: dict[str, Any] = {}

    @property
    def stops(self) -> bool:
        """Tell whether nothing may start."""
        return self.state == FAILED and not self.suppressed

    @property
    def line(self) -> str:
        """Return the answer as one line: `CAP-01 freeSpace passed: 9.00 GiB free`."""
        code = f" [{self.code}]" if self.code else ""
        told = f"{self.id}{code} {self.name} {self.state}: {self.observed}"
        return told + (" (recorded only)" if self.suppressed else "")


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What all gates found. `separation` is the record of CAP-03's probe, None where there was nothing to probe."""

    target: str
    results: str
    via: str
    hosts: tuple[str, ...]
    checked_at: str
    gates: tuple[Gate, ...]
    separation: dict[str, Any] | None = None
    version: int = VERSION

    @property
    def stopping(self) -> list[Gate]:
        """Return the gates that keep the run from being started."""
        return [gate for gate in self.gates if gate.stops]

    def require(self) -> None:
        """Raise PreflightError, with every gate that stops and what to do, when one does."""
        bad = self.stopping
        if bad:
            raise PreflightError(
                f"{len(bad)} of {len(self.gates)} gates are shut, so nothing was started",
                got="; ".join(gate.line for gate in bad),
                remedy="; ".join(dict.fromkeys(gate.remedy for gate in bad if gate.remedy)),
            )

    def record(self, leaf: Path) -> list[Path]:
        """Write gates.json and, where it was probed, fs_separation.json into a leaf; return their paths."""
        document = msgspec.to_builtins(self)
        document.pop("separation")
        path = leaf / GATES_FILE
        write_atomic(path, msgspec.json.format(msgspec.json.encode(document), indent=1))
        return [path] if self.separation is None else [path, save_separation(leaf, self.separation)]
