"""Doors to a volume with its bytes: what commands and mounts open, the `stoker://` store, the driver of fsspec."""
