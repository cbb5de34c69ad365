"""Vectors: made from a seed, loaded into a database, searched, and held against the exact answers."""
