"""The metadata of the file system: what a name means, who may use it, and which slices hold a file's bytes."""

from stoker.fs.meta.calls import Call, Caller
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.fsck import Fault, fsck
from stoker.fs.meta.tree import Tree
from stoker.fs.meta.volume import Volume

__all__ = ["Call", "Caller", "Fault", "MetaError", "Tree", "Volume", "fsck"]
