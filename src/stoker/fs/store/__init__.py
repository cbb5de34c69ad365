"""Where the bytes of slices are: one interface, and the stores behind it."""

from stoker.fs.store.interface import SliceRange, SliceStore

__all__ = ["SliceRange", "SliceStore"]
