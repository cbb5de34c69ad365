"""File systems side by side: `python -m benchmarks.filesystems`."""
