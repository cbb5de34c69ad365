"""Slices over many disks: a store that copies, codes, reads around what is lost, and repairs."""

from stoker.fs.cluster.asking import Options
from stoker.fs.cluster.classes import KnownClasses
from stoker.fs.cluster.lanes import InlineLanes, Lanes, ThreadLanes
from stoker.fs.cluster.store import ClusterStore, Short

__all__ = ["ClusterStore", "InlineLanes", "KnownClasses", "Lanes", "Options", "Short", "ThreadLanes"]
