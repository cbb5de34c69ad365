"""Stoker: storage that keeps accelerators fed, and the benchmark that proves it."""

__version__ = "0.1.0"
