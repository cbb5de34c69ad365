"""What every row is told: how long it may take, where it may write, who is there to compare with."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.peers import Peers
from stoker.core.errors import NoSpaceError
from stoker.core.units import format_bytes

Scale = Literal["quick", "default", "full"]


@dataclass(frozen=True)
class Conditions:
    """`files` is the number of small files in row c, 0: by scale; `workers` what each loader may use."""

    scratch: Path
    peers: Peers
    scale: Scale = "default"
    rounds: int = 5
    workers: int = 2
    files: int = 0
    python: str = sys.executable

    def choose(self, quick: int, default: int, full: int) -> int:
        """Return the number for this scale."""
        return {"quick": quick, "default": default, "full": full}[self.scale]

    def with_workers(self, workers: int) -> "Conditions":
        """Return the same for another number of workers."""
        return replace(self, workers=workers)

    @contextmanager
    def folder(self, needed_bytes: int) -> Iterator[Path]:
        """Make a folder that is removed at the end. Raises NoSpaceError when the space is not there."""
        free_bytes = shutil.disk_usage(self.scratch).free
        if free_bytes < 1.2 * needed_bytes:
            raise NoSpaceError(
                "not enough free space for the benchmark's data",
                where=str(self.scratch),
                expected=format_bytes(1.2 * needed_bytes),
                got=format_bytes(free_bytes),
            )
        folder = Path(tempfile.mkdtemp(dir=self.scratch, prefix="stoker-bench-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
