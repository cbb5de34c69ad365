"""Engines: ordered keys and values that survive, found by the entry-point group `stoker.meta_engines`."""
