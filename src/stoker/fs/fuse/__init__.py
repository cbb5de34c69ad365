"""The kernel's FUSE protocol, spoken by ourselves, and mounts: files of a client as any program sees them."""
