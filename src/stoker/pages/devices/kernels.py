"""The kernels of the device path: what each does, and which of the three sets runs where.

| set | where | how |
|---|---|---|
| `host` | memory of the host | the C++ kernels of `stoker.kernels`, or their NumPy twins |
| `eager` | any device of torch | operations of torch |
| `triton` | CUDA devices; the host under `TRITON_INTERPRET=1` | kernels in Triton, a fixed number of launches a batch |

All give the same bytes. Memory comes as torch tensors of uint8, whole slabs; a `TileTable` tells the pages in them.
"""

import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

from stoker.core.errors import MissingExtraError, UsageError
from stoker.pages.devices.eager import EagerKernels
from stoker.pages.devices.host_kernels import HostKernels
from stoker.pages.devices.tiles import Columns, TileTable
from stoker.pages.errors import DeviceError
from stoker.pages.interchange import need_torch

SETS: Final = ("auto", "host", "eager", "triton")


class TileKernels(Protocol):
    """What every set does; `slab`, `base` and the like are uint8 tensors of one device."""

    name: str

    def compare(self, base: Any, fresh: Any, table: TileTable, *, update: bool = False) -> Columns:
        """Return what leads from `base` to `fresh`, on the device; with `update` also write it into `base`."""

    def apply(self, targets: Sequence[Any], table: TileTable, columns: Columns) -> None:
        """Write what changed, columns on the device, into each of the slabs."""

    def cast(self, masters: Sequence[Any], slab: Any, table: TileTable) -> Columns:
        """Round float32 values to bfloat16 into the pages, and return what that changed, in the same pass.

        masters  a flat float32 tensor a page, an element for each two bytes; nearest even, every NaN becomes 0x7FC0
        """

    def gaps(self, base: Any, fresh: Any, width: int) -> tuple[Any, Any, Any]:
        """Compare two flat tensors as elements of `width` bytes: gaps, old values and new ones, all uint8.

        They are those of `stoker.kernels.wiring.diff_elements`.
        """

    def hashes(self, slab: Any, table: TileTable) -> Any:
        """Return XXH3-64 of every tile, padded with zeros to 4096 bytes: int64 of shape (tiles,)."""

    def copy(self, target: Any, target_table: TileTable, source: Any, source_table: TileTable) -> None:
        """Copy pages; both tables tell pages of the same sizes."""

    def zero(self, slab: Any, table: TileTable) -> None:
        """Fill pages with zeros."""

    def equal(self, left: Any, right: Any, table: TileTable) -> Any:
        """Tell of each page whether it is equal in both slabs: bool of shape (pages,)."""


def kernels_for(device: Any, wanted: str = "auto") -> TileKernels:
    """Return the kernels for a device of torch; `auto` takes the fastest there are.

    Raises UsageError for an unknown set, DeviceError for one that does not run there, MissingExtraError without torch.
    """
    torch = need_torch("kernels on a device")
    kind = torch.device(device).type
    if wanted not in SETS:
        raise UsageError("unknown set of kernels", expected=", ".join(SETS), got=wanted)
    if wanted == "auto":
        wanted = "host" if kind == "cpu" else "triton" if kind == "cuda" and has_triton() else "eager"
    if wanted == "host":
        if kind != "cpu":
            raise DeviceError("kernels of the host do not reach the memory of a device", got=str(device))
        return HostKernels(torch)
    return triton_kernels(torch, kind) if wanted == "triton" else EagerKernels(torch)


def has_triton() -> bool:
    """Tell whether the package triton can be imported."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def triton_kernels(torch: Any, kind: str) -> TileKernels:
    """Return the kernels in Triton. Raises MissingExtraError without it, DeviceError where they cannot run."""
    if not has_triton():
        raise MissingExtraError("kernels in Triton need the package 'triton'", remedy="run: pip install triton")
    if kind != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise DeviceError(
            "kernels in Triton run on CUDA devices", got=kind, remedy="TRITON_INTERPRET=1 interprets them on the host"
        )
    from stoker.pages.devices.triton_tiles import TritonKernels

    return TritonKernels(torch)
