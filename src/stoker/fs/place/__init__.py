"""Placement: a cluster map, and the pure functions that say which disk holds which shard."""

from stoker.fs.place.map import NO_DISK, ClusterMap, Disk, Override, Pool, new_map
from stoker.fs.place.mapping import Mapping

__all__ = ["NO_DISK", "ClusterMap", "Disk", "Mapping", "Override", "Pool", "new_map"]
