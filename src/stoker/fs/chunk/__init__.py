"""Chunk servers: a disk behind a network, and the client of one."""

from stoker.fs.chunk.target import Target

__all__ = ["Target"]
