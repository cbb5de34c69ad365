"""Erasure coding: shards of slices, any k of which give the bytes back."""

from stoker.fs.code.backends import Backend, available_backends, backend
from stoker.fs.code.codec import Codec
from stoker.fs.code.layout import Layout, Span

__all__ = ["Backend", "Codec", "Layout", "Span", "available_backends", "backend"]
