"""The trace of a cache: a line of CSV for each read, write and eviction, packed with zstd where the name ends so."""

import csv
import io
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import zstandard

from stoker.core import clock
from stoker.core.kvcache import TIERS

COLUMNS: Final = ("Timestamp", "Operation", "Object_Size_Bytes", "Tier", "Key", "Phase")
PREFILL: Final = "Prefill"
DECODE: Final = "Decode"
EVICT: Final = "Evict"


class TraceLog:
    """Writes the trace. Safe from many threads; without a path nothing is written."""

    def __init__(self, path: str) -> None:
        """Raises OSError for a file that cannot be written."""
        self._lock = threading.Lock()
        self._file: io.TextIOBase | None = None
        if path:
            raw = Path(path).open("wb")  # noqa: SIM115 - closed in close()
            packed = (
                zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=True) if path.endswith(".zst") else raw
            )
            self._file = io.TextIOWrapper(packed, encoding="utf-8", newline="")
            self._rows = csv.writer(self._file, lineterminator="\n")
            self._rows.writerow(COLUMNS)

    def row(self, operation: str, size_bytes: int, tier: str, key: str, phase: str) -> None:
        """Write a line; tiers are numbered by their kind: GPU 0, CPU 1, storage 2."""
        if self._file is None:
            return
        line = (f"{clock.wall_seconds():.6f}", operation, size_bytes, f"Tier-{TIERS.index(tier)}", key, phase)
        with self._lock:
            self._rows.writerow(line)

    def close(self) -> None:
        """End the file; closing twice is harmless."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
