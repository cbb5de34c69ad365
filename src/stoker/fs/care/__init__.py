"""Care of a cluster: who belongs to it, where everything is, and what is repaired; the store that stands on it."""

from stoker.fs.care.opening import open_cluster

__all__ = ["open_cluster"]
