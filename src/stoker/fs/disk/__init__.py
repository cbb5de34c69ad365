"""What lies on one disk: shards, their index and checksums, scrubbing. Used in process and by a chunk server."""

from stoker.fs.disk.checksums import cell_crcs, check_parts
from stoker.fs.disk.disk import Disk
from stoker.fs.disk.interface import (
    HolderStatus,
    ScrubStatus,
    ShardHeader,
    ShardHolder,
    ShardId,
    ShardPage,
    check_header,
)
from stoker.fs.disk.reading import Span
from stoker.fs.disk.state import DiskOptions

__all__ = [
    "Disk",
    "DiskOptions",
    "HolderStatus",
    "ScrubStatus",
    "ShardHeader",
    "ShardHolder",
    "ShardId",
    "ShardPage",
    "Span",
    "cell_crcs",
    "check_header",
    "check_parts",
]
