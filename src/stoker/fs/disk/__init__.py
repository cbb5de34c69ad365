"""What lies on one disk: shards, their index and checksums, scrubbing. Used in process and by a chunk server."""

from stoker.fs.disk.interface import (
    HolderStatus,
    ScrubStatus,
    ShardHeader,
    ShardHolder,
    ShardId,
    ShardPage,
    check_header,
)

__all__ = ["HolderStatus", "ScrubStatus", "ShardHeader", "ShardHolder", "ShardId", "ShardPage", "check_header"]
