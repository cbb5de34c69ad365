"""Bytes ↔ samples, sans-I/O: a format says which ranges it wants and decodes what it is given."""
