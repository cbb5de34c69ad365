"""Slices over many disks: a store that copies, codes, reads around what is lost, and repairs."""

from stoker.fs.cluster.asking import Options
from stoker.fs.cluster.lanes import InlineLanes, Lanes, ThreadLanes
from stoker.fs.cluster.store import ClusterStore, Short

__all__ = ["ClusterStore", "InlineLanes", "Lanes", "Options", "Short", "ThreadLanes"]
